"""Golden sets read back as they were written, and are refused when their parts do not fit."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.golden import GoldenSet, read_golden, write_golden
from edgekit.errors import BadInputError, IntegrityError
from edgekit.interface.card import InputSpec, ModelCard


def golden(masks: bool = True) -> GoldenSet:
    rng = np.random.default_rng(5)
    return GoldenSet(
        card=ModelCard(InputSpec(6, 5, mean=(0.1, 0.2, 0.3)), ("a", "b", "c")),
        map_spec=MapSpec("grad-cam", "layer", 3, 2),
        pixels=rng.integers(0, 256, size=(4, 6, 5, 3), dtype=np.uint8),
        labels=np.array([0, 1, 2, -1]),
        logits=rng.normal(size=(4, 3)).astype(np.float32),
        maps=rng.random(size=(4, 3, 2)).astype(np.float32),
        names=("1.png", "2.png", "sub/3.png", "4.png"),
        masks=rng.random(size=(4, 6, 5)) > 0.5 if masks else None,
        teacher="ab" * 32,
    )


@pytest.mark.parametrize("masks", [True, False])
def test_a_golden_set_reads_back(tmp_path: Path, masks: bool) -> None:
    written = golden(masks)
    write_golden(written, tmp_path)
    found = read_golden(tmp_path)
    assert (found.card, found.map_spec, found.names, found.teacher) == (
        written.card,
        written.map_spec,
        written.names,
        written.teacher,
    )
    for name in ("pixels", "labels", "logits", "maps", "masks"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))


def test_writing_is_deterministic(tmp_path: Path) -> None:
    write_golden(golden(), tmp_path / "one")
    write_golden(golden(), tmp_path / "two")
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


def saved(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header_claiming(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("maps.npy", b""),
        ("maps.npy", b"not numpy at all"),
        ("maps.npy", saved(np.zeros((4, 3, 2)))),
        ("maps.npy", saved(np.zeros((4, 2, 3), dtype=np.float32))),
        ("maps.npy", saved(np.zeros((4, 3, 2), dtype=">f4"))),
        ("maps.npy", saved(np.zeros((4, 3, 2), dtype=np.float32)) + b"\0"),
        ("maps.npy", saved(np.zeros((4, 3, 2), dtype=np.float32))[:-1]),
        ("maps.npy", saved(np.full((4, 3, 2), np.nan, dtype=np.float32))),
        ("maps.npy", header_claiming("(4, 3, 2)")),
        # Would take 4 TB if it were believed.
        ("maps.npy", header_claiming("(1000000, 1000000)")),
        ("maps.npy", header_claiming("(-1,)")),
        ("maps.npy", header_claiming("__import__('os')")),
        ("maps.npy", saved(np.array([{"a": 1}], dtype=object))),
        ("logits.npy", saved(np.full((4, 3), np.inf, dtype=np.float32))),
        ("labels.npy", saved(np.array([0, 1, 2, 3]))),
        ("labels.npy", saved(np.array([0, 1, 2, -2]))),
        ("labels.npy", saved(np.array([0, 1, 2], dtype=np.int64))),
        ("pixels.npy", saved(np.zeros((4, 6, 5, 3), dtype=np.uint8))),
        ("masks.npy", saved(np.zeros((4, 5, 6), dtype=np.bool_))),
        ("golden.json", b"[]"),
        ("golden.json", b"{}"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    write_golden(golden(), tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(IntegrityError):
        read_golden(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.update(format="edgekit.golden/9"),
        lambda raw: raw.pop("teacher"),
        lambda raw: raw.update(card={"classes": ["a"]}),
        lambda raw: raw["card"].update(classes=["a", "b", "b"]),
        lambda raw: raw["card"].update(typo=1),
        lambda raw: raw["map"].update(height="3"),
        lambda raw: raw["samples"].pop(),
        lambda raw: raw["samples"].reverse(),
        lambda raw: raw["samples"][0].update(sha256="0" * 64),
        lambda raw: raw.update(samples=None),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    write_golden(golden(), tmp_path)
    raw = json.loads((tmp_path / "golden.json").read_bytes())
    change(raw)
    (tmp_path / "golden.json").write_text(json.dumps(raw))
    with pytest.raises(IntegrityError):
        read_golden(tmp_path)


@pytest.mark.parametrize("name", ["golden.json", "pixels.npy", "labels.npy", "logits.npy", "maps.npy"])
def test_a_missing_part_is_named(tmp_path: Path, name: str) -> None:
    write_golden(golden(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BadInputError, match=name):
        read_golden(tmp_path)
