"""The optimiser: SGD with the schedule's rate, gradients scaled for float16 and clipped."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from edgekit.compress.training.checks import diverged
from edgekit.compress.training.plan import TrainPlan

__all__ = ["Optimiser"]

# A scale below one would mean that gradients do not fit into float16 even as they are.
_LEAST_SCALE = 1.0


class Optimiser:
    """One step after the other.

    With float16 the loss is multiplied by a scale before it is differentiated, so that small gradients do not vanish,
    and a step whose gradients overflow is left out and the scale halved (`torch.amp.GradScaler`). The sensitivity in
    the matching term is differentiated within the loss, unscaled. That is right: it is a value of the loss and not a
    gradient that the scaler will unscale, and the scale reaches the second derivative through the loss like everything
    else.
    """

    def __init__(self, student: nn.Module, plan: TrainPlan, scaler: torch.amp.GradScaler) -> None:
        self._options, self._scaler = plan.finetune, scaler
        self._parameters = list(student.parameters())
        self._sgd = _grouped(student, plan)

    def step(self, loss: torch.Tensor, rate: float, where: str) -> None:
        """Differentiate the loss and move the weights, at a rate that each group has its own share of.

        Raises:
            BadInputError: Gradients are not finite though they are clipped, or overflow whatever the scale.
        """
        for group in self._sgd.param_groups:
            group["lr"] = rate / self._options.learning_rate * group["full_rate"]
        self._sgd.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self._options.clip_norm > 0:
            self._clip(where)
        self._scaler.step(self._sgd)
        self._scaler.update()
        if self._scaler.is_enabled() and self._scaler.get_scale() < _LEAST_SCALE:
            raise diverged(where, "gradients that overflow in float16 at any scale")

    def _clip(self, where: str) -> None:
        self._scaler.unscale_(self._sgd)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._options.clip_norm))
        # With a scaler this is how overflow is found: it leaves the step out.
        if not math.isfinite(norm) and not self._scaler.is_enabled():
            raise diverged(where, f"a gradient of norm {norm}")

    def state(self) -> dict[str, Any]:
        """Tensors, numbers and text from which `restore` goes on."""
        return {"sgd": self._sgd.state_dict(), "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that was stored."""
        self._sgd.load_state_dict(state["sgd"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])


def _grouped(student: nn.Module, plan: TrainPlan) -> torch.optim.Optimizer:
    """SGD with a group for every combination of learning rate and weight decay."""
    options = plan.finetune
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        rate = plan.learning_rates.get(name, options.learning_rate)
        decay = 0.0 if name in plan.undecayed else options.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.SGD(
        [
            {"params": parameters, "lr": rate, "full_rate": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        lr=options.learning_rate,
        momentum=options.momentum,
    )
