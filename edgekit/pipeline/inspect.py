"""What a path holds, told without being asked what it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.golden import GOLDEN_NAME, read_golden
from edgekit.bundle.layout import MANIFEST
from edgekit.bundle.open import open_bundle
from edgekit.core.stages import RECORD_NAME, read_record
from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard

if TYPE_CHECKING:
    from edgekit.teacher.load_options import LoadOptions

__all__ = ["Found", "Table", "inspect_path"]


@dataclass(frozen=True)
class Table:
    """A list of like things."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        kind: "bundle", "golden set", "stage", "ONNX graph" or "model".
        facts: Name to value.
        tables: Lists that belong to it.
    """

    kind: str
    facts: Mapping[str, object]
    tables: tuple[Table, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        tables = [[dict(zip(table.header, map(str, row), strict=True)) for row in table.rows] for table in self.tables]
        return {"kind": self.kind, "facts": {name: str(value) for name, value in self.facts.items()}, "tables": tables}


def inspect_path(path: Path, load: LoadOptions | None = None) -> Found:
    """Look at `path`.

    Raises:
        BadInputError: It does not exist, or is none of the things edgekit knows.
        IntegrityError: It is one of them, and damaged.
    """
    if not path.exists():
        if not str(path).startswith(("timm:", "torchvision:")):
            raise BadInputError("There is no such file or folder.", where=str(path))
        return _model(path, load)
    if path.suffix == ".tar" or (path / MANIFEST).is_file():
        return _bundle(path)
    if (path / GOLDEN_NAME).is_file():
        return _golden(path)
    if (path / RECORD_NAME).is_file():
        return _stage(path)
    if path.is_dir() and not (path / "config.json").is_file():
        raise BadInputError(
            "The folder is nothing that edgekit made, and no model.",
            where=str(path),
            expected="a bundle, a golden set, a stage's folder, or what save_pretrained of transformers writes",
        )
    if path.suffix == ".onnx":
        return _onnx(path)
    return _model(path, load)


def _card(card: ModelCard) -> dict[str, object]:
    shown = ", ".join(card.classes[:8]) + (f", ... ({len(card.classes)})" if len(card.classes) > 8 else "")
    spec = card.input
    return {
        "input": f"{spec.height}x{spec.width} {spec.channel_order}",
        "normalisation": f"pixels / {spec.divisor:g}, mean {list(spec.mean)}, std {list(spec.std)}",
        "task": card.task,
        "classes": shown,
    }


def _map(spec: MapSpec) -> str:
    places = ", ".join(f"{tap.height}x{tap.width} at {tap.tap}" for tap in spec.taps)
    if spec.classes == 1:
        return f"{spec.method} {places}"
    which = "positive classes" if spec.class_choice == "positive" else "best answers"
    return f"{spec.method} {places}, of {spec.classes} {which}"


def _bundle(path: Path) -> Found:
    with open_bundle(path) as opened:
        manifest = opened.manifest
        spec = manifest.map_spec
        facts: dict[str, object] = {
            "status": manifest.status,
            "digest": manifest.digest,
            "target": manifest.target,
            "engine": f"{manifest.engine}, {manifest.precision}",
            "made with": f"edgekit {manifest.created_with}",
            "map": _map(spec),
            **_card(manifest.card),
        }
        rows = [(name, ref.size, ref.sha256[:12]) for name, ref in sorted(manifest.files.items())]
    return Found("bundle", facts, (Table(("file", "bytes", "sha256"), rows),))


def _golden(path: Path) -> Found:
    golden = read_golden(path)
    spec = golden.map_spec
    facts: dict[str, object] = {
        "samples": len(golden),
        "teacher": golden.teacher,
        "map": _map(spec),
        "masks": "yes" if golden.masks is not None else "no",
        **_card(golden.card),
    }
    return Found("golden set", facts)


def _stage(path: Path) -> Found:
    record = read_record(path)
    rows = [(name, ref.size, ref.sha256[:12]) for name, ref in record.outputs.items()]
    facts: dict[str, object] = {"stage": record.stage, "key": record.key}
    facts |= {f"input {name}": digest for name, digest in record.inputs.items()}
    facts |= {name: value for name, value in record.facts.items() if isinstance(value, (str, int, float))}
    return Found("stage", facts, (Table(("file", "bytes", "sha256"), rows),))


def _onnx(path: Path) -> Found:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError) as cause:
        raise BadInputError("The file is not an ONNX model.", where=str(path), found=str(cause)) from cause

    def described(value: onnx.ValueInfoProto) -> str:
        kind = value.type.tensor_type
        dims = ", ".join(dim.dim_param or str(dim.dim_value) for dim in kind.shape.dim)
        return f"{value.name} {onnx.TensorProto.DataType.Name(kind.elem_type).lower()} [{dims}]"

    outputs = [value.name for value in model.graph.output]
    operators = Counter(node.op_type for node in model.graph.node)
    facts: dict[str, object] = {
        "explained": "yes"
        if outputs[:2] == ["logits", "attribution"]
        else "no: it does not answer logits and attribution",
        "quantised": "yes" if "QuantizeLinear" in operators else "no",
        "opset": ", ".join(f"{item.domain or 'ai.onnx'} {item.version}" for item in model.opset_import),
        "inputs": "; ".join(described(value) for value in model.graph.input),
        "outputs": "; ".join(described(value) for value in model.graph.output),
        "bytes": path.stat().st_size,
    }
    tables = [Table(("operator", "count"), operators.most_common())]
    if "QuantizeLinear" in operators and "logits" in outputs:
        from edgekit.pipeline.inspect_pairs import describe_pairs

        of_pairs, broken = describe_pairs(model)
        facts |= of_pairs
        tables += [Table(("what TensorRT's rules find",), [(sentence,) for sentence in broken])] if broken else []
    return Found("ONNX graph", facts, tuple(tables))


def _model(path: Path, load: LoadOptions | None) -> Found:
    from edgekit.pipeline.inspect_model import describe_model

    described = describe_model(path, load)
    card = {} if described.card is None else _card(described.card)
    return Found("model", {**described.facts, **card, **described.last_facts}, tuple(map(_table, described.tables)))


def _table(table: tuple[Sequence[str], Sequence[Sequence[object]]]) -> Table:
    return Table(*table)
