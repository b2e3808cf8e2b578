"""Building plans: what is asked of each version, what is refused before, and what is told afterwards.

Over stand-ins: what runs here is our code, and no TensorRT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_cuda.devices import AGX_ORIN_64, RTX_3090
from fake_cuda.faults import Faults, ParserFault
from fake_cuda.machine import FakeMachine
from fake_tensorrt import VERSIONS
from onnx import numpy_helper
from tensorrt_stand_ins import GRAPH, PAIRS, Listener, build, quantised, quantised_graph, stand_in

from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import BadInputError, EdgekitError, UnavailableError

WEAK = ("8.5.2", "8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11")


@pytest.fixture(params=PAIRS, ids="-".join)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMachine]:
    with stand_in(*request.param, monkeypatch) as machine:
        yield machine


@pytest.fixture
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with stand_in(request.param, "pycuda", monkeypatch):
        yield request.param


def half(folder: Path) -> Path:
    """A graph whose one stored tensor is FP16, cast where it is used: typed by whoever wrote it."""
    model = onnx.load(GRAPH)
    bias = next(each for each in model.graph.initializer if each.name == "bias")
    stored = numpy_helper.from_array(numpy_helper.to_array(bias).astype(np.float16), "bias_half")
    model.graph.initializer.remove(bias)
    model.graph.initializer.append(stored)
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["bias_half"], ["bias"], "cast", to=1))
    path = folder / "half.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("version", WEAK, indirect=True)
def test_a_quantised_graph_is_built_weakly_with_int8_and_fp16(version: str, tmp_path: Path) -> None:
    header, asked = build(quantised(tmp_path), tmp_path)
    assert {"INT8", "FP16"} <= set(asked["flags"])
    assert asked["strongly_typed"] is False
    assert header.build["precision"]["flags"] == ["INT8", "FP16"]
    assert "--int8 --fp16" in header.build["trtexec"]
    _, plain = build(quantised(tmp_path), tmp_path, float_type="fp32")
    assert "INT8" in plain["flags"]
    assert not {"FP16", "TF32"} & set(plain["flags"])


@pytest.mark.parametrize("version", WEAK, indirect=True)
def test_a_candidate_called_fp32_is_computed_in_fp32(version: str, tmp_path: Path) -> None:
    header, asked = build(GRAPH, tmp_path)
    assert not {"INT8", "FP16", "TF32"} & set(asked["flags"])
    assert "--noTF32" in header.build["trtexec"]
    assert header.build["layers"]["shares"]["int8"] == 0


@pytest.mark.parametrize("version", ["11.4.0.106"], indirect=True)
def test_from_eleven_on_types_come_from_the_graph(version: str, tmp_path: Path) -> None:
    listener = Listener()
    header, asked = build(quantised(tmp_path), tmp_path, listener)
    assert asked["strongly_typed"] is True
    assert asked["flags"] == []
    assert any("FP32" in note for note in listener.notes)
    assert not {"--int8", "--fp16", "--stronglyTyped"} & set(header.build["trtexec"].split())
    with pytest.raises(UnavailableError, match="weakly"):
        build(GRAPH, tmp_path, typing="weak")
    with pytest.raises(BadInputError) as raised:
        build(GRAPH, tmp_path, float_type="fp16")
    assert "model.fp16.onnx" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("version", "strong"), [(each, each.startswith(("10.13", "10.16"))) for each in WEAK], indirect=["version"]
)
def test_strong_typing_is_used_for_typed_graphs_from_10_12_on(version: str, strong: bool, tmp_path: Path) -> None:
    header, asked = build(half(tmp_path), tmp_path)
    assert asked["strongly_typed"] is strong
    assert ("FP16" in asked["flags"]) is not strong
    assert ("--stronglyTyped" in header.build["trtexec"]) is strong
    if strong:
        assert build(GRAPH, tmp_path, typing="strong")[1]["strongly_typed"] is True
    else:
        with pytest.raises(UnavailableError) as raised:
            build(GRAPH, tmp_path, typing="strong")
        assert "10.12" in str(raised.value.expected)


def test_layers_that_fall_back_are_named_with_their_module(machine: FakeMachine, tmp_path: Path) -> None:
    listener = Listener()
    header, _ = build(quantised(tmp_path), tmp_path, listener)
    assert header.build["layers"]["fell_back"]["count"] == 0
    assert header.build["layers"]["by_precision"]["int8"] == 1
    assert listener.notes[0].startswith(NEVER_RUN)
    machine.faults = Faults(fallback_layers=("conv",))
    header, _ = build(quantised(tmp_path), tmp_path, listener)
    assert header.build["layers"]["fell_back"]["names"] == ["Conv 'conv' of module 'features.0'"]
    assert any("features.0" in note for note in listener.notes)


def test_what_the_parser_refuses_is_told_by_node_and_module(machine: FakeMachine, tmp_path: Path) -> None:
    graph = quantised(tmp_path)
    index = next(index for index, node in enumerate(quantised_graph().graph.node) if node.name == "conv")
    machine.faults = Faults(parser=(ParserFault(index, "Assertion failed: no such thing"),))
    with pytest.raises(BadInputError) as raised:
        build(graph, tmp_path)
    assert "Conv 'conv' of module 'features.0': Assertion failed: no such thing" in str(raised.value.found)
    assert not (tmp_path / "engine.plan").exists()


def test_many_refusals_are_counted(machine: FakeMachine, tmp_path: Path) -> None:
    machine.faults = Faults(parser=tuple(ParserFault(index) for index in range(5)))
    with pytest.raises(BadInputError) as raised:
        build(quantised(tmp_path), tmp_path)
    assert "and 2 more" in str(raised.value.found)


@pytest.mark.parametrize(
    ("faults", "error", "words"),
    [
        (Faults(build_memory=AGX_ORIN_64.memory), UnavailableError, "memory"),
        (Faults(build_fails="Error Code 10: Could not find any implementation for node conv"), BadInputError, "conv"),
        (Faults(null_factory=True), UnavailableError, "builder"),
        (Faults(driver="cudaErrorNoDevice"), UnavailableError, "CUDA"),
    ],
)
def test_a_build_that_comes_to_nothing_says_why(
    machine: FakeMachine, tmp_path: Path, faults: Faults, error: type[EdgekitError], words: str
) -> None:
    machine.faults = faults
    with pytest.raises(error) as raised:
        build(GRAPH, tmp_path)
    assert words in str(raised.value)
    assert raised.value.hint
    assert not list(tmp_path.glob("engine*"))
    machine.faults = Faults()


def test_skipped_kernels_are_counted_and_told(machine: FakeMachine, tmp_path: Path) -> None:
    listener = Listener()
    machine.faults = Faults(skipped_tactics=3)
    header, _ = build(GRAPH, tmp_path, listener)
    assert header.build["skipped_tactics"] == 3
    assert any("3 kernels" in note for note in listener.notes)


@pytest.mark.parametrize("version", VERSIONS, indirect=True)
def test_progress_is_passed_on_where_the_version_tells_it(version: str, tmp_path: Path) -> None:
    listener = Listener()
    build(GRAPH, tmp_path, listener)
    if version.startswith("8"):
        assert not listener.steps
        return
    tasks = {task for task, *_ in listener.steps}
    assert tasks == {"TensorRT: Building Engine"}
    assert all(total is not None and done <= total for _, done, total, _ in listener.steps)
    assert {detail for *_, detail in listener.steps} > {"Computing profile costs"}


class Impatient(Listener):
    """Presses Ctrl-C at the third event."""

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        super().advanced(task, done, total, detail)
        if len(self.steps) == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106"], indirect=True)
def test_an_interrupt_ends_the_build_and_not_the_library(version: str, tmp_path: Path) -> None:
    listener = Impatient()
    with pytest.raises(KeyboardInterrupt):
        build(GRAPH, tmp_path, listener)
    assert len(listener.steps) < 6
    assert not (tmp_path / "engine.plan").exists()
    build(GRAPH, tmp_path)


def test_a_cache_of_times_is_kept_and_used(machine: FakeMachine, tmp_path: Path) -> None:
    folder = tmp_path / "times"
    states = [build(GRAPH, tmp_path, timing_cache=folder)[0].build["timing_cache"] for _ in range(2)]
    assert states == ["new", "used"]
    (stored,) = folder.glob("*.timing")
    assert "sm8.7" in stored.name
    assert "Orin-16" in stored.name
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-3] + b"xyz")
    header, _ = build(GRAPH, tmp_path, timing_cache=folder)
    assert "damaged" in header.build["timing_cache"]
    assert stored.read_bytes() == whole
    assert build(GRAPH, tmp_path)[0].build["timing_cache"] == "none"


def test_a_cache_that_cannot_be_written_costs_no_build(machine: FakeMachine, tmp_path: Path) -> None:
    (tmp_path / "times").write_text("a file")
    header, _ = build(GRAPH, tmp_path, timing_cache=tmp_path / "times")
    assert "not kept" in header.build["timing_cache"]


@pytest.mark.parametrize("version", VERSIONS, indirect=True)
def test_every_option_is_used_or_refused(version: str, tmp_path: Path) -> None:
    old = version == "8.5.2"
    for options, words in (
        ({"optimisation_level": 4}, "--builderOptimizationLevel=4"),
        ({"aux_streams": 2}, "--maxAuxStreams=2"),
        ({"version_compatible": True}, "--versionCompatible"),
    ):
        if old:
            with pytest.raises(UnavailableError) as raised:
                build(GRAPH, tmp_path, **options)
            assert "8.5.2" in str(raised.value.found)
        else:
            assert words in build(GRAPH, tmp_path, **options)[0].build["trtexec"]
    header, asked = build(GRAPH, tmp_path, sparsity=True, tactic_sources=("JIT_CONVOLUTIONS",), workspace=1 << 27)
    assert "SPARSE_WEIGHTS" in asked["flags"]
    assert bin(asked["tactic_sources"]).count("1") == 1
    assert header.build["pools"]["workspace"] == 1 << 27
    assert asked["profiling_verbosity"] == "DETAILED"
    assert {"--sparsity=enable", "--tacticSources=+JIT_CONVOLUTIONS"} <= set(header.build["trtexec"].split())
    with pytest.raises(BadInputError) as unknown:
        build(GRAPH, tmp_path, tactic_sources=("CUSPARSE",))
    assert "JIT_CONVOLUTIONS" in str(unknown.value.expected)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"typing": "loose"}, "typing"),
        ({"float_type": "fp64"}, "float_type"),
        ({"batches": (2, 1, 4)}, "batches"),
        ({"batches": (0, 1, 4)}, "batches"),
        ({"optimisation_level": 6}, "optimisation_level"),
        ({"aux_streams": -1}, "aux_streams"),
        ({"workspace": -1}, "workspace"),
        ({"dla_core": -1}, "dla_core"),
        ({"scales": Path("a"), "calibration_cache": Path("b")}, "scales"),
        ({"hardware_compatible": "all"}, "hardware_compatible"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, Any], name: str) -> None:
    with pytest.raises(BadInputError, match=name):
        BuildOptions(**options)


def test_plans_for_other_gpus_are_for_discrete_ones(machine: FakeMachine, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        build(GRAPH, tmp_path, hardware_compatible="ampere+")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_discrete_gpu_builds_for_others(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in(version, "pycuda", monkeypatch, FakeMachine(RTX_3090)):
        if version == "8.5.2":
            with pytest.raises(UnavailableError):
                build(GRAPH, tmp_path, hardware_compatible="ampere+")
            return
        header, asked = build(GRAPH, tmp_path, hardware_compatible="ampere+")
        assert asked["hardware_compatibility_level"] == "AMPERE_PLUS"
        assert header.build["pools"]["tactic_dram"] is None


def test_a_graph_with_another_free_size_is_refused(machine: FakeMachine, tmp_path: Path) -> None:
    model = onnx.load(GRAPH)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    path = tmp_path / "free.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadInputError):
        build(path, tmp_path)


def test_too_little_memory_is_refused_before_the_build(machine: FakeMachine, tmp_path: Path) -> None:
    machine.memory.reserved = machine.device.memory - (200 << 20)
    with pytest.raises(UnavailableError, match="too little free memory"):
        build(GRAPH, tmp_path)


def test_the_header_is_json_without_folders(machine: FakeMachine, tmp_path: Path) -> None:
    header, _ = build(quantised(tmp_path), tmp_path, timing_cache=tmp_path / "times")
    text = json.dumps(header.to_dict())
    assert str(tmp_path) not in text
    assert json.loads(text)["build"]["layers"]["count"] > 3
