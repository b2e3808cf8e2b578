"""How a plan runs, from the recipe to the evidence; and precision budgets whose candidates are built by the recipe.

Over stand-ins: what runs here is our code, and no TensorRT; no time is looked at.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device_candidates import RECIPE, candidate, device_stand_in, run_on_device
from fake_cuda.faults import Faults
from precision_budgets import hard_weights, request
from tensorrt_stand_ins import PAIRS

from edgekit.bundle import layout
from edgekit.bundle.open import open_bundle
from edgekit.cli.device import _rendered, _summary
from edgekit.config.overrides import overridden
from edgekit.core.canonical import read_json
from edgekit.device.candidate import candidate_plan
from edgekit.engines.tensorrt import engine as engine_module
from edgekit.engines.tensorrt.engine import TensorRtEngine
from edgekit.engines.tensorrt.plan_file import read_plan
from edgekit.engines.tensorrt.run import open_plan
from edgekit.engines.tensorrt.running import RunOptions, ran_in_words
from edgekit.engines.tensorrt.settings import TensorRtSettings
from edgekit.errors import IntegrityError
from edgekit.pipeline.attach import AttachRequest, attach
from edgekit.precision.options import BudgetOptions
from edgekit.precision.request import EngineHere
from edgekit.precision.stage import find_budget

V10, V11 = PAIRS[2], ("11.4.0.106", "cuda-python-13")
SHARING = RunOptions(zero_copy=True, cuda_graph=False)
ON_TENSORRT = EngineHere("tensorrt")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidate whose recipe says how its engines run."""
    recipe = overridden(RECIPE, ["tensorrt.run.zero_copy=true", "tensorrt.run.cuda_graph=false"])
    return candidate(tmp_path_factory.mktemp("host"), recipe=recipe).archive


def test_from_the_recipe_to_the_release(host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_bundle(host) as opened:
        plan = candidate_plan(opened)
    assert {build.options.run for build in plan.builds.values()} == {SHARING}
    with device_stand_in(*V10, monkeypatch, tmp_path):
        evidence = run_on_device(host, tmp_path / "evidence")
    for name, said in evidence.candidates.items():
        assert said.header["run"] == SHARING.to_dict()
        # Verified so, and timed so in a process that was told of the file alone.
        for ran in (said.runtime["details"], evidence.latency.results[name].engine["details"]):
            assert ran["run"] == SHARING.to_dict()
            assert ran["cuda_graph"]["state"] == "off"
            assert ran["cuda_graph"]["launched"] == 0 < ran["cuda_graph"]["runs"]
    shown = _rendered(evidence, tmp_path)
    assert "on the host's memory, without a CUDA graph; CUDA graph off, 0 of" in shown
    assert set(_summary(evidence, tmp_path)["ran"]) == set(evidence.candidates)
    released = attach(AttachRequest(host, tmp_path / "evidence", tmp_path / "out"))
    with open_bundle(released.folder) as opened:
        assert read_plan(opened.model_path)[0].run == SHARING
        told = opened.read_json(layout.DEVICE_EVIDENCE)["candidates"]["int8"]["runtime"]["details"]
    assert told["run"] == SHARING.to_dict()


def _built_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = TensorRtEngine.build

    def build(self: TensorRtEngine, *arguments: Any, **named: Any) -> Any:
        assert self.build_options is not None
        other = replace(self, build_options=replace(self.build_options, run=RunOptions()))
        return sound(other, *arguments, **named)

    monkeypatch.setattr(TensorRtEngine, "build", build)


def _run_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "open_plan", lambda artifact: open_plan(artifact, RunOptions()))


