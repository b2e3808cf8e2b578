"""Known faults of OpenVINO's: graphs that it takes and computes wrongly, found before they run.

Nothing here is needed for safety, since whatever an engine answers is verified; it says why, where a failed verdict
would only say that. A fault is listed with the version that has it, and a test that it still has it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.errors import IntegrityError

__all__ = ["check_known_faults", "version_problem"]

# 2025.4.0 and 2026.0.0 answered maps of quantised graphs off by a tenth to a third of their range, and logits
# that were right; 2026.1.0, 2026.2.0, 2026.3.0 and 2026.4.1 do not (tests/unit/test_openvino.py).
_OLDEST = (2026, 1)

# Operators that move values about, which dequantisation is pushed through.
_MOVERS = {
    "Clamp",
    "Convert",
    "MaxPool",
    "Multiply",
    "Relu",
    "Reshape",
    "Slice",
    "Squeeze",
    "StridedSlice",
    "Transpose",
}
_CHANNELS = 1


def version_problem(version: str) -> str:
    """What is wrong with a version of OpenVINO, such as "2026.4.1-22982-abc"; empty where nothing is known to be."""
    numbers = version.partition("-")[0].split(".")
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers[:2]):
        return f"openvino {version} has a version that cannot be read"
    if (int(numbers[0]), int(numbers[1])) < _OLDEST:
        return (
            f"openvino {version.partition('-')[0]} answers wrong maps for quantised graphs; "
            f"{_OLDEST[0]}.{_OLDEST[1]} is the oldest that does not"
        )
    return ""


def check_known_faults(model: Any, artifact: Path) -> None:
    """Raise `IntegrityError` where OpenVINO would compute this graph wrongly.

    Args:
        model: An `openvino.Model`, as it was read.
        artifact: Its file, for the message.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Pad" and _pads_channels(node) and _has_zero_point(node):
            raise IntegrityError(
                "OpenVINO would compute this graph wrongly: it pads channels of quantised tensors with another value "
                "than zero.",
                where=f"{artifact}: {node.get_friendly_name()}",
                expected="channels padded in float, or quantised with zero point 0",
                found="a Pad of channels behind a zero point that is not 0",
                hint="use the engine ort-cpu, or exclude what the Pad reads from INT8 (seen with OpenVINO 2026.4.1)",
            )


def _pads_channels(node: Any) -> bool:
    """Whether constants are put beside the channels; where that is computed, it may be."""
    if node.get_attributes().get("pad_mode") != "constant":
        return False
    amounts = [node.input_value(place).get_node() for place in (1, 2)]
    return any(item.get_type_name() != "Constant" or item.get_data()[_CHANNELS] != 0 for item in amounts)


def _has_zero_point(node: Any) -> bool:
    """Whether a value that the node reads was dequantised with a zero point other than 0."""
    return _found_above(node.input_value(0).get_node(), _subtracts)


def _found_above(node: Any, wanted: Callable[[Any], bool]) -> bool:
    waiting, seen = [node], set()
    while waiting:
        here = waiting.pop()
        if here.get_friendly_name() in seen:
            continue
        seen.add(here.get_friendly_name())
        if wanted(here):
            return True
        if here.get_type_name() == "Concat":
            waiting += [here.input_value(place).get_node() for place in range(here.get_input_size())]
        elif here.get_type_name() in _MOVERS:
            waiting.append(here.input_value(0).get_node())
    return False


def _subtracts(node: Any) -> bool:
    if node.get_type_name() != "Subtract":
        return False
    point = node.input_value(1).get_node()
    while point.get_type_name() == "Convert":
        point = point.input_value(0).get_node()
    return point.get_type_name() != "Constant" or bool(point.get_data().any())
