"""The bundle stage: what it writes opens again, equal requests give equal bytes, and it replaces only bundles."""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.attribution.spec import MapSpec
from edgekit.bundle import layout, pack
from edgekit.bundle.assemble import BundleRequest, bundle, contents_from_folder
from edgekit.bundle.golden import GoldenSet, write_golden
from edgekit.bundle.manifest import STATUSES, Manifest
from edgekit.bundle.open import open_bundle
from edgekit.bundle.pack import write_tar
from edgekit.bundle.ustar import archive_size, ustar_header
from edgekit.core.stages import FileRef
from edgekit.errors import BadInputError, IntegrityError
from edgekit.interface.card import InputSpec, ModelCard

CARD = ModelCard(InputSpec(2, 2), ("no", "yes"))
MAP_SPEC = MapSpec("grad-cam", "features", 1, 1)
CONTENTS: Mapping[str, bytes | Path] = {
    name: name.encode() for name in layout.required_files("int8", "released") if not name.startswith(layout.GOLDEN)
}


def golden() -> GoldenSet:
    return GoldenSet(
        card=CARD,
        map_spec=MAP_SPEC,
        pixels=np.zeros((1, 2, 2, 3), dtype=np.uint8),
        labels=np.array([1]),
        logits=np.array([[0.0, 1.0]], dtype=np.float32),
        maps=np.ones((1, 1, 1), dtype=np.float32),
        names=("one.png",),
        masks=np.zeros((1, 2, 2), dtype=np.bool_),
        teacher="0" * 64,
    )


