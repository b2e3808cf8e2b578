"""Small bundles that pass their gate, signed by keys that tests know: what tampers and checks start from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tiny_golden import GRAPH, OTHER_GRAPH, tiny_golden

from edgekit.bundle.assemble import BundleRequest, bundle, contents_from_folder
from edgekit.bundle.golden import write_golden
from edgekit.bundle.layout import GOLDEN, LINEAGE, MODEL, POLICY, RECIPE, REFERENCE, SCALES, SCORES, VERDICT
from edgekit.core.canonical import dump_canonical, read_json
from edgekit.core.digests import digest_file
from edgekit.policy.document import load_preset
from edgekit.release.check import CheckOptions
from edgekit.release.installation import Installation
from edgekit.signing.private import PrivateKey
from edgekit.verify.stage import SCORES_NAME, VERDICT_NAME, VerifyRequest, verify

__all__ = ["ENVIRONMENT", "HERE", "KEY", "NOW", "OPTIONS", "OTHER_KEY", "key_of", "make_bundle"]

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=timezone.utc)
ENVIRONMENT = {"machine": "x86_64", "system": "Linux", "packages": {"numpy": "2.4.6"}, "logical_cpus": 2}
HERE = Installation("x86_64", "Linux")
OPTIONS = CheckOptions(now=NOW, here=HERE)


def key_of(seed: int) -> PrivateKey:
    """A private key that is the same in every run, and worth nothing."""
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


KEY = key_of(1)
OTHER_KEY = key_of(2)


def make_bundle(
    work: Path,
    *,
    graph: Path = GRAPH,
    count: int = 60,
    seed: int = 0,
    policy: str = "lenient",
    environment: Mapping[str, Any] | None = ENVIRONMENT,
    **manifest: str,
) -> Path:
    """A bundle folder `work`/release whose scores were made by the reference engine.

    Args:
        work: Folder for it and what it is made of.
        graph: The engine; a damaged one gives scores that fail.
        count: Samples.
        seed: Of the samples.
        policy: Preset.
        environment: What the record of the verification says of its machine; None leaves the record out.
        **manifest: target, engine, precision, status, in place of those of a released INT8 bundle for x86.
    """
    golden = tiny_golden(count, seed=seed)
    write_golden(golden, work / "golden")
    demanded = load_preset(policy)
    verify(VerifyRequest("reference", graph, work / "golden", demanded), work / "verified")
    said = {"target": "cpu-x86", "engine": "reference", "precision": "int8", "status": "released", **manifest}
    record = {
        "inputs": {"artifact": digest_file(graph)},
        "options": {"engine": said["engine"], "environment": environment},
    }
    documents: dict[str, Any] = {
        POLICY: demanded.to_dict(),
        RECIPE: {"seed": seed},
        LINEAGE: {} if environment is None else {"verify-int8": record},
        SCORES: read_json(work / "verified" / SCORES_NAME),
        VERDICT: read_json(work / "verified" / VERDICT_NAME),
        SCALES: {"image": {"scale": 0.05}},
    }
    if said["precision"] != "int8":
        del documents[SCALES]
    request = BundleRequest(
        **said,
        card=golden.card,
        map_spec=golden.map_spec,
        contents={
            MODEL: graph,
            REFERENCE: OTHER_GRAPH,
            **contents_from_folder(GOLDEN, work / "golden"),
            **{name: dump_canonical(document) for name, document in documents.items()},
        },
        lineage={"teacher": "0" * 64},
    )
    bundle(request, work / "release")
    return work / "release"
