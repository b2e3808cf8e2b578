"""What was built, by TensorRT's own account: the engine's layers, their precision, and what fell back.

A build that succeeds says nothing about precision: where no INT8 kernel is, another runs, without a word. The account
is the inspector's JSON at detailed verbosity; how it spells types differs by version, so words in it are looked for.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.onnx_outline import OnnxOutline
from edgekit.errors import UnavailableError

__all__ = ["EngineLayers", "inspect_engine", "read_layers"]

_TYPES = (
    ("int8", re.compile(r"\bint8\b", re.IGNORECASE)),
    ("fp8", re.compile(r"\bfp8\b|float8", re.IGNORECASE)),
    ("bf16", re.compile(r"\bbf16\b|bfloat16", re.IGNORECASE)),
    ("fp16", re.compile(r"\bfp16\b|\bhalf\b|float16", re.IGNORECASE)),
    ("fp32", re.compile(r"\bfp32\b|\bfloat\b|float32", re.IGNORECASE)),
)
_OTHER, _UNTOLD = "other", "untold"
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_JOINTS = re.compile(r" \+ |\|\||[(),]")
_REFORMAT_NAMES = ("Reformatting CopyNode", "reformatted")
_MOST_NAMED = 100


@dataclass(frozen=True)
class EngineLayers:
    """The layers of an engine. A layer's precision is that of its first input: what it computes on.

    Attributes:
        count: All layers.
        by_precision: "int8", "fp16", "fp32", "bf16", "fp8", "other" (indices, truth values) or "untold", to how many;
            reformats are not among them.
        reformats: Layers that only change how a tensor lies or what type it has.
        int8_to_float: INT8 layers whose output is none: after them the network goes on in float.
        dla: Layers that run on the DLA.
        fell_back: Operations whose inputs come from Q/DQ and that run in another precision all the same.
        unmatched: Operations of that kind that no layer's name or metadata holds, so that nothing is known of them.
    """

    count: int
    by_precision: Mapping[str, int]
    reformats: int
    int8_to_float: int
    dla: int
    fell_back: tuple[str, ...]
    unmatched: tuple[str, ...]

    @property
    def told(self) -> bool:
        """Whether the engine says what any layer computes in; one that was built at a lower verbosity does not."""
        return any(count for name, count in self.by_precision.items() if name != _UNTOLD)

    def share(self, precision: str) -> float:
        """Share among the layers that are no reformats, 0 to 1; 0 where there are none."""
        computing = sum(self.by_precision.values())
        return self.by_precision.get(precision, 0) / computing if computing else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; of long lists the first hundred, with their whole length."""
        raw: dict[str, Any] = {
            "count": self.count,
            "by_precision": dict(sorted(self.by_precision.items())),
            "shares": {name: round(self.share(name), 4) for name in ("int8", "fp16", "fp32") if self.told},
            "reformats": self.reformats,
            "int8_to_float": self.int8_to_float,
            "dla": self.dla,
        }
        for key, names in (("fell_back", self.fell_back), ("unmatched", self.unmatched)):
            raw[key] = {"count": len(names), "names": list(names[:_MOST_NAMED])}
        return raw


def inspect_engine(tensorrt: TensorRt, engine: Any, outline: OnnxOutline) -> EngineLayers:
    """Ask an engine; of one that was not built at detailed verbosity little is known.

    Raises:
        UnavailableError: TensorRT's answer cannot be read.
    """
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(tensorrt.module.LayerInformationFormat.JSON)
    return read_layers(str(text), outline)


def read_layers(text: str, outline: OnnxOutline) -> EngineLayers:
    """Read the inspector's JSON.

    Raises:
        UnavailableError: It is not what TensorRT writes.
    """
    try:
        raw = json.loads(text)
        layers = raw["Layers"]
        if not isinstance(layers, list):
            raise TypeError("Layers is no list")
    except (ValueError, KeyError, TypeError) as cause:
        raise UnavailableError(
            "The engine's description cannot be read, so its precision is not known.",
            expected="JSON with a list of layers",
            found=f"{cause}: {text[:120]!r}",
        ) from cause
    wanted = {node.name: node for node in outline.quantised_nodes() if node.name}
    counted: Counter[str] = Counter()
    reformats = to_float = dla = 0
    seen: set[str] = set()
    fell: list[str] = []
    for layer in layers:
        if _is_reformat(layer):
            reformats += 1
            continue
        before, after = _precision(layer, "Inputs"), _precision(layer, "Outputs")
        counted[before] += 1
        to_float += before == "int8" and after in ("fp16", "fp32", "bf16")
        dla += isinstance(layer, dict) and "DLA" in str(layer.get("LayerType", ""))
        named = _onnx_names(layer) & set(wanted)
        seen |= named
        if before not in ("int8", _UNTOLD):
            fell += [wanted[name].describe() for name in sorted(named)]
    missing = tuple(node.describe() for name, node in wanted.items() if name not in seen)
    return EngineLayers(len(layers), dict(counted), reformats, to_float, dla, tuple(fell), missing)


def _is_reformat(layer: Any) -> bool:
    kind, name = _kind_and_name(layer)
    return kind in ("Reformat", "NoOp") or name.startswith(_REFORMAT_NAMES)


def _kind_and_name(layer: Any) -> tuple[str, str]:
    # At lower verbosity a layer is its name alone.
    if not isinstance(layer, dict):
        return "", str(layer)
    return str(layer.get("LayerType", "")), str(layer.get("Name", ""))


def _precision(layer: Any, side: str) -> str:
    tensors = layer.get(side) if isinstance(layer, dict) else None
    if not isinstance(tensors, list) or not tensors or not isinstance(tensors[0], dict):
        return _UNTOLD
    told = str(tensors[0].get("Format/Datatype", tensors[0].get("Datatype", "")))
    if not told:
        return _UNTOLD
    return next((name for name, words in _TYPES if words.search(told)), _OTHER)


def _onnx_names(layer: Any) -> set[str]:
    _, name = _kind_and_name(layer)
    metadata = str(layer.get("Metadata", "")) if isinstance(layer, dict) else ""
    named = set(_ONNX_LAYER.findall(metadata))
    return named or {part.strip() for part in _JOINTS.split(name)} | {name}
