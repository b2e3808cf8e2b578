"""Cost tables: milliseconds of each operation by precision, measured on a device that is not here.

    {"format": "edgekit.costs/1",
     "device": "Jetson Orin Nano, 15 W",
     "measured": "trtexec --dumpProfile, TensorRT 10.3, batch 1",
     "costs": {"node_Conv_12": {"int8": 0.021, "fp16": 0.035, "fp32": 0.060}}}

A latency estimated from one is a sum over the operations it names. What a runtime adds where precisions meet is not
in it, and neither is a guess: an operation that can be lifted and has no cost in both precisions is refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgekit.core.canonical import parse_strict
from edgekit.core.files import read_bytes
from edgekit.errors import BadInputError, IntegrityError

__all__ = ["COSTS_FORMAT", "PRECISIONS", "CostTable", "check_costs", "read_costs"]

COSTS_FORMAT = "edgekit.costs/1"
PRECISIONS = ("int8", "fp16", "fp32")
_KEYS = {"format", "device", "measured", "costs"}


@dataclass(frozen=True)
class CostTable:
    """Measured costs.

    Attributes:
        device: Where they were measured.
        measured: How.
        costs: Node name to precision to milliseconds, at least 0.
    """

    device: str
    measured: str
    costs: Mapping[str, Mapping[str, float]]

    def float_cost(self, name: str, precisions: Collection[str]) -> float | None:
        """Milliseconds of a node outside INT8: of these precisions the fastest, as a builder would choose."""
        known = [cost for precision, cost in self.costs[name].items() if precision in precisions]
        return min(known, default=None)

    def total(self, int8: Collection[str], precisions: Collection[str]) -> float:
        """Milliseconds of all nodes of the table.

        Args:
            int8: Names of the nodes that compute in INT8.
            precisions: What the others may compute in.
        """
        costs = []
        for name, known in self.costs.items():
            outside = self.float_cost(name, precisions)
            inside = known.get("int8", outside)
            cost = inside if name in int8 else outside
            costs.append(0.0 if cost is None else cost)
        return math.fsum(costs)


def read_costs(path: Path) -> CostTable:
    """Read a cost table.

    Raises:
        BadInputError: It cannot be read, is not JSON, or is not a cost table; the message says which entry is wrong.
    """
    where = str(path)
    try:
        raw = parse_strict(read_bytes(path), where=where)
    except IntegrityError as cause:
        # Nobody vouched for this file's bytes.
        raise BadInputError(cause.message, where=where, expected=cause.expected, found=cause.found) from cause
    if not isinstance(raw, dict) or set(raw) != _KEYS:
        found = sorted(raw) if isinstance(raw, dict) else type(raw).__name__
        raise _malformed(where, "the keys " + ", ".join(sorted(_KEYS)), found)
    if raw["format"] != COSTS_FORMAT:
        raise _malformed(f"{where}: format", COSTS_FORMAT, raw["format"])
    for key in ("device", "measured"):
        if not isinstance(raw[key], str) or not raw[key].strip():
            raise _malformed(f"{where}: {key}", "text: a cost without its origin is a guess", raw[key])
    if not isinstance(raw["costs"], dict) or not raw["costs"]:
        raise _malformed(f"{where}: costs", "node names with their costs", raw["costs"])
    costs = {name: _entry(entry, f"{where}: costs.{name}") for name, entry in raw["costs"].items()}
    return CostTable(raw["device"], raw["measured"], costs)


def _entry(raw: Any, where: str) -> dict[str, float]:
    if not isinstance(raw, dict) or not raw or not set(raw) <= set(PRECISIONS):
        raise _malformed(where, "milliseconds by " + ", ".join(PRECISIONS), raw)
    for precision, cost in raw.items():
        if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not math.isfinite(cost) or cost < 0:
            raise _malformed(f"{where}.{precision}", "milliseconds, at least 0", cost)
    return {precision: float(cost) for precision, cost in raw.items()}


def check_costs(
    table: CostTable, names: Collection[str], lifted: Collection[str], precisions: Collection[str], *, where: str
) -> None:
    """Refuse a table that does not fit a graph.

    Args:
        table: The costs.
        names: Names of all the graph's nodes.
        lifted: Names of the operations that are INT8 or not, which is what the table has to tell apart.
        precisions: What they may compute in outside INT8.
        where: The table's file.

    Raises:
        BadInputError: It names a node that is not there, or lacks a cost.
    """
    unknown = sorted(set(table.costs) - set(names))
    if unknown:
        near = get_close_matches(unknown[0], sorted(names), n=1)
        raise BadInputError(
            "A cost table names nodes that the graph does not have.",
            where=where,
            found=", ".join(map(repr, unknown[:4])),
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    for name in sorted(lifted):
        known = table.costs.get(name, {})
        if "int8" not in known or not set(known) & set(precisions):
            raise BadInputError(
                "A cost table does not say what an operation costs in INT8 and outside it.",
                where=f"{where}: {name}",
                expected="int8 and " + " or ".join(sorted(precisions)),
                found=", ".join(sorted(known)) or "nothing",
            )


def _malformed(where: str, expected: str, found: object) -> BadInputError:
    return BadInputError("A cost table is malformed.", where=where, expected=expected, found=repr(found)[:200])
