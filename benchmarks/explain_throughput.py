"""How many images a second are explained: the INT8 engine beside pytorch-grad-cam on the same processor.

    python benchmarks/explain_throughput.py [--only PATTERN] [--images N] [--again] [--work DIR]

A network of torchvision at 224 answers and explains N images, as edgekit's INT8 and FP32 engines, as edgekit's own
torch explainer, and by pytorch-grad-cam's GradCAM, each at batch 1 and batch 8. Blocks of images are explained by one
after the other. Needs torchvision and grad-cam. Goes on where it was stopped; writes `explain_throughput.json` and
`explain_throughput.md`.
"""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

# Read when torch is imported: spinning, its threads wait for each other sixty times as long on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import numpy as np
import numpy.typing as npt
import torch
from measuring.explained import MAPS, explained_forms, minmax_int8
from measuring.images import image_folder
from measuring.networks import RandomNetwork, loaded_network, random_network
from measuring.rounds import spread
from pytorch_grad_cam import GradCAM

from edgekit.attribution.spec import OWN_CLASS
from edgekit.bench.worker import wait_until_quiet
from edgekit.calibrate.qdq import serialise
from edgekit.core.canonical import read_json, write_json
from edgekit.core.environment import distribution_version, environment_print
from edgekit.engines.ort_cpu import ENGINE
from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.images.views import ImageView
from edgekit.metrics.comparisons import compare_cosine
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.explainer import explainer_for
from edgekit.teacher.tap import find_module

RESULTS = Path(__file__).resolve().parent / "results"
NETWORKS = ("resnet18", "mobilenet_v2")
BATCHES = (1, 8)
BLOCK = 40
CALIBRATION_IMAGES = 16
COMPARED_IMAGES = 64
GOAL = 8.0
INT8, FP32, TORCH = "edgekit, INT8 engine", "edgekit, FP32 engine", "edgekit, torch"
GRAD_CAM, FROZEN = "pytorch-grad-cam", "pytorch-grad-cam, frozen below the tap"

Maps = npt.NDArray[np.floating[Any]]
# From images [N, 3, H, W] to raw maps [N, h, w] of the network's own answers.
Explain = Callable[[npt.NDArray[np.float32]], Maps]


class RawGradCAM(GradCAM):  # type: ignore[misc]  # pytorch-grad-cam has no types
    """GradCAM that stops at the raw map: edgekit's maps are not scaled to the image here either."""

    def compute_cam_per_layer(self, input_tensor: Any, targets: Any, eigen_smooth: bool) -> list[Maps]:
        """As its base class does for one layer, without bringing the map to the size of the image."""
        (activation,) = (item.numpy() for item in self.activations_and_grads.activations)
        (gradient,) = (item.numpy() for item in self.activations_and_grads.gradients)
        layer = self.target_layers[0]
        cam = self.get_cam_image(input_tensor, layer, targets, activation, gradient, eigen_smooth)
        return [np.maximum(cam, 0)]

    def aggregate_multi_layers(self, cam_per_target_layer: list[Maps]) -> Maps:
        """The one layer's."""
        return cam_per_target_layer[0]


@dataclass(frozen=True)
class Subject:
    """A network in its three forms, its tap, and the images."""

    loaded: LoadedModel
    tap: str
    files: Mapping[str, Path]
    view: ImageView


def subject_of(name: str, count: int, work: Path, folder: Path) -> tuple[Subject, str]:
    """Load, export and quantise a network; and where its images come from."""
    images = image_folder("camvid-crops", count, work)
    network = RandomNetwork(f"torchvision:{name}")
    some = images.view.first(CALIBRATION_IMAGES).prepared(network.input)
    loaded = loaded_network(network, random_network(network, some.batches(CALIBRATION_IMAGES)), folder / "model.pt")
    explained = next(iter(explained_forms(loaded).values()))
    files = {FP32: folder / "fp32.onnx", INT8: folder / "int8.onnx"}
    files[FP32].write_bytes(explained.model.SerializeToString(deterministic=True))
    files[INT8].write_bytes(serialise(minmax_int8(files[FP32], some).model))
    return Subject(loaded, explained.map_spec.tap, files, images.view), images.source


def contenders(subject: Subject, stack: ExitStack) -> dict[str, Explain]:
    """Everything that explains images, by name."""
    found = {
        name: _engine(stack.enter_context(ENGINE.open(file, EngineOptions()))) for name, file in subject.files.items()
    }
    return {
        **found,
        TORCH: _explainer(subject),
        GRAD_CAM: _grad_cam(subject, frozen=False),
        FROZEN: _grad_cam(subject, frozen=True),
    }


