"""What is compared: every calibrator of the registry, and other people's tools in their usual settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from edgekit.calibrate.calibrator import CALIBRATORS
from edgekit.core.canonical import JsonValue

__all__ = ["OUR_BASE", "TOOLS", "Method", "is_claimed", "methods"]

# What every time is a multiple of.
OUR_BASE = "minmax"
_WORKERS = Path(__file__).parent / "workers"
_ORDER = ("minmax", "moving-average", "percentile", "entropy", "mse", "attribution-quick", "attribution")


@dataclass(frozen=True)
class Method:
    """One way to quantise a graph.

    Attributes:
        name: In tables and patterns.
        tool: "edgekit", or one of `TOOLS`: whose Python runs it.
        script: The worker.
        settings: Of its own.
        map_in_float: The map's own part of the graph is left alone.
        suffix: Of the file it writes.
        answers: It answers itself, since its model runs nowhere else.
    """

    name: str
    tool: str
    script: str
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    map_in_float: bool = True
    suffix: str = ".onnx"
    answers: bool = False

    @property
    def worker(self) -> Path:
        """The script's path."""
        return _WORKERS / self.script

    @property
    def options(self) -> dict[str, JsonValue]:
        """What the worker is told."""
        return dict(self.settings) if self.ours else {**self.settings, "map_in_float": self.map_in_float}

    @property
    def ours(self) -> bool:
        """One of edgekit's calibrators."""
        return self.tool == "edgekit"


TOOLS: Mapping[str, str] = MappingProxyType(
    {"onnxruntime": "ONNX Runtime quantize_static", "nncf": "NNCF on OpenVINO", "modelopt": "ModelOpt ONNX PTQ"}
)


def is_claimed(method: str) -> bool:
    """Whether it is claimed of a method that it beats all others: those that have the map in their objective."""
    return method.startswith("attribution")


def _ours() -> list[Method]:
    names = sorted(CALIBRATORS.names(), key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    return [Method(name, "edgekit", "edgekit_own.py", {"method": name}) for name in names]


def _theirs() -> list[Method]:
    found = []
    for in_float in (True, False):
        end = "" if in_float else ", whole graph"
        found += [
            Method(f"ORT {kind.lower()}{end}", "onnxruntime", "onnxruntime_static.py", {"method": kind}, in_float)
            for kind in ("MinMax", "Percentile", "Entropy")
        ]
        found += [
            Method(
                f"NNCF {preset.lower()}{end}", "nncf", "nncf_openvino.py", {"preset": preset}, in_float, ".xml", True
            )
            for preset in ("MIXED", "PERFORMANCE")
        ]
        found += [
            Method(f"ModelOpt {kind}{end}", "modelopt", "modelopt_onnx.py", {"method": kind}, in_float)
            for kind in ("max", "entropy")
        ]
    return found


def methods() -> tuple[Method, ...]:
    """All methods, ours first, then the tools with the map's part in float, then as they come out of the box."""
    return (*_ours(), *_theirs())
