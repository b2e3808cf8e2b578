"""The pipelines under deploy/: they parse, use only options that there are, and their shell steps run, for real.

What cannot be run here is the CI system around them: GitHub's runner, GitLab's, Jenkins and its Groovy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from ci_bundles import ci_bundle, damaged_graph
from tiny_golden import tiny_golden

from edgekit.cli.gate import command

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
STORED = ROOT / "tests" / "golden" / "bundle-1.tar"
ACTION = yaml.safe_load((DEPLOY / "github" / "action.yml").read_text(encoding="utf-8"))
GITLAB = yaml.safe_load((DEPLOY / "gitlab" / "edgekit-gate.gitlab-ci.yml").read_text(encoding="utf-8"))[".edgekit-gate"]
JENKINS = (DEPLOY / "jenkins" / "Jenkinsfile").read_text(encoding="utf-8")
# Groovy reads '''...''' with its own escapes first: a backslash before a line's end continues the line there.
JENKINS_STEPS = [step.replace("\\\n", "") for step in re.findall(r"sh '''\n(.*?)'''", JENKINS, re.DOTALL)]
STEPS = {step["id"]: step for step in ACTION["runs"]["steps"] if "id" in step}
GITHUB_BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or os.name == "nt", reason="the steps are shell scripts of Linux and macOS"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with four bundles, and an `edgekit` where the install steps would have put it."""
    work = tmp_path_factory.mktemp("pipelines")
    shutil.copy(STORED, work / "release.tar")
    shutil.copytree(ci_bundle(work / "f", graph=damaged_graph(work)), work / "bad one")
    shutil.copytree(ci_bundle(work / "i", golden=tiny_golden(20)), work / "few")
    shutil.copytree(ci_bundle(work / "p"), work / "good")
    tools = work / ".edgekit-gate" / "bin"
    tools.mkdir(parents=True)
    (tools / "edgekit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgekit "$@"\n', encoding="utf-8")
    (tools / "edgekit").chmod(0o755)
    return work


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "EDGEKIT_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def run(script: list[str], place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        script, cwd=place, env=environment(**variables), capture_output=True, text=True, check=False, timeout=120
    )


