"""Build real networks on real images, and write down everything that came out.

    python benchmarks/prepare_data.py DATA
    python benchmarks/finetune_cifar.py MODELS
    python benchmarks/real_builds.py --data DATA --models MODELS --work WORK [--only NAME ...]

Every case is one `edgekit build`, resumable like any other. Cases that differ only in the matching term share seed,
images, cut and number of steps. Results go to benchmarks/results/real_builds.json and real_builds.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import api
from edgekit.calibrate.options import CalibrateOptions
from edgekit.cli.progress import PlainObserver
from edgekit.compress.options import CompressOptions, FinetuneOptions, MatchingOptions, PruneOptions
from edgekit.config.recipe import Recipe, recipe_to_dict
from edgekit.core.canonical import read_json, write_json
from edgekit.core.environment import environment_print
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import read_scores
from edgekit.pipeline.release import BuildResult
from edgekit.teacher.options import GoldenOptions

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Case:
    """One build: where its network and images lie, and how it is compressed."""

    model: str
    data: str
    compress: CompressOptions
    golden: int = 1000

    def recipe(self) -> Recipe:
        """The case as a recipe, under the default policy."""
        return Recipe(
            golden=GoldenOptions(samples=self.golden),
            compress=self.compress,
            calibrate=CalibrateOptions(images=256),
        )


def _cifar(model: str, rate: float, loss: str, epochs: int) -> Case:
    options = CompressOptions(
        prune=PruneOptions(rate=rate, scope="inner"),
        finetune=FinetuneOptions(epochs=epochs, learning_rate=0.01),
        matching=MatchingOptions(loss=loss),
    )
    return Case(model, "cifar10-small", options)


def _person(rate: float, loss: str, epochs: int) -> Case:
    options = CompressOptions(
        prune=PruneOptions(rate=rate),
        finetune=FinetuneOptions(epochs=epochs, learning_rate=0.005),
        matching=MatchingOptions(loss=loss),
    )
    return Case("person-mobilenetv1-96", "camvid-person", options, golden=0)


CASES: Mapping[str, Case] = {
    "resnet20 int8 only": _cifar("cifar10-resnet20-jpeg", 0.0, "none", 0),
    "resnet20 prune 30 %, swa": _cifar("cifar10-resnet20-jpeg", 0.3, "swa", 4),
    "resnet20 prune 30 %, no matching": _cifar("cifar10-resnet20-jpeg", 0.3, "none", 4),
    "resnet20 prune 50 %, swa": _cifar("cifar10-resnet20-jpeg", 0.5, "swa", 4),
    "resnet20 prune 50 %, no matching": _cifar("cifar10-resnet20-jpeg", 0.5, "none", 4),
    "mobilenet int8 only": _person(0.0, "none", 0),
    "mobilenet prune 30 %, swa": _person(0.3, "swa", 6),
    "mobilenet prune 30 %, no matching": _person(0.3, "none", 6),
    "resnet56 int8 only": _cifar("cifar10-resnet56-jpeg", 0.0, "none", 0),
    "resnet56 prune 30 %, swa": _cifar("cifar10-resnet56-jpeg", 0.3, "swa", 2),
    "resnet56 prune 30 %, no matching": _cifar("cifar10-resnet56-jpeg", 0.3, "none", 2),
}


def described(result: BuildResult, work: Path, case: Case) -> dict[str, Any]:
    """Everything measured about one build, JSON-ready."""
    stages = work / "stages"
    latency = read_json(stages / "latency" / "latency.json")
    compress = result.records["compress"].facts
    return {
        "model": case.model,
        "data": case.data,
        "recipe": recipe_to_dict(case.recipe()),
        "status": result.manifest.status,
        "shipped": result.selection.chosen,
        "reason": result.selection.reason,
        "teacher_accuracy": result.records["golden"].facts["teacher_accuracy"],
        "parameters": {when: compress[when]["parameters"] for when in ("before", "after") if when in compress},
        "macs": {when: compress[when]["macs"] for when in ("before", "after") if when in compress},
        "int8_over_fp32_latency": latency["ratios"]["fp32/int8"],
        "candidates": {
            item.candidate.name: {
                "outcome": item.candidate.outcome,
                "accuracy": item.candidate.accuracy,
                "agreement": item.candidate.agreement,
                "bytes": item.candidate.bytes,
                "p50_ms": item.candidate.latency_p50_ms,
                "latency_over_fp32": item.candidate.latency_ratio,
                **_scores(read_scores(stages / f"verify-{item.candidate.name}" / "scores.json")),
            }
            for item in result.selection.judged
        },
    }


def _scores(table: ScoreTable) -> dict[str, Any]:
    compared = table.compared

    def summary(values: Any) -> dict[str, float]:
        kept = values[~np.isnan(values)]
        return {
            "mean": float(kept.mean()),
            "p5": float(np.percentile(kept, 5)),
            "p1": float(np.percentile(kept, 1)),
        }

    return {
        "samples": len(table),
        "compared": int(compared.sum()),
        "states": {state: table.state.count(state) for state in sorted(set(table.state))},
        "metrics": {name: summary(values) for name, values in table.metrics.items()},
        "own_class_metrics": {name: summary(values) for name, values in table.own_class_metrics.items()},
        "localisation": {name: float(np.nanmean(values)) for name, values in table.localisation.items()},
        "localised_samples": int(max((np.isfinite(v).sum() for v in table.localisation.values()), default=0)),
    }


def table_of(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """The results as markdown, one row an engine."""
    header = (
        "build",
        "engine",
        "verdict",
        "accuracy",
        "agreement",
        "cosine mean / p5",
        "share >= 0.90",
        "Spearman",
        "top-20 % IoU",
        "SSIM",
        "JS",
        "parameters",
        "KiB",
        "latency / FP32",
    )
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for name, case in cases.items():
        for engine, found in case["candidates"].items():
            lines.append("| " + " | ".join(_row(name, case, engine, found)) + " |")
    return "\n".join(lines)


def _row(name: str, case: Mapping[str, Any], engine: str, found: Mapping[str, Any]) -> Iterable[str]:
    metrics = found["metrics"]
    parameters = case["parameters"].get("after")
    return (
        name,
        engine + (" (ships)" if case["status"] == "released" and case["shipped"] == engine else ""),
        found["outcome"],
        f"{case['teacher_accuracy']:.3f} -> {found['accuracy']:.3f}",
        f"{found['agreement']:.3f}",
        f"{metrics['cosine']['mean']:.3f} / {metrics['cosine']['p5']:.3f}",
        f"{found['share_cosine_090']:.3f}",
        f"{metrics['spearman']['mean']:.3f}",
        f"{metrics['iou-top20']['mean']:.3f}",
        f"{metrics['ssim']['mean']:.3f}",
        f"{metrics['js-divergence']['mean']:.3f}",
        "as teacher" if parameters is None else f"{parameters / case['parameters']['before']:.2f}x",
        f"{found['bytes'] / 1024:.0f}",
        f"{found['latency_over_fp32']:.2f}",
    )


def localisation_of(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """Maps against masks, where the images have them."""
    measures = ("pixel-auc", "pointing", "energy-inside")
    lines = ["| build | engine | map of | " + " | ".join(measures) + " |", "| --- | --- | --- |" + " --- |" * 3]
    for name, case in cases.items():
        for engine, found in case["candidates"].items():
            for who in ("teacher", "engine", "centre-prior"):
                if f"{who}/pixel-auc" in found["localisation"]:
                    values = [f"{found['localisation'][f'{who}/{measure}']:.3f}" for measure in measures]
                    lines.append(f"| {name} | {engine} | {who} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the cases and write the results after each one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what prepare_data.py wrote")
    parser.add_argument("--models", type=Path, required=True, help="what finetune_cifar.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for the builds")
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES), metavar="NAME")
    arguments = parser.parse_args()
    stored = RESULTS / "real_builds.json"
    cases: dict[str, Any] = read_json(stored)["cases"] if stored.is_file() else {}
    for name in arguments.only:
        case = CASES[name]
        folders = (arguments.models, arguments.data / "models")
        model = next(folder / f"{case.model}.pt" for folder in folders if (folder / f"{case.model}.pt").is_file())
        work = arguments.work / name.replace(" ", "-").replace(",", "").replace("%", "percent")
        print(f"== {name}", flush=True)
        result = api.build(
            model, data=arguments.data / case.data, output=work, recipe=case.recipe(), observer=PlainObserver()
        )
        cases[name] = described(result, work, case)
        for engine, found in cases[name]["candidates"].items():
            table = read_scores(work / "stages" / f"verify-{engine}" / "scores.json")
            found["share_cosine_090"] = float(np.mean(table.metrics["cosine"][table.compared] >= 0.90))
        ordered = {key: cases[key] for key in CASES if key in cases}
        write_json(stored, {"environment": environment_print(), "cases": ordered})
        note = (
            "Made by benchmarks/real_builds.py; every number is in real_builds.json. Measured on "
            f"{environment_print()['processor']} with ONNX Runtime; nothing here ran on TensorRT or a GPU."
        )
        parts = ["# Real networks on real images", note, table_of(ordered), "## Maps against masks"]
        parts += [localisation_of(ordered)]
        (RESULTS / "real_builds.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
