"""Runs clean-up passes one after the other and undoes what does not keep its word."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx

from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.export.passes.protocol import GraphPass, PassReport
from edgekit.export.passes.registry import ORDER, PASSES

__all__ = ["Check", "Cleaned", "clean_up"]

Check = Callable[[onnx.ModelProto], str | None]
"""Says how a graph differs from what it should compute, or None."""


@dataclass(frozen=True)
class Cleaned:
    """A graph after its passes, and what became of each."""

    model: onnx.ModelProto
    reports: tuple[PassReport, ...]


def clean_up(
    model: onnx.ModelProto,
    check: Check,
    observer: Observer = NULL_OBSERVER,
    passes: Iterable[GraphPass] | None = None,
) -> Cleaned:
    """Run the passes over a copy of `model`.

    Args:
        model: An exported graph; stays as it is.
        check: Run after each pass that changed something.
        observer: Is told of every pass that was rolled back.
        passes: Those of the registry in their order, unless given.
    """
    reports = []
    current = _copy(model)
    for item in [PASSES.load(name) for name in ORDER] if passes is None else passes:
        attempt = _copy(current)
        changes, problem = _attempt(item, attempt, check)
        if problem is None:
            current = attempt
        else:
            observer.noted(f"The clean-up pass {item.name!r} was undone: {problem}.")
        reports.append(PassReport(item.name, changes if problem is None else 0, problem))
    return Cleaned(current, tuple(reports))


def _attempt(item: GraphPass, model: onnx.ModelProto, check: Check) -> tuple[int, str | None]:
    """How many changes there were, and why they must not stay."""
    obstacle = item.obstacle(model)
    if obstacle is not None:
        return 0, f"it needs {item.needs}, but {obstacle}"
    changes = item.apply(model)
    violation = item.violation(model)
    if violation is not None:
        return changes, f"it promises that {item.promise}, but {violation}"
    if not changes:
        return 0, None
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as cause:
        return changes, f"its graph is not valid ONNX: {str(cause).strip().splitlines()[0]}"
    difference = check(model)
    return changes, None if difference is None else f"its graph answers differently: {difference}"


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied
