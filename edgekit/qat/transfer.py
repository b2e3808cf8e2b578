"""From the graph that was trained to the graph that was exported again: the same network, under a new digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import WEIGHTED_OPS
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.core.canonical import JsonValue
from edgekit.errors import DefectError
from edgekit.export.origin import module_of_node

__all__ = ["check_weights", "renamed_constants", "transferred"]

_TOLERANCE = 1e-6


def renamed_constants(trained: ExplainedGraph, exported: ExplainedGraph) -> Mapping[str, str]:
    """Stored tensors that operations with weights read, from their names in one graph to those in the other.

    Raises:
        DefectError: The forward paths are not the same operations on tensors of the same names.
    """
    if len(trained.forward) != len(exported.forward):
        raise _differs("", f"{len(trained.forward)} operations", f"{len(exported.forward)} operations")
    renamed: dict[str, str] = {}
    for one, other in zip(trained.forward, exported.forward, strict=True):
        left, right = trained.nodes[one], exported.nodes[other]
        if _shown(trained, left) != _shown(exported, right):
            raise _differs(module_of_node(left), str(_shown(trained, left)), str(_shown(exported, right)))
        if left.op_type not in WEIGHTED_OPS:
            continue
        for name, again in zip(left.input, right.input, strict=True):
            if name and trained.is_constant(name) and renamed.setdefault(name, again) != again:
                raise _differs(module_of_node(left), f"one stored tensor {name!r}", f"{renamed[name]!r} and {again!r}")
    return renamed


def _shown(graph: ExplainedGraph, node: Any) -> tuple[str, list[str], list[str]]:
    inputs = ["stored" if name and graph.is_constant(name) else name for name in node.input]
    return node.op_type, inputs, list(node.output)


def _differs(where: str, expected: str, found: str) -> DefectError:
    return DefectError(
        "The network with learned weights was exported to another graph than the one that learned.",
        where=where or None,
        expected=expected,
        found=found,
    )


def check_weights(
    learned: Mapping[str, torch.Tensor], renamed: Mapping[str, str], trained: ExplainedGraph, exported: ExplainedGraph
) -> None:
    """Raise `DefectError`, naming the layer, unless the exported graph holds the learned weights to 1e-6 of them."""
    for index in trained.forward:
        node = trained.nodes[index]
        for name in node.input:
            if name not in learned or name not in renamed:
                continue
            wanted = learned[name].detach().cpu().numpy()
            found = exported.constant(renamed[name])
            off = float(np.abs(wanted - found).max(initial=0)) if wanted.shape == found.shape else float("inf")
            if not off <= _TOLERANCE * float(np.abs(wanted).max(initial=0)):
                raise DefectError(
                    "The graph that was exported again does not hold the weights that were learned.",
                    where=f"{module_of_node(node)}, tensor {renamed[name]!r}",
                    expected=f"{list(wanted.shape)} to {_TOLERANCE:g}",
                    found=f"{list(found.shape)}, off by {off:.2e}",
                )


def transferred(
    table: ScaleTable, renamed: Mapping[str, str], exported: ExplainedGraph, parameters: Mapping[str, JsonValue]
) -> ScaleTable:
    """The learned table as that of the exported graph.

    Args:
        table: Of the graph that was trained.
        renamed: As `renamed_constants` gives it.
        exported: The other graph.
        parameters: How the scales were learned, added to the provenance.
    """
    origin = table.provenance
    return replace(
        table,
        provenance=replace(
            origin,
            graph=exported.digest,
            method=f"{origin.method}, then learned",
            parameters={**origin.parameters, **parameters},
        ),
        weights={renamed[name]: entry for name, entry in table.weights.items()},
    )