def _engine(runner: Runner) -> Explain:
    return lambda images: runner.run(images, _own(images)).attribution


def _own(images: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    return np.full(len(images), OWN_CLASS, dtype=np.int32)


def _explainer(subject: Subject) -> Explain:
    model = subject.loaded.model
    example = torch.zeros(2, *subject.loaded.card.input.shape)
    explainer = explainer_for(subject.loaded, MAPS, example)

    def explain(images: npt.NDArray[np.float32]) -> Maps:
        maps: Maps = explainer(model, torch.from_numpy(images), torch.from_numpy(_own(images))).attribution.numpy()
        return maps

    return explain


def _grad_cam(subject: Subject, *, frozen: bool) -> Explain:
    """GradCAM at the tap.

    A network as it comes wants gradients of all its parameters, so the backward pass runs down to the image. Frozen
    but for the last parameter of the tapped module, it ends there, which is all that Grad-CAM needs.
    """
    model = copy.deepcopy(subject.loaded.model).requires_grad_(not frozen)
    layer = find_module(model, subject.tap)
    if frozen:
        list(layer.parameters())[-1].requires_grad_(True)
    cam = RawGradCAM(model=model, target_layers=[layer])

    def explain(images: npt.NDArray[np.float32]) -> Maps:
        maps: Maps = cam(torch.from_numpy(images), targets=None)
        return maps

    return explain


def agreement(ways: Mapping[str, Explain], images: npt.NDArray[np.float32]) -> dict[str, dict[str, float]]:
    """Cosine of everybody's raw maps to pytorch-grad-cam's: mean and least."""
    maps = {name: np.concatenate([way(part) for part in _parts(images, max(BATCHES))]) for name, way in ways.items()}
    cosines = {name: compare_cosine(maps[GRAD_CAM], found) for name, found in maps.items() if name != GRAD_CAM}
    return {name: {"mean": float(found.mean()), "least": float(found.min())} for name, found in cosines.items()}


def _parts(images: npt.NDArray[np.float32], size: int) -> list[npt.NDArray[np.float32]]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def seconds_per_image(ways: Mapping[str, Explain], subject: Subject) -> dict[tuple[str, int], list[float]]:
    """Seconds an image, by way and batch, a number for each block; images are decoded beforehand."""
    cases = [(name, batch) for name in ways for batch in BATCHES]
    found: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    blocks = subject.view.prepared(subject.loaded.card.input).batches(BLOCK)
    for turn, images in enumerate(block for block in blocks if len(block) == BLOCK):
        for name, batch in cases[:: -1 if turn % 2 else 1]:
            parts = _parts(images, batch)
            # Threads of whoever ran before must sleep, and the first run, with cold caches, does not count.
            wait_until_quiet()
            ways[name](parts[0])
            begun = time.perf_counter()
            for part in parts:
                ways[name](part)
            found[name, batch].append((time.perf_counter() - begun) / BLOCK)
    return found


def measured(name: str, count: int, work: Path) -> dict[str, Any]:
    """Everything about one network."""
    with tempfile.TemporaryDirectory(dir=work) as folder, ExitStack() as stack:
        subject, source = subject_of(name, count, work, Path(folder))
        ways = contenders(subject, stack)
        first = next(subject.view.prepared(subject.loaded.card.input).batches(COMPARED_IMAGES))
        cosines = agreement(ways, first)
        seconds = seconds_per_image(ways, subject)
    best = {way: min(BATCHES, key=lambda batch: statistics.median(seconds[way, batch])) for way in ways}
    yardstick = seconds[INT8, best[INT8]]
    return {
        "asked_images": count,
        "images": len(yardstick) * BLOCK,
        "source": source,
        "tap": subject.tap,
        "cosine_to_pytorch_grad_cam": cosines,
        "best_batch": best,
        "cases": [
            {
                "way": way,
                "batch": batch,
                "images_per_second": spread([1 / taken for taken in found]),
                "int8_is_faster_by": spread([taken / mine for taken, mine in zip(found, yardstick, strict=True)]),
            }
            for (way, batch), found in seconds.items()
        ],
    }


def text_of(document: Mapping[str, Any]) -> str:
    """The results as markdown."""
    parts = ["# Images explained in a second", *_told(document), _introduction(document)]
    for name, network in document["networks"].items():
        columns = (
            "explained by",
            "batch",
            "images a second",
            "INT8 engine is faster by",
            "cosine to pytorch-grad-cam, mean (least)",
        )
        lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        for case in network["cases"]:
            cosine = network["cosine_to_pytorch_grad_cam"].get(case["way"])
            rate, ratio = case["images_per_second"], case["int8_is_faster_by"]
            agree = "" if cosine is None else f"{cosine['mean']:.4f} ({cosine['least']:.4f})"
            cells = (case["way"], str(case["batch"]), _spread(rate, 1), _spread(ratio, 2), agree)
            lines.append("| " + " | ".join(cells) + " |")
        parts += [
            f"## {name}",
            f"{network['images']} images ({network['source']}), map at `{network['tap']}`.",
            "\n".join(lines),
        ]
    return "\n\n".join(parts) + "\n"


def _told(document: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, network in document["networks"].items():
        best = network["best_batch"]
        ratios = {
            case["way"]: case["int8_is_faster_by"]["median"]
            for case in network["cases"]
            if case["batch"] == best[case["way"]]
        }
        lines.append(
            f"- {name}: the INT8 engine explains {ratios[GRAD_CAM]:.1f} times as many images as pytorch-grad-cam, "
            f"{ratios[FROZEN]:.1f} times as many where the network below the tap is frozen; goal "
            f"{document['goal']:.0f}. Both at their best batch, {best[INT8]} and {best[GRAD_CAM]}."
        )
    return ["\n".join(lines)]


def _spread(values: Mapping[str, float], digits: int) -> str:
    low, middle, high = (f"{values[name]:.{digits}f}" for name in ("q1", "median", "q3"))
    return f"{middle} ({low} to {high})"


def _introduction(document: Mapping[str, Any]) -> str:
    machine = document["environment"]
    packages = {**machine["packages"], **document["versions"]}
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "torchvision", "grad-cam", "onnxruntime"))
    return (
        "Made by benchmarks/explain_throughput.py; every number is in explain_throughput.json. Measured on "
        f"{machine['processor']} with {machine['logical_cpus']} logical processors, {versions}, each with its own "
        "choice of threads. Last-stage Grad-CAM of the network's own answer, logits and raw map: neither side scales "
        "maps to the image, and images are decoded beforehand. INT8: min-max over 16 images, uint8 activations; its "
        "map is that of its own answer, where that flipped too. Weights are random, from a seed.\n\n"
        f"Blocks of {BLOCK} images are explained by one after the other in one process, in an order that turns round, "
        "each after the threads of the one before have gone to sleep; medians and quartiles are over blocks, and "
        "ratios are formed block by block, to the INT8 engine at its better batch. pytorch-grad-cam runs on the "
        "network as it comes, whose backward pass goes down to the image, and on one that is frozen up to the tap. "
        "The waiting threads of torch sleep rather than spin (OMP_WAIT_POLICY), to its advantage beside other work."
    )


