"""What is refused before a student is trained."""

from __future__ import annotations

from torch import nn

from edgekit.errors import BadInputError

__all__ = ["check_separate", "diverged"]


def check_separate(student: nn.Module, teacher: nn.Module) -> None:
    """Raise `BadInputError` where the two networks share a tensor."""

    def storages(model: nn.Module) -> dict[int, str]:
        tensors = model.state_dict(keep_vars=True)
        return {tensor.untyped_storage().data_ptr(): name for name, tensor in tensors.items() if tensor.numel()}

    theirs, ours = storages(teacher), storages(student)
    shared = sorted(ours[pointer] for pointer in theirs.keys() & ours.keys())
    if shared:
        raise BadInputError(
            "Student and teacher share weights, so that training one would move the other.",
            expected="two networks with tensors of their own",
            found=", ".join(shared[:5]),
            hint="train a copy: copy.deepcopy(teacher)",
        )


def diverged(where: str, found: str) -> BadInputError:
    """The error of a loss or weight that is not finite."""
    return BadInputError(
        "Training diverged.",
        where=where,
        expected="a finite loss",
        found=found,
        hint="lower compress.finetune.learning_rate or compress.matching.beta, or set compress.finetune.clip_norm",
    )
