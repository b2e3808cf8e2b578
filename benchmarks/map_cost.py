"""Whether the map costs at most 3 % over the logits alone, on the processor: last-stage map, one class, batch 1 and 8.

    python benchmarks/map_cost.py [--only PATTERN] [--rounds N] [--again] [--work DIR]

For every network, in FP32 and INT8, four graphs are timed: the logits alone, the same once more (what the measurement
itself can tell apart), the whole graph with the gradient in closed form where the head allows it, and with the traced
gradient. Needs torchvision for the networks that are not the project's own. Goes on where it was stopped; writes
`map_cost.json` and `map_cost.md`.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

# Read when torch is imported: its threads would spin beside the engines.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import numpy as np
import numpy.typing as npt
import onnx
from measuring.explained import TRACED, explained_forms, minmax_int8
from measuring.graphs import logits_only, runner
from measuring.images import image_folder
from measuring.networks import RandomNetwork, WeightsMissingError, loaded_network, random_network, real_network
from measuring.rounds import alternate, times_to_dict

from edgekit.core.canonical import read_json, write_json
from edgekit.core.environment import environment_print
from edgekit.images.views import ImageView
from edgekit.teacher.checkpoint import LoadedModel

RESULTS = Path(__file__).resolve().parent / "results"
LIMIT = 0.03
LOGITS, AGAIN = "logits", "logits again"
CALIBRATION_IMAGES = 16
BATCHES = (1, 8)
PRECISIONS = ("fp32", "int8")
TORCHVISION = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121")
OWN = {
    "cifar10-resnet20": "cifar10",
    "cifar10-resnet56": "cifar10",
    "person-mobilenetv1-96": "camvid-crops",
}


@dataclass(frozen=True)
class Settings:
    """How long is measured: rounds in all, and how often the sessions are opened anew; and a folder to work in."""

    rounds: int
    openings: int
    work: Path


@dataclass(frozen=True)
class Graphs:
    """One network's graphs.

    Attributes:
        whole: By precision and then by form of the gradient; the form that a build ships comes first.
        images: Network input, float32 [8, 3, H, W].
    """

    whole: Mapping[str, Mapping[str, onnx.ModelProto]]
    images: npt.NDArray[np.float32]


def graphs_of(name: str, work: Path) -> Graphs:
    """Load, export and quantise one network."""
    view = image_folder(OWN.get(name, "camvid-crops"), CALIBRATION_IMAGES, work).view
    with tempfile.TemporaryDirectory(dir=work) as folder:
        loaded = _loaded(name, view, Path(folder))
        images = view.prepared(loaded.card.input)
        whole: dict[str, dict[str, onnx.ModelProto]] = {precision: {} for precision in PRECISIONS}
        for form, explained in explained_forms(loaded).items():
            file = Path(folder) / "fp32.onnx"
            file.write_bytes(explained.model.SerializeToString(deterministic=True))
            whole["fp32"][form] = explained.model
            whole["int8"][form] = minmax_int8(file, images).model
    return Graphs(whole, next(images.batches(max(BATCHES))))


def _loaded(name: str, view: ImageView, folder: Path) -> LoadedModel:
    if name in OWN:
        return real_network(name)
    network = RandomNetwork(f"torchvision:{name}")
    model = random_network(network, view.prepared(network.input).batches(CALIBRATION_IMAGES))
    return loaded_network(network, model, folder / "model.pt")


def measured(graphs: Mapping[str, onnx.ModelProto], images: npt.NDArray[np.float32], settings: Settings) -> Any:
    """Ratios to the logits alone, round by round, over sessions that are opened anew several times.

    Where a session's memory happens to lie makes it a little faster or slower for as long as it lives.
    """
    alone = logits_only(next(iter(graphs.values())))
    models = {LOGITS: alone, AGAIN: alone, **graphs}
    times: dict[str, list[float]] = {name: [] for name in models}
    each = -(-settings.rounds // settings.openings)
    for opening in range(settings.openings):
        order = list(models)[:: -1 if opening % 2 else 1]
        runs = {name: runner(models[name], images) for name in order}
        for name, taken in alternate(runs, each).items():
            times[name] += taken
    return times_to_dict(times, over=LOGITS)


def cost_of(name: str, settings: Settings) -> dict[str, Any]:
    """Every precision and batch of one network."""
    graphs = graphs_of(name, settings.work)
    cases = [
        {
            "precision": precision,
            "batch": batch,
            "shipped": next(iter(whole)),
            **measured(whole, np.ascontiguousarray(graphs.images[:batch]), settings),
        }
        for precision, whole in graphs.whole.items()
        for batch in BATCHES
    ]
    return {
        "side": graphs.images.shape[2],
        "openings": settings.openings,
        "asked_rounds": settings.rounds,
        "cases": cases,
    }


def text_of(document: Mapping[str, Any]) -> str:
    """The results as markdown."""
    rows = [(name, network, case) for name, network in document["networks"].items() for case in network["cases"]]
    over = [row for row in rows if _shipped(row[2])["median"] - 1 > LIMIT]
    told = f"{len(rows) - len(over)} of {len(rows)} medians are at most {LIMIT:.0%} over the logits alone."
    columns = (
        "network",
        "input",
        "precision",
        "batch",
        "logits alone, ms",
        "shipped form",
        "map costs",
        "traced gradient costs",
        "logits again",
    )
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for name, network, case in rows:
        traced = case["ratio"].get(TRACED) if case["shipped"] != TRACED else None
        cells = (
            name,
            str(network["side"]),
            case["precision"].upper(),
            str(case["batch"]),
            f"{case['median_ms'][LOGITS]:.2f}",
            case["shipped"],
            _percent(_shipped(case)),
            "the same" if traced is None else _percent(traced),
            _percent(case["ratio"][AGAIN]),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n\n".join(["# What the map costs", told, _introduction(document), "\n".join(lines)]) + "\n"


def _shipped(case: Mapping[str, Any]) -> Mapping[str, float]:
    ratio: Mapping[str, float] = case["ratio"][case["shipped"]]
    return ratio


def _percent(ratio: Mapping[str, float]) -> str:
    low, middle, high = ((ratio[name] - 1) * 100 for name in ("q1", "median", "q3"))
    return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"


def _introduction(document: Mapping[str, Any]) -> str:
    machine = document["environment"]
    networks = document["networks"].values()
    rounds = min((case["rounds"] for network in networks for case in network["cases"]), default=0)
    return (
        "Made by benchmarks/map_cost.py; every number is in map_cost.json. Measured on "
        f"{machine['processor']} with {machine['logical_cpus']} logical processors, ONNX Runtime "
        f"{machine['packages'].get('onnxruntime', '')}, its own choice of threads. Last-stage Grad-CAM of the engine's "
        "own answer, as a build ships it; networks of torchvision have random weights.\n\n"
        f"Time of the whole graph over that of the same graph cut down to the logits: median over {rounds} rounds, and "
        "quartiles. All graphs are open in one process and run block by block in turns, so that memory, clock and "
        "neighbours are alike for all; before every block the process waits until the spinning threads of the session "
        "before have gone to sleep, since they would slow the next one. Sessions are opened anew several times in "
        "other orders. *Logits again* is the logits-only graph in a second session: what the measurement takes for a "
        "difference where there is none."
    )


@click.command()
@click.option("--only", default="*", help="Networks whose name fits this pattern.")
@click.option("--again", is_flag=True, help="Measure networks again that are already there.")
@click.option("--rounds", default=30, show_default=True, help="Rounds, over all openings.")
@click.option("--openings", default=3, show_default=True, help="How often the sessions are opened anew.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/map-cost"), show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results.")
def main(only: str, again: bool, rounds: int, openings: int, work: Path, results: Path) -> None:
    """Measure what is missing, and write it down network by network."""
    warnings.simplefilter("ignore")  # of torchvision and the exporter
    settings = Settings(rounds, openings, work)
    for folder in (work, results):
        folder.mkdir(parents=True, exist_ok=True)
    stored = results / "map_cost.json"
    found: dict[str, Any] = read_json(stored)["networks"] if stored.is_file() else {}
    for name in (*TORCHVISION, *OWN):
        same = name in found and (found[name]["asked_rounds"], found[name]["openings"]) == (rounds, openings)
        if not fnmatch(name, only) or (same and not again):
            continue
        try:
            found[name] = cost_of(name, settings)
        except WeightsMissingError as missing:
            click.echo(f"{name}: {missing}")
            continue
        ordered = {key: found[key] for key in (*TORCHVISION, *OWN) if key in found}
        document = {"environment": environment_print(), "limit": LIMIT, "networks": ordered}
        write_json(stored, document)
        (results / "map_cost.md").write_text(text_of(document), encoding="utf-8")
        for case in found[name]["cases"]:
            click.echo(f"{name} {case['precision']} batch {case['batch']}: {_percent(_shipped(case))}")


if __name__ == "__main__":
    main()
