"""A small sound bundle to be damaged, and what "refused" means."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.assemble import BundleRequest, bundle, contents_from_folder
from edgekit.bundle.golden import GoldenSet, write_golden
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.open import open_bundle
from edgekit.bundle.pack import write_tar
from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_bytes
from edgekit.errors import ExitCode, IntegrityError
from edgekit.interface.card import InputSpec, ModelCard

ASSETS = Path(__file__).resolve().parents[1] / "assets"
CARD = ModelCard(InputSpec(4, 4), ("cat", "dog", "owl", "Zebra \u00e9"), tap="features")
MAP_SPEC = MapSpec("grad-cam", "features", 4, 4)

Refused = Callable[[Path], IntegrityError]
Forge = Callable[[dict[str, Any]], bytes]


def small_golden() -> GoldenSet:
    rng = np.random.default_rng(3)
    return GoldenSet(
        card=CARD,
        map_spec=MAP_SPEC,
        pixels=rng.integers(0, 256, size=(3, 4, 4, 3), dtype=np.uint8),
        labels=np.array([0, 3, -1]),
        logits=rng.normal(size=(3, 4)).astype(np.float32),
        maps=rng.random(size=(3, 4, 4)).astype(np.float32),
        names=("a.png", "b/c.png", "d.png"),
        masks=None,
        teacher="0" * 64,
    )


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle. Not to be changed: ask for `victim`."""
    work = tmp_path_factory.mktemp("sound")
    write_golden(small_golden(), work / "golden")
    documents = {
        "policy.json": {"rules": []},
        "recipe.json": {"seed": 1},
        "lineage.json": {"stages": ["export"]},
        "scales.json": {"image": 0.5},
        "evidence/scores.json": {"cosine": [0.99, 0.98, 0.97]},
        "evidence/verdict.json": {"outcome": "pass"},
    }
    request = BundleRequest(
        target="cpu",
        engine="ort-cpu",
        precision="int8",
        status="released",
        card=CARD,
        map_spec=MAP_SPEC,
        contents={
            "engine/model.onnx": ASSETS / "tiny_explained.onnx",
            "engine/reference.onnx": b"the FP32 graph",
            "report/report.html": b"<!doctype html><title>edgekit</title>\n",
            **contents_from_folder("golden", work / "golden"),
            **{name: dump_canonical(document) for name, document in documents.items()},
        },
        lineage={"teacher": "0" * 64},
    )
    bundle(request, work / "release")
    return work / "release"


@pytest.fixture(scope="session")
def sound_tar(sound: Path) -> bytes:
    path = sound.parent / "release.tar"
    write_tar(sound, path)
    return path.read_bytes()


@pytest.fixture
def victim(sound: Path, tmp_path: Path) -> Path:
    """A copy of the sound bundle, to be damaged."""
    return Path(shutil.copytree(sound, tmp_path / "victim"))


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Open a damaged bundle in every way there is: each must fail with exit code 4 and leave nothing behind."""
    work = tmp_path / "empty"
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))

    def check(path: Path) -> IntegrityError:
        with pytest.raises(IntegrityError) as caught:
            open_bundle(path)
        assert caught.value.exit_code == ExitCode.INTEGRITY == 4
        if path.is_file():
            with pytest.raises(IntegrityError):
                open_bundle(path, unpack_to=work / "unpacked")
        assert list(work.iterdir()) == []
        return caught.value

    return check


@pytest.fixture(scope="session")
def forge() -> Forge:
    """Write a manifest whose own digest is right, as somebody would who knows how: the worst case."""

    def write(raw: dict[str, Any]) -> bytes:
        body = {key: value for key, value in raw.items() if key != "digest"}
        return dump_canonical(body | {"digest": digest_bytes(dump_canonical(body))})

    return write


@pytest.fixture
def raw_manifest(sound: Path) -> dict[str, Any]:
    """The sound manifest as plain data, free to change."""
    raw: dict[str, Any] = json.loads((sound / "manifest.json").read_bytes())
    return raw


@pytest.fixture(scope="session")
def manifest(sound: Path) -> Manifest:
    return Manifest.from_bytes((sound / "manifest.json").read_bytes(), where="manifest.json")
