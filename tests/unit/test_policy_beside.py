"""Budgets and baselines in a release and at its gate: the same costs by the same lines, and nothing left unsaid."""

from __future__ import annotations

import html
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from device_candidates import RECIPE, candidate, device_stand_in, run_on_device, stages
from policy_tables import CASES
from tensorrt_stand_ins import PAIRS

from edgekit import api
from edgekit.bench.result import LatencyReport
from edgekit.bundle import layout
from edgekit.bundle.open import open_bundle
from edgekit.cli.gate import FORMATS
from edgekit.cli.gate import command as gate_command
from edgekit.core.canonical import dump_canonical, read_json
from edgekit.core.stages import StageRecord
from edgekit.errors import BadInputError, IntegrityError
from edgekit.pipeline.attach import AttachRequest, attach
from edgekit.pipeline.engines import EngineChoice, EnginesRequest, EnginesRun, run_engines
from edgekit.pipeline.folders import BuildFolders
from edgekit.pipeline.release import BuildResult, make_release
from edgekit.pipeline.release_request import ReleaseRequest
from edgekit.policy.clauses import CLAUSES, COSTS, AgreementClause, BaselineClause, BudgetClause, Clause
from edgekit.policy.context import Baseline
from edgekit.policy.document import load_preset
from edgekit.policy.policy import Policy
from edgekit.targets.loader import resolve_target
from edgekit.verify.beside import bundle_context, counts_as_shipped, latency_costs, stored_baseline
from edgekit.verify.gate import gate, read_baseline

RECORDS = {
    "golden": StageRecord("golden", "1" * 64, {}, {}, {}, {"model": "tiny"}),
    "compress": StageRecord("compress", "1" * 64, {}, {}, {}, {}),
}
TARGET = "jetson-orin-nano"
PLENTY = (
    BudgetClause("latency-p99-ms", 60_000),
    BudgetClause("bundle-bytes", 10**9),
    BudgetClause("latency-ratio", 99),
)


def demanding(*clauses: Clause) -> Policy:
    policy = load_preset("default")
    return replace(policy, name="mine", clauses=(*policy.clauses, *clauses))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BuildFolders, EnginesRun]]:
    """Engines built, verified and timed over TensorRT's stand-in: releases are made of them again and again."""
    folder = tmp_path_factory.mktemp("beside")
    folders = stages(folder / "build")
    monkeypatch = pytest.MonkeyPatch()
    with device_stand_in(*PAIRS[2], monkeypatch, folder):
        wanted = EnginesRequest(folders, resolve_target(TARGET), EngineChoice(("tensorrt",)), demanding(*PLENTY), 5)
        yield folders, run_engines(wanted)
    monkeypatch.undo()


@pytest.fixture
def release(built: tuple[BuildFolders, EnginesRun]) -> Any:
    folders, ran = built

    def make(policy: Policy, baseline: Baseline | None = None) -> BuildResult:
        for name in ("released", "blocked", "inconclusive"):
            shutil.rmtree(folders.bundle(name), ignore_errors=True)
        return make_release(
            ReleaseRequest(folders, TARGET, ran, RECIPE, policy, RECORDS | ran.records, baseline=baseline)
        )

    return make


