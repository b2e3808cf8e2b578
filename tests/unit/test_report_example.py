"""A made-up build that every report test starts from, and the check that it is one a verification could have made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.golden import GoldenSet
from edgekit.core.stages import FileRef, StageRecord
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.metrics.agreement import score_agreement
from edgekit.metrics.classification import top_class
from edgekit.metrics.localisation import score_localisation
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import check_scores
from edgekit.policy.document import load_preset
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import judge
from edgekit.report.data import CandidateSummary, ReportData

CLASSES = ("disc", "square", "cross", "bar")


@dataclass(frozen=True)
class Case:
    """What to make up.

    Attributes:
        samples: Golden samples.
        side: Pixels.
        noise: How far the engine's maps are from the teacher's, 0 for equal ones.
        flips: Share of predictions that flip.
        degenerate: Whether some maps are empty or broken.
        masks: Whether the objects have masks.
        labels: Whether the images have labels.
        classes: Class names.
    """

    samples: int = 90
    side: int = 48
    noise: float = 0.15
    flips: float = 0.02
    degenerate: bool = True
    masks: bool = True
    labels: bool = True
    classes: tuple[str, ...] = CLASSES


def example_report(case: Case | None = None, policy: Policy | None = None, **changed: Any) -> ReportData:
    """A report over drawn shapes. `changed` replaces fields of the result."""
    values = _made_up(case or Case(), policy or load_preset("lenient"))
    if "candidates" in changed:
        values = values | {"judged": None}
    return ReportData(**(values | changed))


@cache
def _made_up(case: Case, policy: Policy) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    golden = _golden(case, rng)
    logits = golden.logits + rng.normal(0, 0.3, golden.logits.shape).astype(np.float32)
    flipped = rng.random(case.samples) < case.flips
    logits[flipped] = np.roll(logits[flipped], 1, axis=1)
    engine_maps = _moved(golden.maps, case.noise, rng)
    own_maps = np.where(flipped[:, None, None], engine_maps[:, ::-1], engine_maps)
    if case.degenerate and case.samples > 5:
        engine_maps[1] = 0
        engine_maps[3, 2, 2:4] = np.nan
        own_maps[1], own_maps[3] = engine_maps[1], engine_maps[3]
    table = scores(golden, logits, engine_maps, own_maps)
    verdict = judge(policy, table)
    status = {"pass": "released", "fail": "blocked"}.get(verdict.outcome, "inconclusive")
    return {
        "title": "shapes-resnet",
        "target": "cpu",
        "status": status,
        "golden": golden,
        "table": table,
        "verdict": verdict,
        "findings": (),
        "engine_maps": engine_maps,
        "own_maps": own_maps,
        "candidates": _candidates(table, verdict.outcome),
        "stages": _stages(),
        "latency": {
            "int8": {"p50": 0.412, "p90": 0.455, "p99": 0.61, "runs": 50},
            "fp32": {"p50": 0.934, "p90": 1.02, "p99": 1.31, "runs": 50},
        },
        "environment": {
            "machine": "x86_64",
            "processor": "Example Processor 3000",
            "logical_cpus": 2,
            "system": "Linux",
            "python": "3.12.3",
            "packages": {"edgekit": "0.1.0", "numpy": "2.1.0", "onnxruntime": "1.22.0"},
        },
        "recipe": {"seed": 7, "compress": {"prune": {"rate": 0.3}, "matching": {"loss": "swa", "beta": 100.0}}},
        "compression": {
            "before": {"parameters": 270_896, "macs": 40_813_184},
            "after": {"parameters": 131_402, "macs": 19_776_320},
        },
        "engine": {
            "engine": "ort-cpu",
            "runtime": "onnxruntime 1.22.0",
            "device": "Example Processor 3000",
            "details": {"providers": ["CPUExecutionProvider"], "threads": 0, "graph_optimisation": True},
        },
        "engine_logits": logits,
        "judged": "int8",
    }


def scores(
    golden: GoldenSet,
    logits: npt.NDArray[np.float32],
    engine_maps: npt.NDArray[np.float32],
    own_maps: npt.NDArray[np.float32],
) -> ScoreTable:
    """The table a verification makes of these answers."""
    states, metrics = score_agreement(golden.maps, engine_maps)
    localisation = {}
    if golden.masks is not None:
        for side, maps in (("teacher", golden.maps), ("engine", engine_maps)):
            localisation |= {f"{side}/{k}": v for k, v in score_localisation(maps, golden.masks).items()}
    return ScoreTable(
        sample=golden.digests,
        label=golden.labels,
        teacher_class=golden.teacher_class,
        engine_class=top_class(logits),
        state=states,
        metrics=metrics,
        own_class_metrics=score_agreement(golden.maps, own_maps).metrics,
        localisation=localisation,
    )


def _golden(case: Case, rng: np.random.Generator) -> GoldenSet:
    labels = (np.arange(case.samples) % len(case.classes)).astype(np.int64)
    drawn = [_draw(int(label) % 4, case.side, rng) for label in labels]
    pixels = np.stack([image for image, _ in drawn])
    masks = np.stack([mask for _, mask in drawn])
    cells = case.side // 6
    blurred = masks[:, : cells * 6, : cells * 6].reshape(case.samples, cells, 6, cells, 6).mean(axis=(2, 4))
    maps = np.maximum(blurred + rng.normal(0, 0.05, blurred.shape), 0).astype(np.float32)
    if case.degenerate and case.samples > 5:
        maps[5] = 0
    logits = rng.normal(0, 1, (case.samples, len(case.classes))).astype(np.float32)
    logits[np.arange(case.samples), labels] += 5
    height, width = (int(side) for side in maps.shape[1:])
    return GoldenSet(
        card=ModelCard(InputSpec(case.side, case.side), case.classes),
        map_spec=MapSpec("grad-cam", "stages.2", height, width),
        pixels=pixels,
        labels=labels if case.labels else np.full_like(labels, -1),
        logits=logits,
        maps=maps,
        names=tuple(f"val/{case.classes[label]}/{index:04}.png" for index, label in enumerate(labels)),
        masks=masks if case.masks else None,
        teacher="ab" * 32,
    )


def _draw(kind: int, side: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    y, x = np.mgrid[:side, :side]
    radius = side * rng.uniform(0.14, 0.24)
    dy, dx = y - rng.uniform(0.3, 0.7) * side, x - rng.uniform(0.3, 0.7) * side
    mask = (
        dy**2 + dx**2 < radius**2,
        np.maximum(abs(dy), abs(dx)) < radius,
        (np.minimum(abs(dy), abs(dx)) < radius / 3) & (np.maximum(abs(dy), abs(dx)) < radius),
        (abs(dy) < radius / 3) & (abs(dx) < 1.4 * radius),
    )[kind]
    stripes = 128 + 50 * np.sin((x * rng.uniform(-1, 1) + y) * rng.uniform(0.3, 0.9))
    image = stripes[..., None] * rng.uniform(0.4, 1, 3) + rng.normal(0, 6, (side, side, 3))
    image[mask] = rng.uniform(20, 235, 3) + rng.normal(0, 6, (int(mask.sum()), 3))
    return np.clip(image, 0, 255).astype(np.uint8), mask


def _moved(maps: npt.NDArray[np.float32], noise: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    amount = noise * rng.exponential(1, (len(maps), 1, 1))
    shifted = np.roll(maps, (1, 1), axis=(1, 2))
    share = np.clip(amount, 0, 0.9)
    moved = (1 - share) * maps + share * shifted + 0.1 * amount * rng.random(maps.shape) * (maps > 0)
    return moved.astype(np.float32)


def example_blame() -> dict[str, Any]:
    """What a `blame.json` holds of which a report tells: a hop that was not measured, one that breaks, two tensors."""

    def against(cosine: float) -> dict[str, Any]:
        return {"means": {"cosine": cosine, "spearman": cosine - 0.02}, "flips": 0.125, "divergence": 1e-3}

    def hop(name: str, outcome: str | None, cosine: float | None, step: float | None, **told: Any) -> dict[str, Any]:
        return {
            "name": name, "title": f"the {name}", "on_path": name != "fp16", "outcome": outcome, "reason": "",
            "note": "", "ran_on": "", "failed": [], "compared_with": None,
            "against_teacher": None if cosine is None else against(cosine),
            "against_source": None if step is None else against(step),
        } | told  # fmt: skip

    def tensor(name: str, rank: int, mean: float) -> dict[str, Any]:
        drift = {"cosine": {"mean": mean, "low": mean / 2, "high": 2 * mean}}
        return {"name": name, "kind": "activation", "operation": "Relu", "module": None, "rank": rank,
                "ranks": [rank, rank + 1], "only": drift}  # fmt: skip

    hops = [
        hop("teacher", None, None, None, note="stored answers"),
        hop("compressed", None, None, None, reason="give --build"),
        hop("onnx", "pass", 0.99999, 0.99999, ran_on="reference"),
        hop("fp16", "pass", 0.9998, 0.9998, note="FP16 emulated on the CPU, not run on TensorRT"),
        hop("engine", "fail", 0.87, 0.88, note="the bytes that ship"),
    ]
    ledger = {"policy": "lenient", "samples": ["ab" * 32] * 24, "hops": hops, "first_broken": "engine",
              "in_words": "The engine is the first hop that breaks the policy 'lenient'."}  # fmt: skip
    tensors = [tensor("relu_4", 1, 0.0957), tensor("conv_1", 2, 0.0000166)]
    return {"format": "edgekit.blame/1", "bundle": "cd" * 32, "ledger": ledger, "blame": {"tensors": tensors}}


def _candidates(table: ScoreTable, outcome: str) -> tuple[CandidateSummary, ...]:
    means = {
        name: float(np.nanmean(values)) if table.compared.any() else float("nan")
        for name, values in table.metrics.items()
    }
    shared = {"agreement": float(np.mean(table.agrees)), "accuracy": 0.94, "means": means}
    return (
        CandidateSummary("int8", "int8", 162_344, outcome, **shared, latency_p50_ms=0.412, shipped=outcome == "pass",
                         reason="holds: its verdict is pass; 0.44 times the latency of FP32 here; 0.29 times its size"),
        CandidateSummary("fp32", "fp32", 551_201, outcome, **shared, latency_p50_ms=0.934, shipped=False,
                         reason="holds: its verdict is pass"),
    )  # fmt: skip


def _stages() -> tuple[StageRecord, ...]:
    told = {
        "golden": "90 samples, teacher accuracy 95.6%, maps 8x8 at stages.2",
        "compress": "parameters 270896 -> 131402 (-51%), 8 epochs with swa, last loss 0.0412",
        "export": "closed form, parity 2.4e-07 on 16 images",
        "calibrate": "22 tensors, percentile 99.99",
        "build": "int8 162344 bytes",
        "verify": "pass: mean cosine 0.973, agreement 95.6% on 90 samples",
    }
    return tuple(
        StageRecord(
            name, f"{place:02x}" * 32, {"seed": 7}, {}, {"out.bin": FileRef("cd" * 32, 1000)}, {"summary": text}
        )
        for place, (name, text) in enumerate(told.items(), start=1)
    )


@pytest.mark.parametrize(
    "case", [Case(), Case(masks=False, labels=False), Case(samples=1), Case(noise=0, flips=0, degenerate=False)]
)
def test_the_example_could_come_from_a_verification(case: Case) -> None:
    data = example_report(case)
    check_scores(data.table, classes=len(case.classes))
    assert len(data.golden) == case.samples
    # The verdict belongs to the table: judged again it is the same.
    assert judge(data.verdict.policy, data.table).to_dict() == data.verdict.to_dict()
    assert replace(data, title="other").title == "other"
