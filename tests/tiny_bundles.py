"""Bundles around the small stored graph, whole enough to be opened: for what runs engines of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_golden import GRAPH, tiny_golden

from edgekit.bundle.assemble import BundleRequest, bundle, contents_from_folder
from edgekit.bundle.golden import GoldenSet, write_golden
from edgekit.bundle.layout import GOLDEN, LINEAGE, MODEL, POLICY, RECIPE, SCORES, VERDICT
from edgekit.core.canonical import dump_canonical, read_json
from edgekit.policy.document import load_preset
from edgekit.verify.stage import SCORES_NAME, VERDICT_NAME, VerifyRequest, verify

__all__ = ["UNCOMPRESSED", "tiny_bundle"]

UNCOMPRESSED: dict[str, Any] = {
    "compress": {
        "options": {
            "compress": {
                "prune": {"rate": 0.0},
                "finetune": {"epochs": 0},
                "matching": {},
                "distil": {"student": ""},
                "sparsify": {"sparsity": 0.0},
            }
        }
    }
}


def tiny_bundle(
    work: Path,
    golden: GoldenSet | int = 80,
    *,
    lineage: dict[str, Any] = UNCOMPRESSED,
    engine: str = "reference",
    verified: bool = True,
    graph: Path = GRAPH,
) -> Path:
    """The folder of an FP32 bundle.

    Args:
        work: Where to make it, empty.
        golden: The golden set, or how many samples the usual one has.
        lineage: The bundle's document of that name.
        engine: The bundle's engine, which is not run.
        graph: What ships in it.
        verified: With the reference engine's scores and their verdict; else without any.
    """
    golden = tiny_golden(golden) if isinstance(golden, int) else golden
    write_golden(golden, work / "golden")
    policy = load_preset("default")
    documents: dict[str, Any] = {POLICY: policy.to_dict(), RECIPE: {"seed": 0}, LINEAGE: lineage}
    status = "unverified"
    if verified:
        record = verify(VerifyRequest("reference", graph, work / "golden", policy), work / "verified")
        status = {"pass": "released", "fail": "blocked"}.get(str(record.facts["outcome"]), "inconclusive")
        documents |= {
            SCORES: read_json(work / "verified" / SCORES_NAME),
            VERDICT: read_json(work / "verified" / VERDICT_NAME),
        }
    request = BundleRequest(
        target="cpu",
        engine=engine,
        precision="fp32",
        status=status,
        card=golden.card,
        map_spec=golden.map_spec,
        contents={
            MODEL: graph,
            **contents_from_folder(GOLDEN, work / "golden"),
            **{name: dump_canonical(document) for name, document in documents.items()},
        },
        lineage={"teacher": golden.teacher},
    )
    bundle(request, work / "release")
    return work / "release"
