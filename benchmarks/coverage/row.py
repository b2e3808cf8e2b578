"""One row of the coverage table, in a process of its own; started by run.py."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from cases import CASES, Case
from measuring.explained import MAPS, explained_forms, minmax_int8
from measuring.graphs import logits_only, runner
from measuring.images import ImageFolder, image_folder
from measuring.networks import RandomNetwork, WeightsMissingError, loaded_network, random_network, real_network
from measuring.rounds import alternate, times_to_dict

from edgekit.attribution.spec import OWN_CLASS
from edgekit.calibrate.qdq import serialise
from edgekit.core.canonical import write_json
from edgekit.engines.ort_cpu import ENGINE
from edgekit.engines.protocol import EngineOptions, EngineOutput
from edgekit.errors import EdgekitError
from edgekit.export.explained import ExplainedOnnx
from edgekit.export.operator_check import check_operators
from edgekit.export.operator_table import OperatorTable, load_table, table_names
from edgekit.export.opset import downgraded, opset_of
from edgekit.export.parity import check_parity, compare
from edgekit.export.parting import first_parting
from edgekit.export.truth import truth_of
from edgekit.metrics.agreement import score_agreement
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.explain import map_spec
from edgekit.teacher.explainer import explainer_for

PARITY_IMAGES = 64
CALIBRATION_IMAGES = 16
TOLERANCE = 1e-4
_BATCH = 16


@dataclass
class Row:
    """What is known of one architecture while its steps run, each building on those before it."""

    case: Case
    work: Path
    folder: Path
    exported: dict[str, ExplainedOnnx] = field(default_factory=dict)

    @cached_property
    def images(self) -> ImageFolder:
        """The parity images and, behind them, the calibration images."""
        return image_folder(self.case.images, PARITY_IMAGES + CALIBRATION_IMAGES, self.work)

    @cached_property
    def pixels(self) -> npt.NDArray[np.float32]:
        """The parity images as network input."""
        return next(self.images.view.first(PARITY_IMAGES).prepared(self.loaded.card.input).batches(PARITY_IMAGES))

    @cached_property
    def loaded(self) -> LoadedModel:
        """The network."""
        if self.case.package == "edgekit":
            return real_network(self.case.name)
        network = RandomNetwork(self.case.arch, self.case.arguments, self.case.side)
        view = self.images.view.first(PARITY_IMAGES)
        model = random_network(network, view.prepared(network.input).batches(_BATCH))
        file = self.folder / "model.pt"
        loaded = loaded_network(network, model, file)
        file.unlink()
        return loaded

    @property
    def shipped_form(self) -> str:
        """The form of the graph that a build would ship."""
        return next(iter(self.exported))

    def file(self, form: str) -> Path:
        """Where the graph of one form lies."""
        path = self.folder / f"{form.replace(' ', '-')}.onnx"
        if not path.is_file():
            path.write_bytes(self.exported[form].model.SerializeToString(deterministic=True))
        return path


def load(row: Row) -> dict[str, Any]:
    """The network, loaded from a checkpoint; and whether its answers differ from image to image."""
    with torch.no_grad():
        logits = torch.cat([row.loaded.model(torch.from_numpy(part)) for part in np.split(row.pixels, 4)])
    parameters = sum(parameter.numel() for parameter in row.loaded.model.parameters())
    return {
        "parameters": parameters,
        "images": row.images.source,
        "classes_answered": len(set(logits.argmax(dim=1).tolist())),
    }


def tap(row: Row) -> dict[str, Any]:
    """Where the map lives."""
    images = torch.from_numpy(row.pixels[:2])
    spec = map_spec(explainer_for(row.loaded, MAPS, images), row.loaded.model, images)
    return {
        "module": spec.tap,
        "layout": spec.layout,
        "prefix_tokens": spec.prefix_tokens,
        "map": [spec.height, spec.width],
    }


def export(row: Row) -> dict[str, Any]:
    """The graph with the form that a build would choose, and with the traced gradient where that is another."""
    row.exported.update(explained_forms(row.loaded))
    forms = {
        form: {
            "nodes": len(explained.model.graph.node),
            "operators": dict(sorted(Counter(node.op_type for node in explained.model.graph.node).items())),
        }
        for form, explained in row.exported.items()
    }
    return {"forms": forms, "shipped": row.shipped_form}


def parity(row: Row) -> dict[str, Any]:
    """Every form against torch in float64."""
    explainer = explainer_for(row.loaded, MAPS, torch.from_numpy(row.pixels[:2]))
    truth = truth_of(row.loaded.model, explainer, row.pixels)
    found = {}
    for form, explained in row.exported.items():
        measured = compare(truth, row.file(form))
        worst = row.pixels[measured.worst : measured.worst + 1]
        check_parity(
            measured,
            TOLERANCE,
            partial(first_parting, row.loaded.model, explained.model, worst, TOLERANCE),
        )
        found[form] = asdict(measured)
    return {"forms": found, "tolerance": TOLERANCE}


def int8(row: Row) -> dict[str, Any]:
    """Min-max Q/DQ for x86: does the engine open and answer, and what became of map and answer?"""
    calibration = type(row.images.view)(row.images.view.items[PARITY_IMAGES:]).prepared(row.loaded.card.input)
    quantised = minmax_int8(row.file(row.shipped_form), calibration)
    file = row.folder / "int8.onnx"
    file.write_bytes(serialise(quantised.model))
    own = np.full(PARITY_IMAGES, OWN_CLASS, dtype=np.int32)
    before = _answers(row.file(row.shipped_form), row.pixels, own)
    chosen = before.logits.argmax(axis=1).astype(np.int32)
    after = _answers(file, row.pixels, chosen)
    scores = score_agreement(before.attribution, after.attribution, ["cosine"])
    compared = scores.metrics["cosine"][np.isfinite(scores.metrics["cosine"])]
    if not np.isfinite(after.logits).all() or "non_finite" in scores.states:
        raise ArithmeticError("the INT8 engine's answers are not finite")
    return {
        "agreement": float((after.logits.argmax(axis=1) == chosen).mean()),
        "cosine_mean": float(compared.mean()) if len(compared) else None,
        "cosine_min": float(compared.min()) if len(compared) else None,
        "states": dict(Counter(scores.states)),
        "quantised_operations": len(quantised.placement.quantised),
        "bytes_over_fp32": round(file.stat().st_size / row.file(row.shipped_form).stat().st_size, 3),
    }


def _answers(file: Path, images: npt.NDArray[np.float32], classes: npt.NDArray[np.int32]) -> EngineOutput:
    with ENGINE.open(file, EngineOptions()) as opened:
        parts = [
            opened.run(images[start : start + _BATCH], classes[start : start + _BATCH])
            for start in range(0, len(images), _BATCH)
        ]
    return EngineOutput(
        np.concatenate([part.logits for part in parts]), np.concatenate([part.attribution for part in parts])
    )


def tensorrt(row: Row) -> dict[str, Any]:
    """The TensorRT versions whose operator table each form satisfies, and what stands against the others."""
    tables = [table for table in map(load_table, table_names()) if table.engine == "tensorrt"]
    forms = {}
    for form, explained in row.exported.items():
        against = {table.version: _objection(explained.model, table) for table in tables}
        forms[form] = {
            "versions": [version for version, found in against.items() if found is None],
            "against": {version: found for version, found in against.items() if found is not None},
        }
    return {"forms": forms}


def _objection(model: onnx.ModelProto, table: OperatorTable) -> str | None:
    """What a version cannot read, of the graph in the operator set that a target of that version would ask for."""
    try:
        asked = downgraded(model) if table.opset[1] < opset_of(model) else model
    except EdgekitError as cause:
        return described(cause)
    found = check_operators(asked, table)
    return str(found[0]) if found else None


# Name, what is done, and the steps it cannot do without.
STEPS: dict[str, tuple[Callable[[Row], dict[str, Any]], tuple[str, ...]]] = {
    "load": (load, ()),
    "tap": (tap, ("load",)),
    "export": (export, ("load", "tap")),
    "parity": (parity, ("export",)),
    "int8": (int8, ("export",)),
    "tensorrt": (tensorrt, ("export",)),
}


def described(cause: BaseException) -> str:
    """The first line of a failure, with what was found."""
    text = (str(cause).strip() or "no message").splitlines()[0]
    details = (cause.found, cause.where) if isinstance(cause, EdgekitError) else ()
    more = "; ".join(str(detail).splitlines()[0] for detail in details if detail)
    return f"{type(cause).__name__}: {text}" + (f" ({more})" if more else "")


def measured_row(row: Row, until: str) -> dict[str, Any]:
    """Every step up to `until`, with its values or the reason why it failed."""
    steps: dict[str, Any] = {}
    for name, (step, needs) in STEPS.items():
        begun = time.perf_counter()
        if all(steps[need]["ok"] for need in needs):
            try:
                steps[name] = {"ok": True, **step(row)}
            except WeightsMissingError as missing:
                return {"skipped": str(missing)}
            except Exception as cause:  # whatever an architecture makes edgekit, torch or a runtime raise is its row
                steps[name] = {"ok": False, "reason": described(cause)}
            steps[name]["seconds"] = round(time.perf_counter() - begun, 1)
        else:
            steps[name] = {"ok": False, "reason": None}
        if name == until:
            break
    return {"steps": steps}


def cost(model: onnx.ModelProto, image: npt.NDArray[np.float32], rounds: int) -> dict[str, Any]:
    """What the map costs beside the logits alone, in FP32."""
    runs = {"logits": runner(logits_only(model), image), "logits and map": runner(model, image)}
    return times_to_dict(alternate(runs, rounds), over="logits")


def main() -> None:
    """Do what the one argument, a JSON document, asks for: measure a row, or the cost of a map that a row exported."""
    wanted = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    begun = time.perf_counter()
    graph, image = Path(wanted["graph"]), Path(wanted["image"])
    if wanted["rounds"]:
        result = {"cost": {"ok": True, **cost(onnx.load(graph), np.load(image, allow_pickle=False), wanted["rounds"])}}
    else:
        work = Path(wanted["work"])
        with tempfile.TemporaryDirectory(dir=work) as folder:
            row = Row(CASES[wanted["key"]], work, Path(folder))
            result = measured_row(row, wanted["until"])
            if row.exported:
                row.file(row.shipped_form).replace(graph)
                np.save(image, row.pixels[:1])
    write_json(Path(wanted["result"]), {**result, "seconds": round(time.perf_counter() - begun, 1)})


if __name__ == "__main__":
    main()