@pytest.fixture(scope="module")
def everything(built: tuple[BuildFolders, EnginesRun], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose policy holds every kind of clause, and one over classes, judged beside itself."""
    folders, ran = built
    clauses: list[Clause] = [case.clause for case in CASES.values()]
    policy = Policy("everything", 0.95, (*clauses, AgreementClause(0.5, over="class", small_classes="skip")), 20)

    def make(beside: Baseline | None) -> Path:
        for name in ("released", "blocked", "inconclusive"):
            shutil.rmtree(folders.bundle(name), ignore_errors=True)
        request = ReleaseRequest(folders, TARGET, ran, RECIPE, policy, RECORDS | ran.records, baseline=beside)
        return make_release(request).folder

    made = make(read_baseline(make(None)))
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("everything") / "release"))


def test_a_release_within_its_budgets_passes_its_gate(release: Any) -> None:
    made = release(demanding(*PLENTY))
    assert made.manifest.status == "released"
    with open_bundle(made.folder) as opened:
        again = gate(opened)
        assert again.outcome == "pass"
        assert again.verdict.to_dict() == made.verdict.to_dict() == opened.read_json(layout.VERDICT)
        costs = bundle_context(opened, made.verdict.policy).costs
        files = opened.manifest.files
    assert set(costs) <= set(COSTS)
    assert costs["artifact-bytes"] == files[layout.PLAN].size
    assert costs["bundle-bytes"] == sum(ref.size for name, ref in files.items() if counts_as_shipped(name))
    assert made.verdict.clauses[-1].observed == costs["latency-ratio"]
    assert api.gate(made.archive).verdict.to_dict() == made.verdict.to_dict()


@pytest.mark.parametrize(
    "cost", ["latency-p50-ms", "latency-p99-ms", "latency-ratio", "artifact-bytes", "bundle-bytes"]
)
def test_a_budget_that_is_not_kept_blocks(release: Any, cost: str) -> None:
    made = release(demanding(BudgetClause(cost, 1e-6)))
    assert made.manifest.status == "blocked"
    failed = [result for result in made.verdict.clauses if result.outcome == "fail"]
    assert [result.clause.kind for result in failed] == ["budget"]
    assert api.gate(made.folder).outcome == "fail"


@pytest.mark.parametrize("cost", ["power-w", "energy-mj", "peak-memory-bytes"])
def test_what_nothing_measures_is_said_and_does_not_pass(release: Any, cost: str) -> None:
    made = release(demanding(BudgetClause(cost, 1)))
    assert made.manifest.status == "inconclusive"
    assert "nothing here says what it costs" in made.verdict.clauses[-1].explanation
    assert release(demanding(BudgetClause(cost, 1, required=False))).manifest.status == "released"


def test_a_policy_that_changes_by_a_budget_alone_makes_another_bundle(release: Any, built: Any) -> None:
    folders, ran = built
    first = release(demanding(BudgetClause("bundle-bytes", 10**9)))
    second = make_release(
        ReleaseRequest(
            folders, TARGET, ran, RECIPE, demanding(BudgetClause("bundle-bytes", 2 * 10**9)), RECORDS | ran.records
        )
    )
    assert first.manifest.digest != second.manifest.digest
    assert api.gate(second.folder).verdict.policy.clauses[-1] == BudgetClause("bundle-bytes", 2 * 10**9)


def test_a_release_beside_the_one_before(release: Any, tmp_path: Path) -> None:
    before = release(load_preset("default"))
    shutil.copytree(before.folder, tmp_path / "before")
    baseline = read_baseline(tmp_path / "before")
    assert baseline.digest == before.manifest.digest
    policy = demanding(BaselineClause("agreement", 0.1), BaselineClause("cosine", 0.01))
    alone = release(policy)
    assert alone.manifest.status == "inconclusive"
    assert "no baseline" in alone.verdict.clauses[-1].explanation
    made = release(policy, baseline)
    assert made.manifest.status == "released"
    assert made.manifest.lineage["baseline"] == before.manifest.digest
    with open_bundle(made.folder) as opened:
        stored = stored_baseline(opened)
        assert stored is not None
        assert stored.to_dict() == baseline.to_dict()
        assert gate(opened).verdict.to_dict() == made.verdict.to_dict()
    # Another one to compare with, and a policy that the bundle was not made with.
    other = replace(baseline, digest="0" * 64, table=_worse_than(baseline, 0.001))
    with open_bundle(made.folder) as opened:
        assert gate(opened, baseline=other).outcome == "pass"
        assert gate(opened, demanding(BaselineClause("spearman", 0.01)), baseline).outcome == "pass"
    # Who makes a bundle can pretend to a baseline; whoever has that release sees it.
    pretended = release(policy, replace(baseline, table=_worse_than(baseline, 0.05)))
    assert pretended.manifest.status == "released"
    with open_bundle(pretended.folder) as opened:
        assert gate(opened).outcome == "pass"
        with pytest.raises(IntegrityError, match="other scores than those of the release it names"):
            gate(opened, baseline=baseline)


def _worse_than(baseline: Baseline, by: float) -> Any:
    table = baseline.table
    return replace(table, metrics={**table.metrics, "cosine": table.metrics["cosine"] - by})


def test_the_gate_takes_a_baseline_on_the_command_line(release: Any, tmp_path: Path) -> None:
    before = release(load_preset("default"))
    shutil.copytree(before.folder, tmp_path / "before")
    policy = tmp_path / "policy.json"
    policy.write_bytes(dump_canonical(demanding(BaselineClause("cosine", 0.01)).to_dict()))

    def run(*more: str) -> int:
        arguments = [str(tmp_path / "before"), "--policy", str(policy), *more]
        done = CliRunner().invoke(gate_command, arguments, catch_exceptions=False, standalone_mode=False)
        return int(done.return_value)

    assert run() == 6
    assert run("--baseline", str(tmp_path / "before")) == 0


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_tells_of_every_kind_of_clause(everything: Path, form: str) -> None:
    arguments = [str(everything), "--format", form, "--baseline", str(everything)]
    done = CliRunner().invoke(gate_command, arguments, catch_exceptions=False, standalone_mode=False)
    assert done.return_value == 6  # the tiny golden set has no masks
    # Where only what does not hold is told, too: there are no masks.
    assert "on masks is below the teacher" in html.unescape(done.output)
    if form != "sarif":
        assert "in every class of the teacher" in done.output
        assert "99th percentile of the latency" in done.output


def test_the_report_is_drawn_of_every_kind_of_clause(everything: Path) -> None:
    with open_bundle(everything) as opened:
        page = opened.read_bytes(layout.REPORT_HTML).decode()
        clauses = opened.read_json(layout.REPORT_JSON)["verdict"]["clauses"]
    assert {entry["kind"] for entry in clauses} == set(CLAUSES)
    assert all(entry["text"] and entry["better"] in ("higher", "lower") for entry in clauses)
    assert "in every class of the teacher" in page


def test_a_bundle_that_was_never_verified_is_no_baseline(release: Any, tmp_path: Path) -> None:
    made = release(load_preset("default"))
    with open_bundle(made.folder) as opened:
        files = {name: ref for name, ref in opened.manifest.files.items() if name != layout.SCORES}
        from edgekit.verify.gate import bundle_baseline

        with pytest.raises(BadInputError, match="never verified is no baseline"):
            bundle_baseline(replace(opened, manifest=replace(opened.manifest, files=files)))


def test_a_build_refuses_a_baseline_that_is_none_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        api.build("no-model.pt", data="no-images", output=tmp_path / "out", baseline=tmp_path / "nowhere")
    assert str(caught.value.where) == str(tmp_path / "nowhere")


def test_the_verification_leaves_out_what_it_cannot_know(built: tuple[BuildFolders, EnginesRun]) -> None:
    folders, _ = built
    stored = read_json(folders.verify("int8") / "verdict.json")
    assert "budget" not in {clause["kind"] for clause in stored["clauses"]}
    assert stored["outcome"] == "pass"


def test_a_baseline_travels_with_a_device_candidate(release: Any, tmp_path: Path) -> None:
    """The host names it, the device judges what it can, and the host judges the rest when the evidence comes back."""
    before = read_baseline(release(load_preset("default")).folder)
    policy = demanding(*PLENTY, BaselineClause("cosine", 0.01))
    host = candidate(tmp_path / "host", policy=policy, baseline=before).archive
    monkeypatch = pytest.MonkeyPatch()
    with device_stand_in(*PAIRS[2], monkeypatch, tmp_path):
        run_on_device(host, tmp_path / "evidence")
    monkeypatch.undo()
    made = attach(AttachRequest(host, tmp_path / "evidence", tmp_path / "out"))
    assert made.manifest.status == "released"
    assert {"budget", "no-worse-than-baseline"} < {result.clause.kind for result in made.verdict.clauses}
    assert api.gate(made.archive).verdict.to_dict() == made.verdict.to_dict()


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("bundle"),
        lambda raw: raw.update(bundle="A" * 64),
        lambda raw: raw.update(format="edgekit.baseline/2"),
        lambda raw: raw.update(more=1),
        lambda raw: raw["scores"]["metrics"]["cosine"].append(1.0),
    ],
)
def test_a_malformed_baseline_is_refused(release: Any, change: Any) -> None:
    raw = read_baseline(release(load_preset("default")).folder).to_dict()
    change(raw)
    with pytest.raises(IntegrityError):
        Baseline.from_dict(raw, where="baseline.json")


def test_costs_are_those_of_the_report_to_the_last_bit_that_matters(release: Any) -> None:
    made = release(load_preset("default"))
    with open_bundle(made.folder) as opened:
        report = LatencyReport.from_dict(opened.read_json(layout.LATENCY), where="latency")
    costs = latency_costs(report, "int8", "fp32")
    assert costs["latency-p50-ms"] == pytest.approx(report.results["int8"].percentile_ms(50), rel=1e-12)
    assert costs["latency-p99-ms"] == pytest.approx(report.results["int8"].percentile_ms(99), rel=1e-12)
    assert costs["latency-ratio"] == pytest.approx(report.ratio("int8", "fp32").median, rel=1e-12)
    assert latency_costs(report, "int4", "fp32") == {}
    assert "latency-ratio" not in latency_costs(report, "int8", None)
    assert np.isfinite(list(costs.values())).all()