@pytest.fixture
def request_int8(tmp_path: Path) -> BundleRequest:
    write_golden(golden(), tmp_path / "golden")
    return BundleRequest(
        target="cpu",
        engine="ort-cpu",
        precision="int8",
        status="released",
        card=CARD,
        map_spec=MAP_SPEC,
        contents={**CONTENTS, **contents_from_folder("golden", tmp_path / "golden")},
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_bundle_gives_back_what_went_in(request_int8: BundleRequest, tmp_path: Path) -> None:
    manifest = bundle(request_int8, tmp_path / "release")
    with open_bundle(tmp_path / "release") as opened:
        assert opened.manifest == manifest
        assert (manifest.card, manifest.map_spec, manifest.status) == (CARD, MAP_SPEC, "released")
        assert opened.read_bytes(layout.POLICY) == b"policy.json"
        assert opened.model_path.read_bytes() == b"engine/model.onnx"
        assert opened.reference_path.read_bytes() == b"engine/reference.onnx"
        assert opened.golden().names == ("one.png",)
        assert layout.SCALES in opened
        assert layout.LATENCY not in opened
        with pytest.raises(BadInputError, match=r"has no evidence/latency\.json"):
            opened.read_json(layout.LATENCY)


def test_the_digests_are_those_of_sha256sum(request_int8: BundleRequest, tmp_path: Path) -> None:
    manifest = bundle(request_int8, tmp_path / "release")
    expected = digests(tmp_path / "release")
    del expected[layout.MANIFEST]
    assert {name: ref.sha256 for name, ref in manifest.files.items()} == expected


def test_equal_requests_give_equal_bytes(request_int8: BundleRequest, tmp_path: Path) -> None:
    backwards = dict(reversed(request_int8.contents.items()))
    bundle(request_int8, tmp_path / "one")
    bundle(dataclasses.replace(request_int8, contents=backwards), tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    write_tar(tmp_path / "one", tmp_path / "one.tar")
    write_tar(tmp_path / "two", tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_the_fp32_artifact_is_its_own_reference(request_int8: BundleRequest, tmp_path: Path) -> None:
    contents = {
        name: source for name, source in request_int8.contents.items() if name not in (layout.SCALES, layout.REFERENCE)
    }
    bundle(dataclasses.replace(request_int8, precision="fp32", contents=contents), tmp_path / "release")
    opened = open_bundle(tmp_path / "release")
    assert opened.reference_path == opened.model_path


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("missing", layout.required_files("int8", "released"))
def test_what_a_status_needs_must_be_there(
    request_int8: BundleRequest, tmp_path: Path, status: str, missing: str
) -> None:
    contents = {name: source for name, source in request_int8.contents.items() if name != missing}
    short = dataclasses.replace(request_int8, status=status, contents=contents)
    if missing in layout.required_files("int8", status):
        with pytest.raises(BadInputError, match="incomplete") as caught:
            bundle(short, tmp_path / "release")
        assert missing in str(caught.value)
        assert not (tmp_path / "release").exists()
    else:
        assert bundle(short, tmp_path / "release").status == status


@pytest.mark.parametrize(
    "changes",
    [
        {"contents": {**CONTENTS, "../evil": b""}},
        {"contents": {**CONTENTS, "manifest.json": b"{}"}},
        {"contents": {**CONTENTS, "Policy.json": b"{}"}},
        {"contents": {**CONTENTS, "report/report.html": Path("absent.html")}},
        {"precision": "int4"},
        {"status": "fine"},
        {"engine": "an engine"},
        {"lineage": {"teacher": "unknown"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_request_that_makes_no_bundle_leaves_nothing(
    request_int8: BundleRequest, tmp_path: Path, changes: dict[str, object]
) -> None:
    before = set(tmp_path.iterdir())
    with pytest.raises(BadInputError):
        bundle(dataclasses.replace(request_int8, **changes), tmp_path / "release")  # type: ignore[arg-type]
    assert set(tmp_path.iterdir()) == before


def test_an_older_bundle_is_replaced_and_nothing_else_is(request_int8: BundleRequest, tmp_path: Path) -> None:
    bundle(request_int8, tmp_path / "release")
    bundle(dataclasses.replace(request_int8, status="blocked"), tmp_path / "release")
    assert open_bundle(tmp_path / "release").manifest.status == "blocked"
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "release")
    for taken in (home, tmp_path / "file", tmp_path / "link"):
        with pytest.raises(BadInputError, match="not a bundle"):
            bundle(request_int8, taken)
    assert (home / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert bundle(request_int8, tmp_path / "empty").status == "released"


def test_a_damaged_bundle_is_not_packed(request_int8: BundleRequest, tmp_path: Path) -> None:
    bundle(request_int8, tmp_path / "release")
    (tmp_path / "release" / layout.POLICY).write_bytes(b"policy.jsoN")
    with pytest.raises(IntegrityError, match="was changed"):
        write_tar(tmp_path / "release", tmp_path / "release.tar")
    assert not (tmp_path / "release.tar").exists()


def test_a_file_that_changes_while_it_is_packed(
    request_int8: BundleRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = bundle(request_int8, tmp_path / "release")

    def checked_too_early(folder: Path) -> Manifest:
        (folder / layout.POLICY).write_bytes(b"policy.jsoN")
        return manifest

    monkeypatch.setattr(pack, "check_folder", checked_too_early)
    before = set(tmp_path.iterdir())
    with pytest.raises(IntegrityError, match="while it was packed"):
        write_tar(tmp_path / "release", tmp_path / "release.tar")
    assert set(tmp_path.iterdir()) == before


def test_tarfile_reads_what_we_write(request_int8: BundleRequest, tmp_path: Path) -> None:
    manifest = bundle(request_int8, tmp_path / "release")
    write_tar(tmp_path / "release", tmp_path / "release.tar")
    with tarfile.open(tmp_path / "release.tar", "r:") as reader:
        members = reader.getmembers()
        contents = {info.name: reader.extractfile(info).read() for info in members}  # type: ignore[union-attr]
    assert [info.name for info in members] == [layout.MANIFEST, *sorted(manifest.files)]
    assert all((info.mode, info.uid, info.gid, info.mtime, info.uname) == (0o644, 0, 0, 0, "") for info in members)
    assert {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()} == digests(tmp_path / "release")
    assert (tmp_path / "release.tar").stat().st_size == archive_size(contents[layout.MANIFEST], manifest.files)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,98}[a-z]", fullmatch=True),
    size=st.integers(0, 8 * 1024**3 - 1),
)
def test_tarfile_understands_every_header(name: str, size: int) -> None:
    info = tarfile.TarInfo.frombuf(ustar_header(name, size), "utf-8", "strict")
    assert (info.name, info.size, info.mode, info.type) == (name, size, 0o644, tarfile.REGTYPE)


digest_text = st.text("0123456789abcdef", min_size=64, max_size=64)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    classes=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, unique=True),
    mean=st.tuples(*[st.floats(-1e6, 1e6)] * 3),
    status=st.sampled_from(STATUSES),
    lineage=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), digest_text, max_size=3),
    sizes=st.lists(st.integers(0, 2**30), min_size=7, max_size=7),
)
def test_a_manifest_reads_back_as_itself(
    classes: list[str],
    mean: tuple[float, float, float],
    status: str,
    lineage: dict[str, str],
    sizes: list[int],
) -> None:
    names = layout.required_files("fp32", "released")
    manifest = Manifest(
        created_with="0.1.0",
        target="cpu",
        engine="ort-cpu",
        precision="fp32",
        status=status,
        card=ModelCard(InputSpec(8, 8, "BGR", 1, mean), tuple(classes), "multi-label"),
        map_spec=MAP_SPEC,
        lineage=lineage,
        files={name: FileRef("a" * 64, size) for name, size in zip(names, sizes, strict=True)},
    )
    assert Manifest.from_bytes(manifest.to_bytes(), where="test") == manifest


def test_a_large_file_is_copied_in_pieces(request_int8: BundleRequest, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3 * 1024 * 1024 + 17)
    (tmp_path / "large").write_bytes(content)
    contents = {**request_int8.contents, layout.MODEL: tmp_path / "large"}
    bundle(dataclasses.replace(request_int8, contents=contents), tmp_path / "release")
    write_tar(tmp_path / "release", tmp_path / "release.tar")
    with open_bundle(tmp_path / "release.tar") as opened:
        assert opened.read_bytes(layout.MODEL) == content