def gate_on_github(
    place: Path, tmp_path: Path, **variables: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """The action's gate step as the runner would start it, and the outputs that it sets."""
    given = {
        "TOOLS": str(place / ".edgekit-gate" / "bin"),
        "POLICY": "",
        "BASELINE": "",
        "FORMATS": ACTION["inputs"]["formats"]["default"],
        "REPORTS": str(tmp_path / "reports"),
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        **variables,
    }
    assert set(STEPS["gate"]["env"]) <= set(given)
    done = run([*GITHUB_BASH, STEPS["gate"]["run"]], place, **given)
    lines = (tmp_path / "output").read_text(encoding="utf-8").splitlines()
    return done, dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize(
    ("bundle", "code", "outcome"),
    [("release.tar", 0, "pass"), ("bad one", 1, "fail"), ("few", 6, "inconclusive"), ("nothing", 3, "error")],
)
def test_the_action_fails_as_the_gate_does(place: Path, tmp_path: Path, bundle: str, code: int, outcome: str) -> None:
    done, outputs = gate_on_github(place, tmp_path, BUNDLE=bundle)
    assert done.returncode == code, done.stderr
    assert (outputs["outcome"], outputs["exit-code"]) == (outcome, str(code))
    assert ("::error " in done.stdout + done.stderr) is (code != 0)
    written = {path.name for path in (tmp_path / "reports").glob("*")}
    assert written == (set() if outcome == "error" else {"gate.junit", "gate.sarif"})
    assert outputs.get("sarif") == (None if outcome == "error" else str(tmp_path / "reports" / "gate.sarif"))
    assert (tmp_path / "summary.md").exists() is (outcome != "error")


def test_the_action_hands_on_every_input(place: Path, tmp_path: Path) -> None:
    done, _ = gate_on_github(
        place, tmp_path, BUNDLE="good", POLICY="strict", BASELINE="good", FORMATS="json html markdown sarif junit"
    )
    assert done.returncode == 6, "80 samples do not show what strict wants to be shown"
    document = json.loads((tmp_path / "reports" / "gate.json").read_text(encoding="utf-8"))
    assert document["verdict"]["policy"]["name"] == "strict"
    assert document["changes"]["worse"] == []
    assert len(list((tmp_path / "reports").iterdir())) == 5


@pytest.mark.parametrize("name", ["$(touch owned)", "`touch owned`", "x; touch owned", '"; touch owned; "', "--help"])
def test_what_an_input_holds_is_not_run(place: Path, tmp_path: Path, name: str) -> None:
    done, outputs = gate_on_github(place, tmp_path, BUNDLE=name)
    assert (done.returncode, outputs["outcome"]) == (3, "error")
    assert not (place / "owned").exists()


def test_no_script_has_an_input_pasted_into_it() -> None:
    for step in STEPS.values():
        assert "${{" not in step["run"]
    assert all(step["shell"] == "bash" for step in STEPS.values())


@pytest.mark.slow
def test_the_action_installs_what_it_is_told_to(tmp_path: Path) -> None:
    """The install step, then the gate, from a wheel of this very source. There is no index: dependencies are lent."""
    wheels = tmp_path / "wheels"
    source = tmp_path / "source"
    source.mkdir()
    shutil.copytree(ROOT / "edgekit", source / "edgekit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(wheels), "."]
    subprocess.run([sys.executable, "-m", *build], cwd=source, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    import numpy

    lent = Path(numpy.__file__).parents[1]
    variables = {
        "REQUIREMENTS": str(wheel),
        "RUNNER_TEMP": str(tmp_path / "runner temp"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
    }
    done = run([*GITHUB_BASH, STEPS["install"]["run"]], tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    tools = (tmp_path / "output").read_text(encoding="utf-8").strip().partition("=")[2]
    shutil.copy(STORED, tmp_path / "release.tar")
    done, outputs = gate_on_github(tmp_path, tmp_path, BUNDLE="release.tar", TOOLS=tools, PYTHONPATH=str(lent))
    assert done.returncode == 0, done.stderr
    assert outputs["outcome"] == "pass"


def scripts() -> dict[str, str]:
    return {
        "github": STEPS["gate"]["run"],
        "gitlab": "\n".join(GITLAB["script"]),
        "jenkins": JENKINS_STEPS[1],
    }


@pytest.mark.parametrize("system", ["gitlab", "jenkins"])
@pytest.mark.parametrize(
    ("bundle", "policy", "baseline", "code"),
    [("release.tar", "", "", 0), ("bad one", "", "good", 1), ("good", "strict", "", 6), ("nothing", "", "", 3)],
)
def test_the_other_systems_fail_as_the_gate_does(
    place: Path, system: str, bundle: str, policy: str, baseline: str, code: int
) -> None:
    variables = {"EDGEKIT_BUNDLE": bundle, "EDGEKIT_POLICY": policy, "EDGEKIT_BASELINE": baseline}
    shutil.rmtree(place / "edgekit-reports", ignore_errors=True)
    # `sh -xe` is how Jenkins starts a step; a GitLab runner's shell stops at the first error as well.
    done = run(["sh", "-xe", "-c", scripts()[system]], place, **variables)
    assert done.returncode == code, done.stderr
    report = place / "edgekit-reports" / "gate.xml"
    assert report.exists() is (code != 3)
    if code != 3:
        suite = ElementTree.parse(report).getroot()[0]
        assert bool(suite.findall("*/failure") + suite.findall("*/error")) is (code != 0)
        properties = {item.attrib["name"]: item.attrib["value"] for item in suite.iter("property")}
        assert ("baseline" in properties) is bool(baseline)


def test_every_option_that_is_used_is_one_of_the_commands() -> None:
    known = {name for parameter in command.params for name in parameter.opts}
    used = {system: set(re.findall(r"(?<=[\s(])--[a-z-]+", script)) for system, script in scripts().items()}
    for names in used.values():
        assert names - {"--"} <= known
        assert {"--policy", "--baseline", "--write"} <= names


def test_reports_are_collected_where_they_are_written() -> None:
    assert GITLAB["artifacts"]["reports"]["junit"] in scripts()["gitlab"]
    assert GITLAB["artifacts"]["when"] == "always"
    (collected,) = re.findall(r"junit testResults: '(.+?)'", JENKINS)
    assert collected in scripts()["jenkins"]
    assert JENKINS.count("{") == JENKINS.count("}")


def test_the_action_is_whole() -> None:
    assert ACTION["runs"]["using"] == "composite"
    for item in [*ACTION["inputs"].values(), *ACTION["outputs"].values()]:
        assert item["description"].endswith(".")
    text = json.dumps(ACTION)
    inputs = set(re.findall(r"inputs\.([a-z-]+)", text))
    assert inputs == set(ACTION["inputs"])
    set_by_gate = set(re.findall(r'echo "([a-z-]+)=', STEPS["gate"]["run"]))
    assert set(re.findall(r"steps\.gate\.outputs\.([a-z-]+)", text)) <= set_by_gate
    used = [step["uses"] for step in ACTION["runs"]["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w/-]+@v\d+", name) for name in used), "actions are pinned to a major version"


def test_what_the_readme_shows_is_there() -> None:
    readme = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"\]\(((?:github|gitlab|jenkins)/[^)]+)\)", readme):
        assert (DEPLOY / path).is_file()
    blocks: list[Any] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)]
    steps = [step for block in blocks if isinstance(block, list) for step in block]
    assert steps
    for step in steps:
        if "edgekit" in step.get("uses", ""):
            assert set(step["with"]) <= set(ACTION["inputs"])
    (job,) = (block["gate"] for block in blocks if isinstance(block, dict) and "gate" in block)
    assert set(job["variables"]) <= set(GITLAB["variables"])
