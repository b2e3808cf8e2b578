"""Scales as the DLA wants them: one for both sides of a pooling, and one for both summands of an addition.

Where a calibration gave two, the larger covers both. A summand without a scale would make the addition run in FP16, so
it gets that of the other; a factor without one, such as a gate, stays without: on the other's scale it would have a few
levels. The map branch is left alone, it is to be computed in float. Source of the rules: NVIDIA's
Deep-Learning-Accelerator-SW.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekit.engines.asking import LOGITS
from edgekit.engines.tensorrt.onnx_outline import OnnxNode, OnnxOutline

__all__ = ["shared_scales"]

_SUMMING = frozenset({"Add", "Max", "Min", "Sub"})
_POOLING = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})


def shared_scales(scales: Mapping[str, float], outline: OnnxOutline) -> dict[str, float]:
    """Make the scales of tensors that the DLA ties together equal.

    Args:
        scales: Tensor name to scale, above 0.
        outline: The float graph that is built.

    Returns:
        Every tensor of `scales`, none with a smaller scale, and the tensors tied to them.
    """
    forward = _forward(outline)
    found = dict(scales)
    # A tensor that got its scale here may tie a product's factors; each round adds a scale or ends.
    while (tied := _tied_once(found, outline, forward)) != found:
        found = tied
    return found


def _tied_once(scales: Mapping[str, float], outline: OnnxOutline, forward: Sequence[OnnxNode]) -> dict[str, float]:
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    constants = {name for node in outline.nodes if node.operator == "Constant" for name in node.outputs}
    computed = {name for node in outline.nodes for name in node.outputs} | set(outline.inputs)
    for node in forward:
        tied = [name for name in _tied_by(node, scales) if name in computed - constants]
        for name in tied[1:]:
            leader[find(name)] = find(tied[0])
    largest: dict[str, float] = {}
    for name, scale in scales.items():
        largest[find(name)] = max(scale, largest.get(find(name), 0.0))
    names_of = dict.fromkeys((*scales, *list(leader)))
    return {name: largest[find(name)] for name in names_of if find(name) in largest}


def _tied_by(node: OnnxNode, scales: Mapping[str, float]) -> tuple[str, ...]:
    """Tensors that a node wants of one scale."""
    if node.operator in _POOLING:
        return node.inputs[0], node.outputs[0]
    if node.operator in _SUMMING:
        return node.inputs
    # Calibration gave both factors a scale: then they have to be equal.
    return node.inputs if node.operator == "Mul" and all(name in scales for name in node.inputs) else ()


def _forward(outline: OnnxOutline) -> list[OnnxNode]:
    """The nodes on the way to the logits."""
    wanted = {LOGITS}
    found = []
    for node in reversed(outline.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            found.append(node)
    return found[::-1]
