"""What a recipe says of TensorRT: that every key reaches the builder, the stage's key, and the person who mistyped."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from device_candidates import device_stand_in, stages
from fake_cuda.devices import AGX_ORIN_64
from fake_cuda.faults import Faults, ParserFault
from fake_cuda.machine import FakeMachine
from tensorrt_stand_ins import GRAPH, Listener, quantised, stand_in

from edgekit.cli.main import run
from edgekit.config.overrides import overridden
from edgekit.config.recipe import Recipe, recipe_from_dict, recipe_to_dict
from edgekit.core.digests import digest_file
from edgekit.core.supervised import Patience, run_supervised
from edgekit.engines.build import BuildEngineRequest, build_engine
from edgekit.engines.tensorrt.limited_build import build_within_limit
from edgekit.engines.tensorrt.options import USUAL_BATCHES, BuildOptions
from edgekit.engines.tensorrt.plan_file import read_plan
from edgekit.engines.tensorrt.running import RunOptions
from edgekit.engines.tensorrt.settings import TensorRtSettings
from edgekit.engines.tuning import ConditionedEngine, TunableEngine, Tuning
from edgekit.errors import BadInputError, EdgekitError, ExitCode, UnavailableError
from edgekit.pipeline.tensorrt_demands import check_tensorrt
from edgekit.targets.dla import require_dla
from edgekit.targets.loader import resolve_target, target_names

MIB = 1 << 20
# A value beside its default for every key, and what has to be set with it.
OTHER: dict[str, Any] = {
    "typing": "weak",
    "float_type": "fp32",
    "batches": [2, 2, 4],
    "workspace": 96 * MIB,
    "tactic_dram": 80 * MIB,
    "optimisation_level": 5,
    "aux_streams": 2,
    "tactic_sources": ["CUBLAS"],
    "sparsity": True,
    "version_compatible": True,
    "hardware_compatible": "ampere+",
    "profiling_verbosity": "none",
    "timing_cache": False,
    "time_limit_s": 60,
    "tf32": True,
    "dla_core": 1,
    "dla_fallback": False,
    "dla_sram": 1 << 16,
    "dla_local_dram": 1 << 28,
    "dla_global_dram": 1 << 27,
    "run": {"cuda_graph": False},
}
ON_DLA = {"dla_core": 0}


def settings(**values: Any) -> TensorRtSettings:
    return recipe_from_dict({"tensorrt": values}, where="test").tensorrt


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMachine]:
    """TensorRT 10.3 in this process and in those that build."""
    with device_stand_in("10.3.0", "pycuda", monkeypatch, tmp_path, gpu="agx-orin-64") as machine:
        yield machine


def test_every_option_of_a_build_can_be_said_or_is_of_one_machine() -> None:
    said = {item.name for item in fields(TensorRtSettings)}
    assert set(OTHER) == said
    of_one_machine = {"calibration_cache", "scales", "half_graph", "memory", "device"}
    assert {item.name for item in fields(BuildOptions)} - said == of_one_machine


@pytest.mark.parametrize("key", sorted(OTHER))
def test_every_key_changes_the_options_or_the_key_of_the_stage(key: str) -> None:
    beside = ON_DLA if key.startswith("dla_") and key != "dla_core" else {}
    plain, other = settings(**beside), settings(**beside, **{key: OTHER[key]})
    assert Tuning("int8", plain).to_dict() != Tuning("int8", other).to_dict()
    # Whether there is a timing cache says nothing of the plan; where it lies is the machine's affair.
    assert (plain.build_options("int8") == other.build_options("int8")) is (key == "timing_cache")
    json.dumps(Tuning("int8", other).to_dict())


def test_defaults_are_those_of_a_build_with_a_limit() -> None:
    expected = replace(BuildOptions(), time_limit_s=7200)
    assert TensorRtSettings().build_options("int8") == expected
    assert TensorRtSettings().build_options("fp32") == replace(expected, float_type="fp32")
    assert TensorRtSettings().build_options("fp16") == replace(expected, float_type="fp16")


def test_what_was_said_otherwise_is_told_by_its_key() -> None:
    assert TensorRtSettings().changed() == {}
    said = settings(dla_core=0, batches=[2, 2, 2], run={"zero_copy": True})
    assert said.changed() == {"dla_core": 0, "batches": (2, 2, 2), "run.zero_copy": True}
    assert overridden(Recipe(), [f"tensorrt.{key}={json.dumps(value)}" for key, value in said.changed().items()]) == (
        Recipe(tensorrt=said)
    )


def test_the_dla_runs_one_batch_and_no_fp32() -> None:
    asked = settings(dla_core=1, dla_sram=1 << 16)
    assert asked.build_options("int8").batches == (1, 1, 1)
    assert asked.build_options("fp16").dla_core == 1
    fp32 = asked.build_options("fp32")
    assert (fp32.dla_core, fp32.dla_sram, fp32.batches) == (None, 0, USUAL_BATCHES)
    assert settings(dla_core=0, batches=[4, 4, 4]).build_options("int8").batches == (4, 4, 4)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"typing": "loose"}, "tensorrt.typing"),
        ({"optimisation_level": 6}, "tensorrt.optimisation_level"),
        ({"aux_streams": 129}, "tensorrt.aux_streams"),
        ({"profiling_verbosity": "loud"}, "tensorrt.profiling_verbosity"),
        ({"batches": [3, 2, 1]}, "tensorrt.batches"),
        ({"workspace": -1}, "tensorrt.workspace"),
        ({"tactic_dram": -1}, "tensorrt.tactic_dram"),
        ({"time_limit_s": -1}, "tensorrt.time_limit_s"),
        ({"dla_sram": 1 << 16}, "tensorrt.dla_sram"),
        ({"dla_core": 0, "dla_sram": 5000}, "tensorrt.dla_sram"),
        ({"dla_core": 0, "batches": [1, 1, 2]}, "tensorrt.batches"),
        ({"run": {"cuda_package": "torch"}}, "tensorrt.run.cuda_package"),
        ({"run": {"zero_copy": 1}}, "tensorrt.run.zero_copy"),
        ({"run": {"graphs": True}}, "tensorrt.run.graphs"),
        ({"dla_cores": 0}, "tensorrt.dla_cores"),
        ({"dla_core": "0"}, "tensorrt.dla_core"),
    ],
)
def test_slips_are_named_by_their_key(values: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInputError, match=named) as caught:
        settings(**values)
    assert caught.value.expected
    assert caught.value.found


class TestOverrides:
    def test_values_are_read_as_in_a_file(self) -> None:
        found = overridden(
            Recipe(),
            [
                "tensorrt.dla_core=0",
                "tensorrt.batches=[2, 2, 2]",
                "tensorrt.tf32= true",
                "tensorrt.run.zero_copy=true",
                "select.latency_runs=7",
            ],
        )
        assert (found.tensorrt.dla_core, found.tensorrt.batches, found.tensorrt.tf32) == (0, (2, 2, 2), True)
        assert found.select.latency_runs == 7
        assert found.tensorrt.run == RunOptions(zero_copy=True)
        assert overridden(Recipe(), ["tensorrt.dla_core=1", "tensorrt.dla_core=null"]) == Recipe()
        assert recipe_from_dict(recipe_to_dict(found), where="again") == found

    @pytest.mark.parametrize(
        "assignment",
        ["tensorrt.dla_core", "=1", "tensorrt..x=1", "format=2", "tensorrt.nothing=1", "policy.x.y=1", "x=1",
         "tensorrt.tf32=perhaps", "tensorrt.typing=[", "qat.epochs=1.5"],
    )  # fmt: skip
    def test_what_cannot_be_read_is_refused(self, assignment: str) -> None:
        with pytest.raises(BadInputError) as caught:
            overridden(Recipe(), [assignment])
        assert "--set" in str(caught.value.where)


def _as_asked(record: Any) -> dict[str, Any]:
    options: dict[str, Any] = record.facts["engine"]["details"]["plan"]["build"]["options"]
    return options


@pytest.mark.usefixtures("here")
def test_the_builder_is_told(tmp_path: Path) -> None:
    graph = quantised(tmp_path)
    asked = settings(optimisation_level=4, aux_streams=1, sparsity=True, workspace=64 * MIB, tf32=True)
    record = build_engine(BuildEngineRequest("tensorrt", graph, "int8", Tuning("int8", asked)), tmp_path / "a")
    told = _as_asked(record)
    assert (told["optimisation_level"], told["aux_streams"], told["sparsity"]) == (4, 1, True)
    assert told["timing_cache"] is True
    words = record.facts["engine"]["details"]["plan"]["build"]["trtexec"]
    assert "--builderOptimizationLevel=4" in words
    assert "workspace:64" in words
    again = build_engine(BuildEngineRequest("tensorrt", graph, "int8", Tuning("int8", asked)), tmp_path / "a")
    assert again.key == record.key
    other = replace(asked, optimisation_level=2)
    changed = build_engine(BuildEngineRequest("tensorrt", graph, "int8", Tuning("int8", other)), tmp_path / "a")
    assert changed.key != record.key
    assert _as_asked(changed)["optimisation_level"] == 2


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("tf32", "flags"), [(False, []), (True, ["TF32"])])
def test_tf32_is_off_unless_it_is_asked_for(tf32: bool, flags: list[str], tmp_path: Path) -> None:
    asked = settings(tf32=tf32)
    record = build_engine(BuildEngineRequest("tensorrt", GRAPH, "fp32", Tuning("fp32", asked)), tmp_path / "a")
    precision = record.facts["engine"]["details"]["plan"]["build"]["precision"]
    assert precision["cleared"] == ([] if flags else ["TF32"])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("verbosity", ["layer_names_only", "none"])
def test_an_engine_that_tells_little_is_said_to(verbosity: str, tmp_path: Path) -> None:
    listener = Listener()
    asked = settings(profiling_verbosity=verbosity)
    wanted = BuildEngineRequest("tensorrt", quantised(tmp_path), "int8", Tuning("int8", asked))
    layers = build_engine(wanted, tmp_path / "a", listener).facts["engine"]["details"]["plan"]["build"]["layers"]
    assert layers["shares"] == {}
    assert any("not known" in note for note in listener.notes)


class TestLimit:
    def test_a_build_that_hangs_is_ended(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        begun = time.monotonic()
        faults = Faults(hang_build=60.0)
        tuning = Tuning("fp32", settings(time_limit_s=3))
        with (
            device_stand_in("8.6.1", "pycuda", monkeypatch, tmp_path, faults),
            pytest.raises(UnavailableError, match="longer for an engine") as caught,
        ):
            build_engine(BuildEngineRequest("tensorrt", GRAPH, "fp32", tuning), tmp_path / "a")
        assert time.monotonic() - begun < 30
        assert "3 seconds" in str(caught.value.expected)
        assert "tensorrt.time_limit_s" in str(caught.value.hint)
        assert not (tmp_path / "a").exists()

    def test_progress_is_no_reprieve(self, tmp_path: Path) -> None:
        talking = tmp_path / "talking.py"
        said = json.dumps({"said": "noted", "message": "on"})
        talking.write_text(f"import time\nwhile True:\n    print({said!r}, flush=True)\n    time.sleep(0.1)\n")
        patience = Patience(1.5, whole=True, message="late", expected="e", hint="h")
        listener = Listener()
        with pytest.raises(UnavailableError, match="late"):
            run_supervised([sys.executable, str(talking)], patience, listener, expected="x")
        assert listener.notes

    def test_errors_of_the_build_come_back_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        faults = Faults(parser=(ParserFault(4, "Assertion failed: no such luck"),))
        with device_stand_in("10.3.0", "pycuda", monkeypatch, tmp_path, faults), pytest.raises(BadInputError) as caught:
            build_engine(BuildEngineRequest("tensorrt", GRAPH, "fp32", Tuning("fp32")), tmp_path / "a")
        assert "no such luck" in str(caught.value.found)

    def test_options_travel_whole(self, tmp_path: Path, here: FakeMachine) -> None:
        options = BuildOptions(
            time_limit_s=60,
            batches=(1, 2, 3),
            tactic_sources=("CUBLAS",),
            timing_cache=tmp_path / "times",
            aux_streams=1,
            run=RunOptions(zero_copy=True, cuda_graph=False),
        )
        header = build_within_limit(GRAPH, tmp_path / "x.plan", options)
        assert header.build["options"] == options.to_dict()
        assert header == read_plan(tmp_path / "x.plan")[0]

    def test_without_a_limit_no_process_is_started(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(*_: object, **__: object) -> None:
            raise AssertionError

        monkeypatch.setattr("edgekit.engines.tensorrt.limited_build.run_supervised", never)
        with stand_in("10.3.0", "pycuda", monkeypatch, FakeMachine(AGX_ORIN_64)):
            assert build_within_limit(GRAPH, tmp_path / "x.plan", BuildOptions()).tensorrt == "10.3.0"


def test_the_key_names_gpu_and_power_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: FakeMachine) -> None:
    from edgekit.engines.tensorrt import engine as module
    from edgekit.engines.tensorrt.machine import MachineFacts

    wanted = BuildEngineRequest("tensorrt", GRAPH, "fp32", Tuning("fp32"))
    keys = set()
    for mode in ("MAXN", "15W"):
        monkeypatch.setattr(module, "machine_facts", lambda mode=mode: MachineFacts("36.4.3", "jetson-agx-orin", mode))
        record = build_engine(wanted, tmp_path / "a")
        conditions: Any = record.options["conditions"]
        assert conditions["machine"]["power_mode"] == mode
        assert conditions["gpu"]["name"] == AGX_ORIN_64.name
        assert conditions["tensorrt"] == "10.3.0"
        keys.add(record.key)
    assert len(keys) == 2


def test_engines_that_compile_listen() -> None:
    from edgekit.engines.registry import ENGINES

    tunable = {name for name in ENGINES if isinstance(ENGINES.load(name), TunableEngine)}
    conditioned = {name for name in ENGINES if isinstance(ENGINES.load(name), ConditionedEngine)}
    assert tunable == {"tensorrt", "ort-tensorrt"}
    assert conditioned == {"tensorrt", "ort-tensorrt", "ort-cuda"}


def test_int8_for_the_dla_comes_from_the_scale_table_until_it_takes_pairs(tmp_path: Path, here: FakeMachine) -> None:
    from edgekit.engines.tuning import RangesBeside

    folders = stages(tmp_path)
    ranges = RangesBeside(folders.export / "model.onnx", folders.calibrate / "scales.json")
    wanted = BuildEngineRequest(
        "tensorrt", folders.calibrate / "model.onnx", "int8", Tuning("int8", settings(**ON_DLA), ranges)
    )
    record = build_engine(wanted, tmp_path / "a")
    plan = record.facts["engine"]["details"]["plan"]
    assert plan["dla_core"] == 0
    assert plan["build"]["precision"]["calibrated"] is True
    assert plan["graph_sha256"] == digest_file(ranges.graph)
    assert {"graph_fp32", "scales"} <= set(record.inputs)


class TestTargets:
    # "jetson" and "cpu" stand for the machine that they are on.
    @pytest.mark.parametrize("name", sorted(set(target_names()) - {"jetson", "cpu"}))
    def test_a_dla_is_there_or_refused(self, name: str) -> None:
        target = resolve_target(name)
        if name.startswith(("jetson-agx-orin", "jetson-orin-nx")):
            found = require_dla(target, 0)
            assert found.by_cache == ("8.6.2", "10.3.0", "10.7.0")
            assert ("11.4.1" in found.versions) is name.startswith("jetson-agx-orin")
            assert "10.16.2" not in found.versions
            return
        with pytest.raises(UnavailableError, match="DLA core 0") as caught:
            require_dla(target, 0)
        assert caught.value.hint

    def test_of_a_family_every_module_needs_the_core(self) -> None:
        with pytest.raises(UnavailableError, match="DLA core 1") as caught:
            require_dla(resolve_target("jetson-orin-nx"), 1)
        assert "--target jetson-orin-nx-16gb" in str(caught.value.hint)
        assert require_dla(resolve_target("jetson-orin-nx-16gb"), 1).versions

    @pytest.mark.parametrize(
        ("target", "values", "error", "words"),
        [
            ("jetson-orin-nano", ["tensorrt.dla_core=0"], UnavailableError, "DLA core 0"),
            ("cpu-x86", ["tensorrt.dla_core=0"], UnavailableError, "DLA core 0"),
            ("jetson-agx-orin", ["tensorrt.dla_core=0", "calibrate.method=attribution"], BadInputError, "adjusted"),
            ("jetson-thor", ["tensorrt.hardware_compatible=same"], UnavailableError, "other GPUs"),
        ],
    )
    def test_a_recipe_is_refused_before_any_work(
        self, target: str, values: list[str], error: type[EdgekitError], words: str
    ) -> None:
        with pytest.raises(error, match=words) as caught:
            check_tensorrt(overridden(Recipe(), values), resolve_target(target))
        assert caught.value.hint

    def test_a_recipe_that_fits_passes(self) -> None:
        check_tensorrt(overridden(Recipe(), ["calibrate.adjust=false", "tensorrt.dla_core=1"]),
                       resolve_target("jetson-agx-orin"))  # fmt: skip
        check_tensorrt(Recipe(), resolve_target("cpu-x86"))


def test_the_command_line_refuses_a_dla_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["build", str(tmp_path / "m.pt"), "--data", str(tmp_path), "--output", str(tmp_path / "o"), "--dry-run"]
    assert run([*words, "--target", "jetson-orin-nano", "--dla", "0"]) == ExitCode.UNAVAILABLE
    assert "DLA core 0" in capsys.readouterr().err
    assert run([*words, "--set", "tensorrt.dla_cor=0"]) == ExitCode.BAD_INPUT
    assert "tensorrt.dla_cor" in capsys.readouterr().err
