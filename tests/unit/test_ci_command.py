"""`edgekit gate` in a pipeline: exit codes whatever the format, files, and what a GitHub Action is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ci_bundles import ci_bundle, damaged_graph, hostile_golden, unverified_bundle
from tiny_golden import tiny_golden

from edgekit.bundle.open import open_bundle
from edgekit.ci.github import LARGEST_SUMMARY, append_summary
from edgekit.cli.gate import FORMATS
from edgekit.cli.main import run
from edgekit.errors import BadInputError, ExitCode
from edgekit.verify import gate as gate_module
from edgekit.verify.controls import StoredControls

OUTCOMES = {
    "pass": ExitCode.OK,
    "fail": ExitCode.GATE_FAILED,
    "inconclusive": ExitCode.INCONCLUSIVE,
    "missing": ExitCode.BAD_INPUT,
    "broken": ExitCode.INTEGRITY,
    "unverified": ExitCode.BAD_INPUT,
    "waits for its device": ExitCode.INCONCLUSIVE,
}
JUDGED = ("pass", "fail", "inconclusive")


@pytest.fixture(autouse=True)
def outside_github(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs these tests may itself be a GitHub Action."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    work = tmp_path_factory.mktemp("bundles")
    graph = damaged_graph(work)
    found = {
        "pass": ci_bundle(work / "pass"),
        "fail": ci_bundle(work / "fail", graph=graph),
        "inconclusive": ci_bundle(work / "few", golden=tiny_golden(20)),
        "hostile": ci_bundle(work / "hostile", graph=graph, golden=hostile_golden()),
        "missing": work / "nothing",
        "broken": work / "broken",
        "unverified": unverified_bundle(work / "unverified"),
        "waits for its device": unverified_bundle(work / "waits", engine="tensorrt"),
    }
    shutil.copytree(found["pass"], found["broken"])
    scores = found["broken"] / "evidence" / "scores.json"
    scores.write_bytes(scores.read_bytes().replace(b"0", b"1", 1))
    return found


@pytest.fixture
def on_github(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    return summary


@pytest.mark.parametrize("github", [False, True])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_exit_code_is_the_verdict_whatever_is_printed(
    bundles: dict[str, Path],
    outcome: str,
    form: str,
    github: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if github:
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert run(["gate", str(bundles[outcome]), "--format", form]) == OUTCOMES[outcome]
    assert bool(capsys.readouterr().out) is (outcome in JUDGED)


def test_the_codes_are_the_frozen_ones() -> None:
    assert {name: int(code) for name, code in OUTCOMES.items()} == {
        "pass": 0,
        "fail": 1,
        "inconclusive": 6,
        "missing": 3,
        "broken": 4,
        "unverified": 3,
        "waits for its device": 6,
    }


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--policy", "nosuch"], 3),
        (["--format", "pdf"], 2),
        (["--baseline", "nothing-here"], 3),
        (["--write", "junit"], 2),
        (["--write", "table", "x.txt"], 2),
    ],
)
def test_what_makes_no_sense_has_its_code(bundles: dict[str, Path], arguments: list[str], code: int) -> None:
    assert run(["gate", str(bundles["pass"]), *arguments]) == code


def test_json_is_short_for_the_format(bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run(["gate", str(bundles["fail"]), "--json"])
    short = capsys.readouterr().out
    run(["gate", str(bundles["fail"]), "--format", "json"])
    assert capsys.readouterr().out == short
    document = json.loads(short)
    assert document["format"] == "edgekit.gate/1"
    assert document["exit_code"] == 1


def test_one_judgement_writes_several_files(
    bundles: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {form: tmp_path / "reports" / f"gate.{form}" for form in FORMATS[1:]}
    written = [part for form, path in files.items() if form != "json" for part in ("--write", form, str(path))]
    code = run(["gate", str(bundles["fail"]), "--format", "json", "-o", str(files["json"]), *written])
    assert code == 1
    assert "verdict: fail" in capsys.readouterr().out
    assert json.loads(files["json"].read_text())["outcome"] == "fail"
    assert ElementTree.parse(files["junit"]).getroot().tag == "testsuites"
    assert json.loads(files["sarif"].read_text())["version"] == "2.1.0"
    assert files["markdown"].read_text().startswith("## edgekit gate")
    assert files["html"].read_text().startswith("<!doctype html>")


def test_an_error_leaves_no_report_of_an_earlier_run(bundles: dict[str, Path], tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    assert run(["gate", str(bundles["pass"]), "--format", "junit", "-o", str(report)]) == 0
    assert report.exists()
    assert run(["gate", str(bundles["broken"]), "--format", "junit", "-o", str(report)]) == 4
    assert not report.exists()


def test_a_report_never_lands_on_what_it_is_about(bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = bundles["pass"]
    before = (bundle / "manifest.json").read_bytes()
    policy = tmp_path / "policy.json"
    policy.write_text("{}", encoding="utf-8")
    for arguments in (
        ["-o", str(bundle / "manifest.json")],
        ["-o", str(bundle / "report.html")],
        ["--policy", str(policy), "-o", str(policy)],
        ["--baseline", str(bundles["fail"]), "--write", "json", str(bundles["fail"] / "x.json")],
        ["-o", str(tmp_path / "same"), "--write", "html", str(tmp_path / "x" / ".." / "same")],
    ):
        assert run(["gate", str(bundle), *arguments]) == ExitCode.USAGE
    assert (bundle / "manifest.json").read_bytes() == before
    assert policy.read_text(encoding="utf-8") == "{}"
    assert run(["gate", str(bundle)]) == 0


def test_a_preset_is_no_file_to_keep_clear_of(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["gate", str(bundles["pass"]), "--policy", "lenient", "-o", "lenient/report.txt"]) == 0
    assert "verdict: pass" in (tmp_path / "lenient" / "report.txt").read_text(encoding="utf-8")


def test_a_report_replaces_nothing_but_plain_files(bundles: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept", encoding="utf-8")
    (tmp_path / "link").symlink_to(target)
    for place in ("link", "."):
        assert run(["gate", str(bundles["pass"]), "-o", str(tmp_path / place)]) == ExitCode.BAD_INPUT
    assert (tmp_path / "link").is_symlink()
    assert target.read_text(encoding="utf-8") == "kept"


def test_github_is_told_by_annotations_and_a_summary(
    bundles: dict[str, Path], on_github: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_github.write_text("what an earlier command wrote\n", encoding="utf-8")
    assert run(["gate", str(bundles["fail"])]) == 1
    out = capsys.readouterr().out
    commands = [line for line in out.splitlines() if line.startswith("::")]
    assert commands
    assert all(line.startswith("::error title=edgekit gate%3A fail::") for line in commands)
    assert "%0A" in commands[0], "the worst samples stand below"
    summary = on_github.read_text(encoding="utf-8")
    assert summary.startswith("what an earlier command wrote\n\n## edgekit gate: ")
    assert "### Clauses" in summary


def test_a_pass_has_a_summary_and_no_annotation(
    bundles: dict[str, Path], on_github: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gate", str(bundles["pass"])]) == 0
    assert "::" not in capsys.readouterr().out
    assert "**pass**" in on_github.read_text(encoding="utf-8")


def test_a_document_on_standard_output_stays_one(
    bundles: dict[str, Path], on_github: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["gate", str(bundles["fail"]), "--format", "json"])
    told = capsys.readouterr()
    assert json.loads(told.out)["outcome"] == "fail"
    assert told.err.startswith("::error ")


@pytest.mark.parametrize("how", ["elsewhere", "flag"])
def test_nothing_of_github_where_it_is_not_wanted(
    bundles: dict[str, Path],
    on_github: Path,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if how == "elsewhere":
        monkeypatch.setenv("GITHUB_ACTIONS", "false")
    assert run(["gate", str(bundles["fail"]), *(["--no-github"] if how == "flag" else [])]) == 1
    told = capsys.readouterr()
    assert "::" not in told.out + told.err
    assert not on_github.exists()


def test_an_integrity_error_is_annotated_too(
    bundles: dict[str, Path], on_github: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gate", str(bundles["broken"])]) == 4
    told = capsys.readouterr()
    assert [line for line in told.err.splitlines() if line.startswith("::error title=edgekit gate::")]
    assert not on_github.exists()


def test_hostile_names_cannot_speak_to_the_runner(
    bundles: dict[str, Path], on_github: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["gate", str(bundles["hostile"]), "--baseline", str(bundles["hostile"])])
    told = capsys.readouterr()
    commands = [line for line in (told.out + told.err).splitlines() if line.lstrip().startswith(("::", "##["))]
    assert commands
    assert all(
        line.startswith(("::error title=edgekit gate%3A ", "::warning title=edgekit gate%3A ")) for line in commands
    )
    assert "forged" not in "".join(line.split("::")[1] for line in commands)


def test_a_summary_that_is_too_long_says_so(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    append_summary(path, "x" * LARGEST_SUMMARY)
    append_summary(path, "and more")
    text = path.read_text(encoding="utf-8")
    assert text.endswith("too long for a step's summary; the job's log and files have it.\n")
    with pytest.raises(BadInputError, match="summary"):
        append_summary(tmp_path / "missing" / "summary.md", "x")


def test_a_policy_that_is_too_weak_is_annotated(
    bundles: dict[str, Path],
    on_github: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Right answers and wrong maps: the bundle's own policy fails this control, one about answers does not."""
    with open_bundle(bundles["fail"]) as opened:
        table = gate_module.bundle_scores(opened, opened.golden())
    stored = StoredControls("ran", {"permuted-maps": table})
    monkeypatch.setattr(gate_module, "bundle_controls", lambda *_: stored)
    assert run(["gate", str(bundles["pass"])]) == ExitCode.OK
    assert "controls: the policy fails permuted-maps" in capsys.readouterr().out
    answers = {"name": "answers", "confidence": 0.95, "min_samples": 50}
    policy = tmp_path / "answers.json"
    policy.write_text(json.dumps({**answers, "clauses": [{"kind": "agreement", "at_least": 0.9}]}), encoding="utf-8")
    assert run(["gate", str(bundles["pass"]), "--policy", str(policy)]) == ExitCode.INCONCLUSIVE
    out = capsys.readouterr().out
    assert "with the controls: inconclusive" in out
    assert "::error title=edgekit gate%3A policy too weak::The policy says pass to permuted-maps" in out


def test_the_readme_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).resolve().parents[2]
    section = (root / "README.md").read_text(encoding="utf-8").partition("## In CI\n")[2].partition("\n## ")[0]
    block = section.split("```")[1].strip("\n").splitlines()
    assert block[0].startswith("$ edgekit gate ")
    shutil.copy(root / "tests" / "golden" / "bundle-1.tar", tmp_path / "release.tar")
    clauses = [
        {"kind": "share", "metric": "cosine", "threshold": 0.9, "at_least": 0.9},
        {"kind": "mean", "metric": "spearman", "bound": 0.9},
        {"kind": "agreement", "at_least": 0.98},
    ]
    policy = {"name": "maps", "confidence": 0.95, "min_samples": 50, "clauses": clauses}
    (tmp_path / "maps.json").write_text(json.dumps(policy), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code = run(block[0].removeprefix("$ edgekit ").split())
    assert capsys.readouterr().out.rstrip("\n").splitlines() == block[1:-2]
    assert [str(int(code))] == block[-1:]
    assert (tmp_path / "gate.sarif").exists()
