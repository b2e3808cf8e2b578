"""Learning from the teacher's answers: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.

Both forms are a Kullback-Leibler divergence of the student's answer from the teacher's at a temperature T, times T^2 so
that gradients keep their size whatever T is. "sigmoid" is that of K independent yes/no answers, the form of Park et al.
2020's released code, averaged over batch and classes as there. Logits in half precision are computed with as float32.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from edgekit.errors import BadInputError

__all__ = ["distillation_loss", "form_for"]


def form_for(form: str, task: str) -> str:
    """What a recipe's form means for a card's task.

    Args:
        form: One of `edgekit.compress.options.DISTIL_FORMS`.
        task: One of `edgekit.interface.card.TASKS`.

    Returns:
        "softmax" or "sigmoid".

    Raises:
        BadInputError: The softmax of a multi-label network is asked for: its classes do not exclude each other.
    """
    if form == "softmax" and task == "multi-label":
        raise BadInputError(
            "The answers of a multi-label network are no distribution over its classes.",
            where="compress.distil.form",
            expected="sigmoid or auto",
            found="softmax",
            hint="say form: auto, or correct the card's task",
        )
    if form != "auto":
        return form
    return "sigmoid" if task == "multi-label" else "softmax"


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, form: str, temperature: float) -> torch.Tensor:
    """The distillation term of one batch: a scalar, 0 up to rounding where both answer the same, above 0 elsewhere.

    Finite, with a finite gradient, for all finite logits: every logarithm is one of a sigmoid or softmax as a whole.

    Args:
        student: Logits [N, K], differentiable.
        teacher: Logits [N, K], taken as they are.
        form: "softmax": `T^2 mean_n KL(softmax(t/T) | softmax(s/T))`, or "sigmoid":
            `T^2 mean_{n,k} KL(Bernoulli(sigmoid(t/T)) | Bernoulli(sigmoid(s/T)))`.
        temperature: T, above 0.
    """
    exact = torch.promote_types(student.dtype, torch.float32)
    ours, theirs = student.to(exact) / temperature, teacher.detach().to(exact) / temperature
    if form == "softmax":
        divergence = functional.kl_div(
            functional.log_softmax(ours, dim=1),
            functional.log_softmax(theirs, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return divergence * temperature**2
    yes, no = functional.logsigmoid(theirs), functional.logsigmoid(-theirs)
    each = yes.exp() * (yes - functional.logsigmoid(ours)) + no.exp() * (no - functional.logsigmoid(-ours))
    return each.mean() * temperature**2
