"""What the pairs of a Q/DQ graph cost and whether they stand as TensorRT and its DLA want them, for people to read."""

from __future__ import annotations

from typing import Any

from edgekit.calibrate.boundaries import count_boundaries
from edgekit.calibrate.dla_rules import check_dla_rules
from edgekit.calibrate.tensorrt_rules import check_tensorrt_rules

__all__ = ["describe_pairs"]

_SHOWN = 4


def describe_pairs(model: Any) -> tuple[dict[str, object], tuple[str, ...]]:
    """Look at an explained Q/DQ graph.

    Args:
        model: An `onnx.ModelProto` with an output "logits".

    Returns:
        Name to value of what is told of every such graph, and a sentence for each rule of TensorRT's that it breaks. A
        graph that was placed for another runtime breaks some, and runs there all the same.
    """
    found = count_boundaries(model)
    broken = check_tensorrt_rules(model)
    facts: dict[str, object] = {
        "operations in integers": found.quantised,
        "steps between float and integers": f"{found.entries} in, {found.exits} out, {found.per_operation:.2f} an "
        "operation",
        "with float on both sides": _named(found.lone),
        "concatenations of several scales": _named(found.requantised),
        "rules of TensorRT": f"{len(broken)} broken" if broken else "all kept",
        "what a DLA leaves to the GPU": _named(check_dla_rules(model)),
    }
    return facts, broken


def _named(names: tuple[str, ...]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)}: {'; '.join(names[:_SHOWN])}{more}"
