"""The README's code blocks, run in order as a reader would, on the demo's model and images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^( *)```(bash|python)\n(.*?)^\1```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    shutil.copy(teacher_path(), folder / "model.pt")
    write_demo_dataset(folder / "images", DemoSizes(train=300, val=140), seed=3)
    photo = sorted((folder / "images" / "images" / "val").glob("*.png"))[0]
    shutil.copy(photo, folder / "photo.png")
    return folder


def _dedented(block: str, indent: str) -> str:
    return "".join(line.removeprefix(indent) for line in block.splitlines(keepends=True))


def test_the_readme_has_blocks_to_run() -> None:
    languages = [language for _, language, _ in BLOCKS]
    assert languages.count("bash") >= 6
    assert languages.count("python") == 1


@pytest.mark.slow
def test_the_blocks_run_in_order(place: Path) -> None:
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for indent, language, block in BLOCKS:
        code = _dedented(block, indent)
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=place, env=tools, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    assert (place / "my-build" / "release" / "report" / "report.html").is_file()
    assert (place / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_and_links_lead_somewhere() -> None:
    root = Path(__file__).resolve().parents[2]
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert targets
    missing = [target for target in targets if not (root / target).exists()]
    assert not missing