@click.command()
@click.option("--only", default="*", help="Networks whose name fits this pattern.")
@click.option("--images", default=1000, show_default=True, help=f"Images to explain; whole blocks of {BLOCK} count.")
@click.option("--again", is_flag=True, help="Measure networks again that are already there.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/throughput"), show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results.")
def main(only: str, images: int, again: bool, work: Path, results: Path) -> None:
    """Measure what is missing, and write it down network by network."""
    warnings.simplefilter("ignore")  # of torchvision and the exporter
    if images < max(BLOCK, COMPARED_IMAGES):
        raise click.BadParameter(f"at least {max(BLOCK, COMPARED_IMAGES)}", param_hint="--images")
    for folder in (work, results):
        folder.mkdir(parents=True, exist_ok=True)
    stored = results / "explain_throughput.json"
    found: dict[str, Any] = read_json(stored)["networks"] if stored.is_file() else {}
    for name in NETWORKS:
        if fnmatch(name, only) and (again or found.get(name, {}).get("asked_images") != images):
            found[name] = measured(name, images, work)
            document = {
                "environment": environment_print(),
                "versions": {package: distribution_version(package) for package in ("torchvision", "grad-cam")},
                "goal": GOAL,
                "block": BLOCK,
                "networks": {key: found[key] for key in NETWORKS if key in found},
            }
            write_json(stored, document)
            (results / "explain_throughput.md").write_text(text_of(document), encoding="utf-8")
            click.echo("\n".join(_told(document)))


if __name__ == "__main__":
    main()