@pytest.mark.parametrize(
    ("fault", "words"),
    [(_built_otherwise, "how it runs"), (_run_otherwise, "how it was run")],
    ids=["built otherwise", "run otherwise"],
)
def test_evidence_of_an_engine_that_runs_otherwise_is_refused(
    fault: Any, words: str, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with device_stand_in(*V10, monkeypatch, tmp_path), pytest.MonkeyPatch.context() as inner:
        fault(inner)
        run_on_device(host, tmp_path / "evidence")
    with pytest.raises(IntegrityError, match=words) as caught:
        attach(AttachRequest(host, tmp_path / "evidence", tmp_path / "out"))
    assert caught.value.expected == "on the host's memory, without a CUDA graph"
    assert caught.value.found == "with copies, as a CUDA graph where it can be recorded"


@pytest.mark.parametrize("raw", [None, {}, {"zero_copy": 1, "cuda_graph": True, "cuda_package": ""},
                                 {"zero_copy": True, "cuda_graph": True, "cuda_package": "torch"}])  # fmt: skip
def test_what_says_no_way_to_run_is_none(raw: object) -> None:
    assert RunOptions.from_dict(raw) is None
    assert ran_in_words({"run": raw, "cuda_graph": {}}) == ran_in_words(raw) == ""
    assert RunOptions.from_dict(SHARING.to_dict()) == SHARING


def _built_candidates(folder: Path) -> list[dict[str, Any]]:
    """The build records of all engines that a budget has measured, before its workplace goes."""
    return [dict(read_plan(path)[0].build) for path in sorted(folder.rglob("engine.bin"))]


@pytest.mark.parametrize("pair", [V10, V11], ids="-".join)
def test_a_budget_builds_its_candidates_by_the_recipe(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.precision import stage

    asked = TensorRtSettings(optimisation_level=4, aux_streams=1, time_limit_s=0, run=RunOptions(cuda_graph=False))
    seen: list[dict[str, Any]] = []
    keep = stage._keep

    def looked(budget: Any, laboratory: Any, workplace: Path, folder: Path) -> None:
        seen.extend(_built_candidates(workplace))
        keep(budget, laboratory, workplace, folder)

    monkeypatch.setattr(stage, "_keep", looked)
    wanted = request(tmp_path, hard_weights(), engine=ON_TENSORRT, number_format="trt-s8s8")
    wanted = replace(wanted, tensorrt=asked, options=BudgetOptions(latency_runs=0))
    with device_stand_in(*pair, monkeypatch, tmp_path):
        record = find_budget(wanted, tmp_path / "out")
        again = find_budget(replace(wanted, tensorrt=TensorRtSettings(time_limit_s=0)), tmp_path / "out")
    assert record.facts["outcome"] == "pass"
    assert record.key != again.key
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(first) == len(second) >= 3
    assert {(each["options"]["optimisation_level"], each["options"]["aux_streams"]) for each in first} == {(4, 1)}
    assert {each["options"]["run"]["cuda_graph"] for each in first} == {False}
    assert {each["options"]["optimisation_level"] for each in second} == {None}
    # FP32 is built as FP32, and the others as INT8.
    assert sorted(each["options"]["float_type"] for each in first).count("fp32") == 1


def test_a_limit_of_the_recipe_holds_for_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.errors import UnavailableError

    wanted = request(tmp_path, hard_weights(), engine=ON_TENSORRT, number_format="trt-s8s8")
    wanted = replace(wanted, tensorrt=TensorRtSettings(time_limit_s=3))
    hanging = device_stand_in(*V10, monkeypatch, tmp_path, Faults(hang_build=60.0))
    with hanging, pytest.raises(UnavailableError, match="longer for an engine") as caught:
        find_budget(wanted, tmp_path / "out")
    assert "tensorrt.time_limit_s" in str(caught.value.hint)


@pytest.mark.parametrize(("float_type", "outside"), [("auto", ["fp16", "fp32"]), ("fp32", ["fp32"])])
def test_a_budget_knows_what_runs_beside_int8(float_type: str, outside: list[str], tmp_path: Path) -> None:
    away = EngineHere("reference", of_target=False, told="not here")
    wanted = request(tmp_path, hard_weights(), engine=away, number_format="trt-s8s8")
    record = find_budget(replace(wanted, tensorrt=TensorRtSettings(float_type=float_type)), tmp_path / "out")
    assert read_json(tmp_path / "out" / "precision.json")["outside_int8"] == outside
    assert any("FP16/FP32 left to the builder" in note for note in record.facts["notes"]) is (float_type == "auto")
