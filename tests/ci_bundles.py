"""Small verified bundles for the tests of what CI systems read: sound, damaged, and with hostile names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from faulty import with_weights
from tiny_golden import GRAPH, tiny_golden

from edgekit.bundle.assemble import BundleRequest, bundle, contents_from_folder
from edgekit.bundle.golden import GoldenSet, write_golden
from edgekit.bundle.layout import GOLDEN, LATENCY, LINEAGE, MODEL, POLICY, RECIPE, SCORES, VERDICT
from edgekit.bundle.open import open_bundle
from edgekit.ci.subject import GateReport, gate_report
from edgekit.core.canonical import dump_canonical, read_json
from edgekit.policy.document import load_preset
from edgekit.policy.policy import Policy
from edgekit.verify.stage import SCORES_NAME, VERDICT_NAME, VerifyRequest, verify

STATUS = {"pass": "released", "fail": "blocked", "inconclusive": "inconclusive"}
# What somebody would call an image, a class or a policy to be obeyed instead of shown.
HOSTILE = (
    "<script>alert(1)</script>.png",
    "a&b\"c'd.png",
    "a|b `code` **bold** [x](http://evil.example).png",
    "line\n::error title=forged::gate passed\r\n##[error]no.png",
    "\x1b[2J\x1b]0;owned\x07\x9b31m.png",
    "\u202egnp.exe\u2028next\u0000.png",
    "]]><system-out/>--><!--.png",
    "%0A::set-env name=PATH::/evil,a:b.png",
    "@everyone www.evil.example https://evil.example #1 :smile:.png",
)


def hostile_golden(count: int = 80) -> GoldenSet:
    """A golden set whose images and classes carry `HOSTILE` names."""
    golden = tiny_golden(count)
    names = tuple(f"{number}{HOSTILE[number % len(HOSTILE)]}" for number in range(count))
    return replace(golden, names=names, card=replace(golden.card, classes=HOSTILE[:4]))


def damaged_graph(folder: Path) -> Path:
    """The tiny graph with the rows of its map's weights reversed: another class is explained."""
    folder.mkdir(parents=True, exist_ok=True)
    return with_weights(
        GRAPH, folder / "damaged.onnx", lambda w: w[::-1] if w.shape == (4, 3) and w.max() < 1 else None
    )


def blunted_graph(folder: Path, strength: float = 0.02, seed: int = 1) -> Path:
    """The tiny graph with a little noise on its map's weights: maps that are worse and still good."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(scale=strength, size=(4, 3)).astype(np.float32)
    return with_weights(
        GRAPH, folder / "blunted.onnx", lambda w: w + noise if w.shape == (4, 3) and w.max() < 1 else None
    )


def ci_bundle(
    folder: Path,
    *,
    graph: Path = GRAPH,
    golden: GoldenSet | None = None,
    policy: Policy | None = None,
    latency: Any = None,
    recipe: Any = None,
) -> Path:
    """A verified bundle in `folder`/release, with the status that its own verdict gives it."""
    golden, policy = golden or tiny_golden(), policy or load_preset("default")
    write_golden(golden, folder / "golden")
    verify(VerifyRequest("reference", graph, folder / "golden", policy), folder / "verified")
    verdict = read_json(folder / "verified" / VERDICT_NAME)
    documents = {
        POLICY: policy.to_dict(),
        RECIPE: recipe or {"seed": 0},
        LINEAGE: {"stages": []},
        SCORES: read_json(folder / "verified" / SCORES_NAME),
        VERDICT: verdict,
        **({LATENCY: latency} if latency is not None else {}),
    }
    request = BundleRequest(
        target="cpu",
        engine="reference",
        precision="fp32",
        status=STATUS[verdict["outcome"]],
        card=golden.card,
        map_spec=golden.map_spec,
        contents={
            MODEL: graph,
            **contents_from_folder(GOLDEN, folder / "golden"),
            **{name: dump_canonical(document) for name, document in documents.items()},
        },
        lineage={"teacher": golden.teacher},
    )
    bundle(request, folder / "release")
    return folder / "release"


def unverified_bundle(folder: Path, *, engine: str = "reference") -> Path:
    """A bundle without evidence. One of the engine "tensorrt" waits for its device."""
    golden = tiny_golden(20)
    write_golden(golden, folder / "golden")
    documents = {POLICY: load_preset("default").to_dict(), RECIPE: {"seed": 0}, LINEAGE: {"stages": []}}
    request = BundleRequest(
        target="cpu",
        engine=engine,
        precision="fp32",
        status="unverified",
        card=golden.card,
        map_spec=golden.map_spec,
        contents={
            MODEL: GRAPH,
            **contents_from_folder(GOLDEN, folder / "golden"),
            **{name: dump_canonical(document) for name, document in documents.items()},
        },
        lineage={"teacher": golden.teacher},
    )
    bundle(request, folder / "release")
    return folder / "release"


def report_of(path: Path, policy: Policy | None = None, baseline: Path | None = None) -> GateReport:
    """The gate's report of a bundle's folder."""
    with open_bundle(path) as opened:
        if baseline is None:
            return gate_report(opened, path, policy)
        with open_bundle(baseline) as older:
            return gate_report(opened, path, policy, older)
