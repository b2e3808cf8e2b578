"""Files of a signed bundle removed, added, exchanged, renamed and linked, with a manifest that agrees and without."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from signed_bundles import KEY, OTHER_KEY
from tampering import Tally, copied, counted, forged_envelope, put, resealed, signed_bundle

from edgekit.bundle.layout import ENVELOPE, MANIFEST, SCORES, VERDICT
from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_bytes
from edgekit.errors import EdgekitError


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signed_bundle(tmp_path_factory.mktemp("signed-files"))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another release by the same signer: every file of it is good, elsewhere."""
    return signed_bundle(tmp_path_factory.mktemp("second"), seed=5, policy="default", count=80)


def names_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def described(folder: Path) -> list[str]:
    """Names of files that the manifest describes."""
    return [name for name in names_of(folder) if name not in (MANIFEST, ENVELOPE)]


def test_a_file_removed_emptied_or_doubled(signed: Path, tmp_path: Path) -> None:
    with counted(tmp_path, 60) as tally:
        for name in names_of(signed):
            victim = copied(signed, tmp_path / "victim")
            data = (victim / name).read_bytes()
            (victim / name).unlink()
            tally.attempt(victim, f"without {name}")
            (victim / name).mkdir()
            tally.attempt(victim, f"a folder for {name}")
            (victim / name).rmdir()
            put(victim / name, b"")
            tally.attempt(victim, f"empty {name}")
            put(victim / name, data)
            (victim / f"{name}.bak").write_bytes(data)
            tally.attempt(victim, f"{name} twice")


def test_a_file_of_another_release(signed: Path, second: Path, tmp_path: Path) -> None:
    """One file, and every pair of files, taken from a release that is as good as this one."""
    different = [name for name in names_of(signed) if (signed / name).read_bytes() != (second / name).read_bytes()]
    assert {MANIFEST, ENVELOPE, SCORES, VERDICT} <= set(different)
    victim = copied(signed, tmp_path / "victim")
    with counted(tmp_path, 40) as tally:
        for number, one in enumerate(different):
            for two in different[number:]:
                for name in {one, two}:
                    put(victim / name, (second / name).read_bytes())
                tally.attempt(victim, f"{one} and {two} of another release")
                for name in {one, two}:
                    put(victim / name, (signed / name).read_bytes())


def test_files_exchanged_with_a_manifest_that_agrees(signed: Path, second: Path, tmp_path: Path) -> None:
    """Both envelopes are tried: the one from here, and the one from where the file came."""
    with counted(tmp_path, 30) as tally:
        for name in described(signed):
            if (signed / name).read_bytes() == (second / name).read_bytes():
                continue
            for base, donor in ((signed, second), (second, signed)):
                victim = copied(base, tmp_path / "victim")
                resealed(victim, {name: (donor / name).read_bytes()})
                for envelope in (signed, second):
                    put(victim / ENVELOPE, (envelope / ENVELOPE).read_bytes())
                    tally.attempt(victim, f"{name} exchanged, envelope of {envelope}")


