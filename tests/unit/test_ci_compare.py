"""`edgekit compare`: two bundles side by side, and no number made of what cannot be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ci_bundles import blunted_graph, ci_bundle, hostile_golden, unverified_bundle
from tiny_golden import tiny_golden

from edgekit.bench.options import LatencyOptions
from edgekit.bench.result import LatencyReport, LatencyResult
from edgekit.ci.differences import differences
from edgekit.ci.registry import COMPARISON_FORMATS
from edgekit.cli.compare import FORMATS
from edgekit.cli.main import run

STORED = Path(__file__).resolve().parents[1] / "golden" / "bundle-1.tar"
MACHINE = {"machine": "x86_64", "processor": "One", "logical_cpus": 2, "system": "Linux", "packages": {"numpy": "2"}}


def latency(ms: float, batch: int = 1, **machine: Any) -> dict[str, Any]:
    result = LatencyResult({"engine": "reference"}, batch, ((ms, ms * 2), (ms, ms)), quiet=True)
    options = LatencyOptions(batch=batch, rounds=2, iterations=2)
    return LatencyReport({"fp32": result}, options, {**MACHINE, **machine}).to_dict()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    work = tmp_path_factory.mktemp("compare")
    return {
        "sound": ci_bundle(work / "sound", latency=latency(4.0), recipe={"seed": 0, "prune": {"rate": 0.2}}),
        "worse": ci_bundle(
            work / "worse",
            graph=blunted_graph(work),
            latency=latency(3.0, packages={"numpy": "3"}),
            recipe={"seed": 0, "prune": {"rate": 0.5}, "log": "csv"},
        ),
        "machine": ci_bundle(work / "machine", latency=latency(1.0, processor="Two")),
        "batch": ci_bundle(work / "batch", latency=latency(1.0, batch=8)),
        "teacher": ci_bundle(work / "teacher", golden=replace(tiny_golden(), teacher="1" * 64)),
        "hostile": ci_bundle(work / "hostile", golden=hostile_golden(), recipe={"<b>|`": "::error::\n\x1b[1m"}),
    }


def compared(bundles: dict[str, Path], before: str, after: str, capsys: pytest.CaptureFixture[str]) -> Any:
    assert run(["compare", str(bundles[before]), str(bundles[after]), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_offers_every_registered_format() -> None:
    assert sorted(FORMATS) == sorted(["table", *COMPARISON_FORMATS])


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_what_changed(
    bundles: dict[str, Path], form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", str(bundles["sound"]), str(bundles["worse"]), "--format", form]
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    for text in ("cosine", "0.75", "prune.rate"):
        assert text in printed.replace("\\", "").replace('"key": "prune', '"key": "prune')
    assert run([*arguments, "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_text(encoding="utf-8").rstrip("\n") == printed.rstrip("\n")
    assert capsys.readouterr().out.startswith("edgekit compare: worse")


def test_the_document(bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    document = compared(bundles, "sound", "worse", capsys)
    assert document["format"] == "edgekit.comparison/1"
    assert document["before"]["outcome"] == document["after"]["outcome"] == "pass"
    assert document["before"]["engine_bytes"] == document["after"]["engine_bytes"]
    assert document["worse"]
    assert document["changes"]["golden"] == {"paired": 80, "only_before": 0, "only_after": 0}
    assert document["differences"]["recipe"] == [
        {"key": "log", "before": "absent", "after": '"csv"'},
        {"key": "prune.rate", "before": "0.2", "after": "0.5"},
    ]
    assert document["differences"]["policy"] == []


def test_a_ratio_of_one_kind_of_machine(bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    told = compared(bundles, "sound", "worse", capsys)["latency"]
    assert told["ratio"] == pytest.approx(0.75)
    assert "different times" in told["reason"]


@pytest.mark.parametrize(
    ("other", "reason"), [("machine", "different machines"), ("batch", "batch size"), ("teacher", "not both bundles")]
)
def test_no_ratio_of_what_is_not_alike(
    bundles: dict[str, Path], other: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = compared(bundles, "sound", other, capsys)["latency"]
    assert told["ratio"] is None
    assert reason in told["reason"]


def test_fail_if_worse(bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    sound, worse = str(bundles["sound"]), str(bundles["worse"])
    assert run(["compare", sound, worse, "--fail-if-worse"]) == 1
    assert run(["compare", worse, sound, "--fail-if-worse"]) == 0
    assert run(["compare", sound, sound, "--fail-if-worse"]) == 0
    capsys.readouterr()


def test_bundles_of_two_teachers_stand_side_by_side_unpaired(
    bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    document = compared(bundles, "sound", "teacher", capsys)
    assert document["changes"] is None
    assert document["unpaired"] == "the scores are not about the same thing: the teachers are other files"
    # Nothing was compared, so that nothing got worse cannot be said either.
    assert run(["compare", str(bundles["sound"]), str(bundles["teacher"]), "--fail-if-worse"]) == 3
    assert "Not paired" in capsys.readouterr().out


@pytest.mark.parametrize("engine", ["reference", "tensorrt"])
def test_a_bundle_without_evidence_stands_beside_one_with(
    bundles: dict[str, Path], engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = unverified_bundle(tmp_path, engine=engine)
    for order, word in (((bundles["sound"], waiting), "newer"), ((waiting, bundles["sound"]), "older")):
        assert run(["compare", *map(str, order), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["unpaired"] == f"the {word} bundle was never verified"
        side = document["after" if word == "newer" else "before"]
        assert side["outcome"] == "not verified"
        assert (side["engine_bytes"] is None) is (engine == "tensorrt")


def test_a_stored_bundle_of_an_older_format_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(STORED), str(STORED)]) == 0
    out = capsys.readouterr().out
    assert "int8" in out
    assert "72455 bytes" in out


def test_bad_input_and_usage(bundles: dict[str, Path], tmp_path: Path) -> None:
    sound = str(bundles["sound"])
    assert run(["compare", sound, str(tmp_path / "nothing")]) == 3
    assert run(["compare", sound]) == 2
    assert run(["compare", sound, sound, "-o", str(bundles["sound"] / "x.html"), "--format", "html"]) == 2


@pytest.mark.parametrize("form", FORMATS)
def test_hostile_recipes_are_shown_and_not_obeyed(
    bundles: dict[str, Path], form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["compare", str(bundles["sound"]), str(bundles["hostile"]), "--format", form])
    out = capsys.readouterr().out
    assert not [line for line in out.splitlines() if line.lstrip().startswith(("::", "##["))]
    assert "\x1b[1m" not in out.replace("\x1b[1mDiff", "")
    assert "<b>" not in out or form in ("json", "table")


def test_differences_tell_kinds_of_values_apart() -> None:
    assert differences({"a": 1}, {"a": True})
    assert differences({"a": 1}, {"a": 1.0})
    assert differences({"a": [1, 2]}, {"a": [1, 2]}) == ()
    (found,) = differences({"a": {"b": [1]}}, {"a": {"b": [2]}})
    assert (found.key, found.before, found.after) == ("a.b", "[1]", "[2]")
