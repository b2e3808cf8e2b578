"""Which of a network's outputs are the logits.

A head may return a tensor, or a tuple, list, dict or dataclass. The rule: the output called "logits" if there is one,
else the only output that is floating-point and has two axes. Anything else is an error, because a guess would be
compressed, verified and shipped as if somebody had said it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from edgekit.errors import BadInputError

__all__ = ["LOGITS", "TakeOutput", "choose_logits", "named_outputs", "take_logits"]

LOGITS = "logits"


def named_outputs(answer: Any) -> dict[str, Any]:
    """The parts of what a network returned, by key, field name or position."""
    if isinstance(answer, Mapping):
        return {str(name): value for name, value in answer.items()}
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return dict(zip(answer._fields, answer, strict=True))
    if isinstance(answer, (tuple, list)):
        return {str(index): value for index, value in enumerate(answer)}
    if is_dataclass(answer):
        return {item.name: getattr(answer, item.name) for item in fields(answer)}
    return {"": answer}


def choose_logits(outputs: Mapping[str, Any], where: str) -> str:
    """The name of the output that holds the logits.

    Args:
        outputs: Name to tensor (or to anything else, which is never chosen).
        where: The model's file, for the message.

    Raises:
        BadInputError: No output or more than one may be meant.
    """
    if isinstance(outputs.get(LOGITS), torch.Tensor):
        return LOGITS
    fit = [
        name
        for name, value in outputs.items()
        if isinstance(value, torch.Tensor) and value.dim() == 2 and value.is_floating_point()
    ]
    if len(fit) == 1:
        return fit[0]
    raise BadInputError(
        "The network's answer does not say which part of it are the logits.",
        where=where,
        expected="a tensor [N, classes], an output called 'logits', or a single floating-point output with two axes",
        found=", ".join(f"{name or 'answer'} {_described(value)}" for name, value in outputs.items()) or "nothing",
        hint="return the logits alone, or under the key 'logits'",
    )


class TakeOutput:
    """A forward hook that makes a network answer with one part of what it returns.

    A hook and not a wrapping module: module names stay what taps, weights and pruning records call them.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, _module: nn.Module, _inputs: Any, answer: Any) -> Any:
        """The part, in place of the answer."""
        return named_outputs(answer)[self.name]


def take_logits(model: nn.Module, answer: Any, where: str) -> tuple[str, ...]:
    """Let `model` answer its logits alone.

    Args:
        model: Given a hook where that is needed.
        answer: What it returned to a batch of images.
        where: The model's file, for the message.

    Returns:
        Notes: which output was taken.

    Raises:
        BadInputError: As `choose_logits`.
    """
    if isinstance(answer, torch.Tensor):
        return ()
    name = choose_logits(named_outputs(answer), where)
    model.register_forward_hook(TakeOutput(name))
    kind = type(answer).__name__
    return (f"the network returns more than a tensor ({kind}); its output {name!r} is taken as the logits",)


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a sequence of {len(value)}" if isinstance(value, Sequence) else type(value).__name__