def test_files_changed_or_removed_with_a_manifest_that_agrees(signed: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    with counted(tmp_path, 60) as tally:
        for name in described(signed):
            data = (signed / name).read_bytes()
            for content in (None, b"", data + b"\n", data[:-1], data[:-2] + b" \n"):
                copied(signed, victim)
                resealed(victim, {name: content})
                tally.attempt(victim, f"{name} replaced")


def test_everything_made_to_agree_and_signed_by_somebody_else(signed: Path, tmp_path: Path) -> None:
    """The worst that can be done without the key: file, manifest, statement and signature, all consistent."""
    victim, signable = tmp_path / "victim", 0
    with counted(tmp_path, 24) as tally:
        for name in described(signed):
            copied(signed, victim)
            resealed(victim, {name: (signed / name).read_bytes() + b"\n"})
            for key_id in (KEY.public.key_id, OTHER_KEY.public.key_id):
                try:
                    data = forged_envelope(victim, key_id)
                except EdgekitError:
                    data = (signed / ENVELOPE).read_bytes()
                else:
                    signable += 1
                put(victim / ENVELOPE, data)
                tally.attempt(victim, f"{name} changed, signed under {key_id[:8]}")
        copied(signed, victim)
        resealed(victim, {"report/report.html": b"<p>trust me</p>", "recipe.json": None})
        for data in ((signed / ENVELOPE).read_bytes(), (signed / ENVELOPE).read_bytes()[:-1]):
            put(victim / ENVELOPE, data)
            tally.attempt(victim, "a report added and the recipe removed")
    assert signable >= 4, "the forger gets as far as a signature for some files"


ADDED = (
    "extra.txt",
    ".hidden",
    "RELEASE.INTOTO.JSON",
    "Release.intoto.json",
    "release.intoto.json ",
    "release.intoto.json.",
    "release.intoto.json~",
    "release.intoto.json\u200b",
    "release.intoto.js\u043en",
    "relea\u017fe.intoto.json",
    "\uff52elease.intoto.json",
    "release\u2024intoto.json",
    "engine/release.intoto.json",
    "golden/release.intoto.json",
    "release.intoto.json.sig",
    "release.pub",
    "release.key",
    "manifest.json.bak",
    "m\u0430nifest.json",
    "engine/model.plan",
    "engine/Model.onnx",
    "engine/model.onnx ",
    "engine/model.onnx.",
    "engine/model.onnx\\",
    "engine/mod\u00e9l.onnx",
    "engine/" + unicodedata.normalize("NFD", "mod\u00e9l.onnx"),
    "engine/mode\u217c.onnx",
    "golden/masks.npy",
    "evidence/device.json",
    "device/plan.json",
    "report/report.html",
    "scales.json\t",
    "policy.json\n",
    "policy.json\x7f",
    "con",
    "nul.txt",
    "a/b/c/d/e",
)


def test_a_file_added_under_a_name_that_looks_right(signed: Path, tmp_path: Path) -> None:
    with counted(tmp_path, 3 * len(ADDED) - 12) as tally:
        for name in ADDED:
            for content in (b"", b"x", (signed / ENVELOPE).read_bytes()):
                victim = copied(signed, tmp_path / "victim")
                if (victim / name).exists():
                    continue  # a file system that takes the two names for one
                (victim / name).parent.mkdir(parents=True, exist_ok=True)
                put(victim / name, content)
                tally.attempt(victim, f"added {name!a}")


def test_a_file_renamed_to_what_some_file_system_takes_for_its_name(signed: Path, tmp_path: Path) -> None:
    def variants(name: str) -> set[str]:
        wide = "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter for letter in name)
        return {
            name.upper(),
            name.title(),
            f"{name}.",
            f"{name} ",
            f"{name}\u200d",
            name.replace("e", "\u0435"),
            name.replace("o", "o\u0308"),
            unicodedata.normalize("NFC", name.replace("o", "o\u0308")),
            wide,
            name.replace("s", "\u017f"),
            f"./x/{name}",
        } - {name}

    with counted(tmp_path, 100) as tally:
        for name in names_of(signed):
            folder, _, base = name.rpartition("/")
            for other in variants(base):
                victim = copied(signed, tmp_path / "victim")
                target = victim / folder / other
                target.parent.mkdir(parents=True, exist_ok=True)
                (victim / name).rename(target)
                tally.attempt(victim, f"{name} renamed to {other!a}")


UNSAFE_NAMES = (
    "../evil",
    "engine/../../evil",
    "/etc/passwd",
    "C:/evil",
    "C:evil",
    "..\\evil",
    "engine\\model.onnx",
    "./model.onnx",
    "engine//model.onnx",
    "engine/./x",
    "engine/",
    "",
    ".",
    "..",
    "...",
    "x\0y",
    "x\ny",
    "caf\u00e9",
    unicodedata.normalize("NFD", "caf\u00e9"),
    "\u202egpj.exe",
    "nul",
    "com1.json",
    "x.",
    "x ",
    "Manifest.json",
    "MANIFEST.JSON",
    ENVELOPE,
    ENVELOPE.upper(),
    f"{ENVELOPE}/x",
    "manifest.json/x",
    "Engine/model.onnx",
    "a" * 101,
    "~root",
    "\\\\host\\share",
    "file:///x",
)


def renamed(folder: Path, names: dict[str, str]) -> None:
    """Give files other names in the manifest, whose digest agrees; the files stay where they are."""
    raw = json.loads((folder / MANIFEST).read_bytes())
    del raw["digest"]
    raw["files"] = {names.get(name, name): ref for name, ref in raw["files"].items()}
    (folder / MANIFEST).write_bytes(dump_canonical(raw | {"digest": digest_bytes(dump_canonical(raw))}))


def test_a_manifest_that_names_a_file_unsafely(signed: Path, tmp_path: Path) -> None:
    """Traversal, absolute paths, zeros, reserved names, and names that collide with manifest or envelope."""
    with counted(tmp_path, 3 * len(UNSAFE_NAMES)) as tally:
        for unsafe in UNSAFE_NAMES:
            for name in ("scales.json", "engine/reference.onnx", "evidence/scores.json"):
                victim = copied(signed, tmp_path / "victim")
                renamed(victim, {name: unsafe})
                tally.attempt(victim, f"{name} named {unsafe!a}")


posix_only = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


def link_each(signed: Path, tmp_path: Path, tally: Tally) -> None:
    for name in names_of(signed):
        for kind in ("to the same bytes", "to itself", "to nothing", "by a second name", "to a device"):
            victim = copied(signed, tmp_path / "victim")
            path = victim / name
            (tmp_path / "second-name").unlink(missing_ok=True)
            if kind == "by a second name":
                os.link(path, tmp_path / "second-name")
            else:
                path.unlink()
                target = {"to the same bytes": signed / name, "to itself": path, "to nothing": victim / "nowhere"}
                path.symlink_to(target.get(kind, Path(os.devnull)))
            tally.attempt(victim, f"{name} linked {kind}")
        victim = copied(signed, tmp_path / "victim")
        (victim / name).unlink()
        os.mkfifo(victim / name)
        tally.attempt(victim, f"{name} a pipe")


@posix_only
def test_links_and_pipes_in_place_of_files(signed: Path, tmp_path: Path) -> None:
    with counted(tmp_path, 80) as tally:
        link_each(signed, tmp_path, tally)


@posix_only
def test_linked_folders(signed: Path, tmp_path: Path) -> None:
    with counted(tmp_path, 3) as tally:
        for name in ("engine", "golden", "evidence"):
            victim = copied(signed, tmp_path / "victim")
            copied(victim / name, tmp_path / "elsewhere")
            for path in (victim / name).iterdir():
                path.unlink()
            (victim / name).rmdir()
            (victim / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
            tally.attempt(victim, f"{name} linked")


def test_an_envelope_that_is_sparse_and_huge(signed: Path, tmp_path: Path) -> None:
    """A hole of 4 GiB takes no room on the disk; it must take none in memory either."""
    victim = copied(signed, tmp_path / "victim")
    with counted(tmp_path, 4) as tally:
        for name in (ENVELOPE, MANIFEST, "scales.json", "engine/model.onnx"):
            data = (victim / name).read_bytes()
            with (victim / name).open("r+b") as stream:
                stream.truncate(4 << 30)
            tally.attempt(victim, f"{name} with a hole")
            put(victim / name, data)
