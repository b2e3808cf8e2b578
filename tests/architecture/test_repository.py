"""The files around the code agree with it and with each other, and none knows the machine it was written on."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import tomllib
import yaml
from torchvision_stub import STUBBED

from edgekit import __version__
from edgekit.cli.registry import COMMANDS
from edgekit.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
# Written in pieces, because this file is searched too.
MACHINE_PATH = re.compile(
    "|".join(
        f"(?<![\\w.]){folder}/" for folder in ("/" + "home", "/" + "root", "/" + "work", "/" + "tmp", "/" + "Users")
    )
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    found = []
    for path in tracked_files():
        if path.is_relative_to(ROOT / "tests" / "tamper"):
            continue  # holds the paths that attackers would write
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights and pictures
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), start=1)
            if MACHINE_PATH.search(line)
        ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("open('/" + "tmp/x')", True),
        ("see " + "/" + "home/ann/model.pt", True),
        ("a relative tmp/x and work/y", False),
        ("https://host/" + "home/", False),
    ],
)
def test_the_search_for_machine_paths_can_find_one(line: str, found: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is found


def test_the_version_is_one() -> None:
    settings = tomllib.loads(read("pyproject.toml"))
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "edgekit.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert metadata.version("edgekit") == __version__, "reinstall: the installed metadata is of another version"


def test_the_changelog_has_a_place_for_what_comes() -> None:
    headings = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", heading) for heading in headings[1:])


def requirement_name(line: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", line)
    assert match, line
    return match[0].lower().replace("_", "-")


def test_the_tested_set_pins_every_requirement_once() -> None:
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines), "exact and portable pins"
    pinned = [requirement_name(line) for line in lines]
    assert len(pinned) == len(set(pinned))
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    wanted = {requirement_name(line) for line in [*project["dependencies"], *extras["host"], *extras["dev"]]}
    others = read("tests/second_libraries.txt").splitlines()
    wanted |= {requirement_name(line) for line in others if line and not line.startswith("#")}
    assert wanted - {"edgekit"} <= set(pinned)
    assert list(pinned) == sorted(pinned)


def test_ci_expects_only_the_requirements_that_something_stands_in_for() -> None:
    """pip check complains of what `make install` leaves out: exactly that may be missing, and has a stand-in."""
    modules = {"torchvision": "torchvision", "opencv-python-headless": "cv2", "scikit-learn": "sklearn"}
    (pattern,) = re.findall(r"^left_out='(.+)'$", read(".ci/run"), re.MULTILINE)
    libraries = [line for line in read("tests/second_libraries.txt").splitlines() if line and not line.startswith("#")]
    assert "--no-deps --requirement tests/second_libraries.txt" in read("Makefile")
    missing = set()
    for library in libraries:
        for requirement in metadata.requires(library) or []:
            name = requirement_name(requirement)
            if "extra ==" not in requirement and not list(metadata.distributions(name=name)):
                missing.add(name)
                said = f"{library} {metadata.version(library)} requires {name}, which is not installed."
                assert re.search(pattern, said), said
    assert missing <= set(modules)
    assert {modules[name] for name in missing} <= set(STUBBED)
    assert not re.search(pattern, "edgekit 0.1.0 requires torchvision, which is not installed.")
    assert not re.search(pattern, "zennit 0.5.1 requires torch, which is not installed.")


def test_the_workflow_runs_what_people_run() -> None:
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in [step.get("run") for step in steps]
    used = [step["uses"] for step in steps if "uses" in step]
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name) for name in used), "actions are pinned by commit"


def test_ci_makes_every_check_and_ends_with_the_tests() -> None:
    script = read(".ci/run")
    made = re.findall(r"^step (\w+)", script, re.MULTILINE)
    assert made == ["install", "lint", "types", "contracts", "demo", "test"]
    assert script.rstrip().endswith("step test")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_make_explains_every_target() -> None:
    makefile = read("Makefile")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    explained = dict(re.findall(r"^([a-z-]+):.*## (.+)$", makefile, re.MULTILINE))
    assert set(phony.split()) == set(explained)
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"make {name} " in done.stdout and text in done.stdout for name, text in explained.items())


def test_the_readme_names_every_command_and_exit_code() -> None:
    readme = read("README.md")
    table = readme.partition("## Commands")[2].partition("\n## ")[0]
    assert [name for name in COMMANDS if f"`{name}`" not in table and f"`edgekit {name}" not in table] == []
    stated = " ".join(table.partition("Exit codes")[2].split())
    assert [int(code) for code in ExitCode if f" {int(code)} " not in stated] == []
