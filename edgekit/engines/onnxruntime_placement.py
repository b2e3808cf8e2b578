"""Where the nodes of a session ran: read from a profile of one run, since ONNX Runtime tells it nowhere else.

A session that was opened with a GPU's provider may still run nodes on the processor, and says so in a log at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.canonical import read_json
from edgekit.errors import BadInputError, IntegrityError

__all__ = ["CPU_PROVIDER", "Placement", "check_placement", "read_placement"]

CPU_PROVIDER = "CPUExecutionProvider"
# Operators with weights: whoever runs these runs the network. What works on shapes and classes may run anywhere.
_HEAVY = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True)
class Placement:
    """Nodes by the provider that ran them.

    Attributes:
        operators: Provider to the operator of each of its nodes, in the order they ran.
    """

    operators: Mapping[str, tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: how many nodes each provider ran, and which operators ran on the processor."""
        return {
            "nodes": {provider: len(operators) for provider, operators in sorted(self.operators.items())},
            "on_processor": sorted(set(self.operators.get(CPU_PROVIDER, ()))),
        }


def read_placement(profile: Path) -> Placement:
    """Read what `InferenceSession.end_profiling` wrote.

    Raises:
        IntegrityError: It holds something else than the events of a profile.
    """
    found: dict[str, dict[str, str]] = {}
    try:
        for event in read_json(profile):
            if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
                told = event["args"]
                found.setdefault(told["provider"], {})[event["name"]] = told["op_name"]
    except (KeyError, TypeError, AttributeError) as cause:
        raise IntegrityError(
            "A profile of ONNX Runtime cannot be read.",
            where=str(profile),
            expected="a list of events, of nodes with provider and op_name",
            found=repr(cause),
        ) from cause
    return Placement({provider: tuple(names.values()) for provider, names in found.items()})


def check_placement(placement: Placement, provider: str, *, where: str) -> None:
    """Raise `BadInputError` unless this provider runs the network, and the processor none of its weights.

    Args:
        placement: Where the nodes ran.
        provider: Name of the provider that was asked for.
        where: The graph, for the message.
    """
    strayed = sorted(
        {name for name in placement.operators.get(CPU_PROVIDER, ()) if any(word in name for word in _HEAVY)}
    )
    if placement.operators.get(provider) and not strayed:
        return
    raise BadInputError(
        "The graph would not run on the GPU but, in part or whole, on the processor.",
        where=where,
        expected=f"nodes on {provider}, and none with weights on {CPU_PROVIDER}",
        found=", ".join(f"{len(names)} on {name}" for name, names in sorted(placement.operators.items()))
        + (f"; on the processor {', '.join(strayed)}" if strayed else ""),
        hint="a newer onnxruntime-gpu may have these operators for the GPU; 'edgekit targets' lists other engines",
    )
