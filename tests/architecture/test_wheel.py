"""The wheel holds the package, all of its data and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from edgekit import __version__

ROOT = Path(__file__).resolve().parents[2]


def package_files() -> set[str]:
    """What stands in the package folder, as the wheel should have it."""
    files = (path for path in (ROOT / "edgekit").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".md"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    # From a copy: building writes beside the sources, and leftovers there would hide what is missing.
    shutil.copytree(ROOT / "edgekit", source / "edgekit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-w",
            str(folder),
            ".",
        ],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_it_holds_every_file_of_the_package_and_no_other(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == package_files()


def test_its_data_is_there(wheel: zipfile.ZipFile) -> None:
    suffixes = {Path(name).suffix for name in wheel.namelist()}
    assert {".yaml", ".json", ".typed"} <= suffixes


def test_it_carries_version_licence_and_command(wheel: zipfile.ZipFile) -> None:
    by_name = {Path(name).name: name for name in wheel.namelist() if ".dist-info/" in name}
    metadata = message_from_bytes(wheel.read(by_name["METADATA"]))
    assert (metadata["Name"], metadata["Version"]) == ("edgekit", __version__)
    assert "LICENSE" in by_name
    assert "edgekit = edgekit.cli.main:main" in wheel.read(by_name["entry_points.txt"]).decode()


def test_the_device_side_asks_for_numpy_and_click_only(wheel: zipfile.ZipFile) -> None:
    by_name = {Path(name).name: name for name in wheel.namelist() if ".dist-info/" in name}
    required = message_from_bytes(wheel.read(by_name["METADATA"])).get_all("Requires-Dist") or []
    always = {line.partition(">")[0] for line in required if "extra ==" not in line}
    assert always == {"numpy", "click"}
