"""What compression is going to do, in words, and whether it does anything. Free of torch."""

from __future__ import annotations

from edgekit.compress.options import CompressOptions
from edgekit.teacher.capabilities import Capabilities

__all__ = ["check_format", "outline", "reason_to_skip"]


def reason_to_skip(options: CompressOptions, *, has_images: bool) -> str | None:
    """Why the student is the teacher; None where there is something to do."""
    if not has_images:
        return "no training data"
    does_something = (
        options.distil.student or options.prune.rate > 0 or options.sparsify.sparsity > 0 or options.finetune.epochs > 0
    )
    return None if does_something else "nothing to prune and no epoch to train"


def check_format(options: CompressOptions, capabilities: Capabilities, *, format_name: str, where: str) -> None:
    """Refuse what the format of the teacher's file does not allow.

    A student of another architecture is stored under its own, so that its teacher may be of any format.

    Args:
        options: What is asked for.
        capabilities: The teacher's.
        format_name: Its format, for the message.
        where: Its file, for the message.

    Raises:
        BadInputError: As `Capabilities.check_compress`.
    """
    if options.distil.student:
        return
    prune, sparsify, finetune = options.prune, options.sparsify, options.finetune
    pruned = [f"prune.rate {prune.rate:g}"] if prune.rate > 0 else []
    trained = [f"sparsify.sparsity {sparsify.sparsity:g}"] if sparsify.sparsity > 0 else []
    trained += [f"finetune.epochs {finetune.epochs}"] if finetune.epochs > 0 else []
    capabilities.check_compress(pruned, trained, format_name=format_name, where=where)


def outline(options: CompressOptions, *, has_images: bool) -> str:
    """The steps in their order, for a plan that people read."""
    skipped = reason_to_skip(options, has_images=has_images)
    if skipped is not None:
        return f"nothing: {skipped}"
    prune, sparsify, distil = options.prune, options.sparsify, options.distil
    steps = []
    if distil.student:
        steps.append(f"a new {distil.student}")
    if prune.rate > 0:
        rounds = f" in {prune.rounds} rounds" if prune.rounds > 1 else ""
        steps.append(f"prune {prune.rate:.0%} of the channels{rounds}")
    if sparsify.sparsity > 0:
        steps.append(f"hold {sparsify.sparsity:.0%} of the weights at zero ({sparsify.pattern})")
    if options.finetune.epochs > 0:
        terms = [f"{distil.weight:.0%} distillation"] if distil.weight > 0 else []
        terms += [f"maps held by {options.matching.loss}"] if options.matching.loss != "none" else []
        steps.append(f"train {options.finetune.epochs} epochs" + (f" with {' and '.join(terms)}" if terms else ""))
    return ", ".join(steps)
