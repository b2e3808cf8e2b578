"""No value of an FP16 operation may lie beyond FP16: what is stored, what a scale spans, what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from edgekit.errors import BadInputError
from edgekit.half.kinds import Kinds
from edgekit.half.scales import LARGEST, HalfScales
from edgekit.half.view import QUANTISATION, GraphView, describe

__all__ = ["check_range"]


def check_range(
    view: GraphView,
    scales: HalfScales,
    kinds: Kinds,
    measure: Callable[[Sequence[str]], Mapping[str, float]] | None,
) -> None:
    """Look at every operation that computes in FP16, in the graph's order.

    Args:
        view: The graph.
        scales: Its quantisation scales.
        kinds: What computes in FP16.
        measure: Answers the largest magnitude of tensors; None for no measurement.

    Raises:
        BadInputError: One holds, reads or answers more than 65504; names the node and its module.
    """
    chosen = [view.nodes[index] for index in sorted(kinds.half)]
    answers = [name for node in chosen for name in node.output if name and view.is_float(name)]
    measured = measure(answers) if measure is not None and answers else {}
    for node in chosen:
        _check_inputs(view, scales, node)
        for name in node.output:
            _refuse_beyond(node, measured.get(name, 0.0), f"answers {name!r}")


def _check_inputs(view: GraphView, scales: HalfScales, node: onnx.NodeProto) -> None:
    # A bound beyond the range bounds nothing in it.
    for slot in () if node.op_type == "Clip" else view.free_slots(node):
        name = node.input[slot]
        maker = view.maker(name)
        if view.is_stored(name):
            value = view.value(name)
            # What is infinite on purpose is infinite in FP16, too.
            largest = float(np.abs(value[np.isfinite(value)]).max(initial=0.0))
            _refuse_beyond(node, largest, f"holds {name!r}")
        elif maker is not None and maker.op_type in QUANTISATION:
            _refuse_beyond(node, scales.largest_value(maker), f"reads {name!r}")


def _refuse_beyond(node: onnx.NodeProto, largest: float, what: str) -> None:
    if not largest <= LARGEST:
        raise BadInputError(
            "The graph cannot be given FP16 types: a value is beyond their range.",
            where=describe(node),
            expected=f"magnitudes up to {LARGEST:.0f}",
            found=f"it {what} with {largest:.6g}",
            hint="build with FP32 types (float_type 'fp32'), or change the module so that its values stay in range",
        )
