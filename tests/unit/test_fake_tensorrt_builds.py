"""What the fake builder takes, refuses and writes down, in each version."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda.devices import RTX_3090
from fake_cuda.faults import ParserFault
from fake_cuda.machine import FakeMachine
from fake_tensorrt import VERSIONS, make_tensorrt
from fake_tensorrt.driving import build, open_plan, parse
from fake_tensorrt.graphs import BROKEN_RULES, float_graph, quantised_graph
from onnx import TensorProto, helper

WEAK = VERSIONS[:-1]
WITH_MONITOR = VERSIONS[2:]
WITH_STRONG_TYPING = VERSIONS[2:]


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest, machine: FakeMachine) -> Any:
    return make_tensorrt(request.param, machine)


@pytest.fixture(params=WEAK)
def weak(request: pytest.FixtureRequest, machine: FakeMachine) -> Any:
    return make_tensorrt(request.param, machine)


@pytest.fixture(params=WITH_STRONG_TYPING)
def strong(request: pytest.FixtureRequest, machine: FakeMachine) -> Any:
    return make_tensorrt(request.param, machine)


def refused_build(trt: Any, model: Any, configure: Any = None, strongly_typed: bool = False) -> str:
    built = build(trt, model, configure, strongly_typed=strongly_typed)
    assert built.plan is None
    errors = [message for severity, message in built.logger.lines if severity == "ERROR"]
    assert len(errors) == 1
    return str(errors[0])


# The parser


def test_the_parser_reads_names_types_and_shapes(trt: Any) -> None:
    network = parse(trt, quantised_graph())[0].network
    image, chosen = network.get_input(0), network.get_output(1)
    assert (image.name, tuple(image.shape), image.dtype) == ("image", (-1, 3, 6, 6), trt.float32)
    assert (chosen.name, tuple(chosen.shape), chosen.dtype) == ("chosen", (-1,), trt.int32)
    assert (image.is_network_input, chosen.is_network_output) == (True, True)
    assert network.get_input(2) is None
    kinds = [network.get_layer(at).type.name for at in range(network.num_layers)]
    assert kinds[:5] == ["QUANTIZE", "DEQUANTIZE", "QUANTIZE", "DEQUANTIZE", "CONVOLUTION"]
    assert network.get_layer(4).name == "conv"
    assert network.get_layer(4).get_input(0) is network.get_layer(1).get_output(0)


@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_the_parser_refuses_what_breaks_a_rule_of_quantisation(trt: Any, rule: str) -> None:
    built, accepted = parse(trt, quantised_graph(rule))
    assert not accepted
    assert any(BROKEN_RULES[rule] in built.parser.get_error(at).desc() for at in range(built.parser.num_errors))
    assert BROKEN_RULES[rule] in built.logger.text()
    built.parser.clear_errors()
    assert built.parser.num_errors == 0


def test_a_parser_error_names_the_node_as_far_as_the_version_knows(trt: Any, machine: FakeMachine) -> None:
    machine.faults.parser = (ParserFault(1, "no such thing", "INVALID_NODE"),)
    built, accepted = parse(trt, float_graph())
    assert not accepted
    error = built.parser.get_error(0)
    assert (error.node(), error.desc(), error.code()) == (1, "no such thing", trt.ErrorCode.INVALID_NODE)
    if trt.__version__.startswith("8."):
        with pytest.raises(AttributeError):
            error.node_name()
    else:
        assert (error.node_name(), error.node_operator()) == ("relu", "Relu")


@pytest.mark.parametrize("keep", [0, 1, 200])
def test_a_graph_that_is_cut_short_is_refused(trt: Any, keep: int) -> None:
    built, accepted = parse(trt, float_graph().SerializeToString()[:keep])
    assert not accepted
    assert built.parser.num_errors == 1
    assert built.parser.get_error(0).node() == -1


def test_files_are_read_and_missing_ones_are_errors(trt: Any, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(float_graph().SerializeToString())
    logger = trt.Logger(trt.Logger.Severity.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    flags = 1 if trt.__version__.startswith("8.") else 0
    parser = trt.OnnxParser(builder.create_network(flags), logger)
    assert parser.parse_from_file(str(path))
    assert not trt.OnnxParser(builder.create_network(flags), logger).parse_from_file(str(tmp_path / "none"))
    with pytest.raises(TypeError):
        parser.parse_from_file(path)


def test_operators_without_support_are_refused(trt: Any) -> None:
    model = float_graph()
    model.graph.node.append(helper.make_node("Det", ["square"], ["determinant"], "det"))
    model.graph.initializer.append(helper.make_tensor("square", TensorProto.FLOAT, [2, 2], [1, 0, 0, 1]))
    built, accepted = parse(trt, model)
    assert not accepted
    assert built.parser.get_error(0).node() == len(model.graph.node) - 1
    assert not built.parser.supports_operator("Det")
    assert built.parser.supports_operator("Conv")


def test_networks_of_8_need_the_flag_of_an_explicit_batch() -> None:
    trt = make_tensorrt("8.6.1")
    logger = trt.Logger(trt.Logger.Severity.INTERNAL_ERROR)
    parser = trt.OnnxParser(trt.Builder(logger).create_network(0), logger)
    assert not parser.parse(float_graph().SerializeToString())
    assert "explicit batch" in parser.get_error(0).desc()


# Precision and shapes


@pytest.mark.parametrize("graph", [float_graph, quantised_graph])
def test_a_plan_answers_what_onnx_runtime_answers(trt: Any, machine: FakeMachine, graph: Any) -> None:
    import onnxruntime

    model = graph()
    feeds = {
        "image": np.random.default_rng(5).normal(size=(3, 3, 6, 6)).astype(np.float32),
        "class_index": np.array([-1, 2, 0], np.int32),
    }
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    opened = open_plan(trt, machine, build(trt, model).plan)
    answers = opened.run(feeds)
    for name, expected in zip(("logits", "chosen"), session.run(["logits", "chosen"], feeds), strict=True):
        np.testing.assert_allclose(answers[name], expected, rtol=1e-5, atol=1e-6)
    opened.close()
    assert (machine.leaks(), machine.misuses) == ({}, [])


def test_quantisation_needs_its_flag_where_types_are_weak(weak: Any) -> None:
    assert "INT8" in refused_build(weak, quantised_graph(), lambda trt, config: config.clear_flag(trt.BuilderFlag.INT8))


def test_strong_types_take_no_flags() -> None:
    for version in VERSIONS[2:-1]:
        trt = make_tensorrt(version)
        told = refused_build(
            trt, quantised_graph(), lambda trt, c: c.set_flag(trt.BuilderFlag.FP16), strongly_typed=True
        )
        assert "strongly typed" in told


def test_a_half_precision_graph_builds_where_it_is_strongly_typed(strong: Any, machine: FakeMachine) -> None:
    opened = open_plan(strong, machine, build(strong, float_graph(half=True), strongly_typed=True).plan)
    image = np.ones((2, 3, 6, 6), np.float16)
    answers = opened.run({"image": image, "class_index": np.zeros(2, np.int32)})
    assert answers["logits"].dtype == np.float16
    opened.close()


def test_a_half_precision_graph_needs_its_flag_where_types_are_weak(weak: Any) -> None:
    told = refused_build(weak, float_graph(half=True), lambda trt, config: config.clear_flag(trt.BuilderFlag.FP16))
    assert "FP16" in told


def test_dynamic_inputs_need_a_profile(trt: Any) -> None:
    built = parse(trt, float_graph())[0]
    assert built.builder.build_serialized_network(built.network, built.config) is None
    assert "no optimization profile has been defined" in built.logger.text()
    assert not built.builder.is_network_supported(built.network, built.config)


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [("image", (1, 3, 6, 6), "class_index"), ("image", (1, 3, 7, 6), "network has"), ("other", (1,), "no input")],
)
def test_profiles_have_to_fit_the_network(trt: Any, name: str, shape: tuple[int, ...], told: str) -> None:
    built = parse(trt, float_graph())[0]
    profile = built.builder.create_optimization_profile()
    profile.set_shape(name, shape, shape, shape)
    assert [tuple(each) for each in profile.get_shape(name)] == [shape] * 3
    built.config.add_optimization_profile(profile)
    assert built.builder.build_serialized_network(built.network, built.config) is None
    assert told in built.logger.text()


def test_profiles_have_an_order(trt: Any) -> None:
    profile = trt.Builder(trt.Logger()).create_optimization_profile()
    with pytest.raises(RuntimeError, match="inconsistent"):
        profile.set_shape("image", (4, 3), (2, 3), (8, 3))
    with pytest.raises(TypeError):
        profile.set_shape("image", (1, 3), (2, 3))


def test_fixed_shapes_need_no_profile(trt: Any, machine: FakeMachine) -> None:
    built = parse(trt, float_graph(batch=2))[0]
    plan = built.builder.build_serialized_network(built.network, built.config)
    opened = open_plan(trt, machine, plan)
    assert [tuple(each) for each in opened.engine.get_tensor_profile_shape("image", 0)] == [(2, 3, 6, 6)] * 3
    assert opened.engine.num_optimization_profiles == 1
    opened.close()


def test_an_empty_network_is_no_engine(trt: Any) -> None:
    builder = trt.Builder(trt.Logger(trt.Logger.Severity.INTERNAL_ERROR))
    assert builder.build_serialized_network(builder.create_network(0), builder.create_builder_config()) is None


# Settings


def test_settings_are_kept_or_refused(trt: Any) -> None:
    built = parse(trt, float_graph())[0]
    config, pool = built.config, trt.MemoryPoolType
    config.set_memory_pool_limit(pool.WORKSPACE, 1 << 28)
    assert config.get_memory_pool_limit(pool.WORKSPACE) == 1 << 28
    config.set_memory_pool_limit(pool.DLA_MANAGED_SRAM, 5000)
    assert config.get_memory_pool_limit(pool.DLA_MANAGED_SRAM) == 1 << 20
    assert "DLA_MANAGED_SRAM" in built.logger.text()
    assert not config.set_tactic_sources(1 << 20)
    assert config.set_tactic_sources(1 << int(trt.TacticSource.JIT_CONVOLUTIONS))
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    assert config.get_flag(trt.BuilderFlag.GPU_FALLBACK)
    assert not config.get_flag(trt.BuilderFlag.REFIT)
    if hasattr(config, "builder_optimization_level"):
        config.builder_optimization_level = 9
        assert config.builder_optimization_level == 3
        config.max_aux_streams = 2
        assert config.max_aux_streams == 2
    config.reset()
    assert not config.get_flag(trt.BuilderFlag.GPU_FALLBACK)


def test_a_timing_cache_is_filled_stored_and_read(trt: Any) -> None:
    def with_cache(data: Any) -> Any:
        def configure(trt: Any, config: Any) -> None:
            assert config.set_timing_cache(config.create_timing_cache(data), False)

        return configure

    first = build(trt, float_graph(), with_cache(b""))
    stored = bytes(first.config.get_timing_cache().serialize())
    again = build(trt, float_graph(), with_cache(stored))
    assert bytes(again.config.get_timing_cache().serialize()) == stored
    assert stored != bytes(first.config.create_timing_cache(b"").serialize())
    empty, full = first.config.create_timing_cache(b""), first.config.create_timing_cache(stored)
    assert empty.combine(full, False)
    assert bytes(empty.serialize()) == stored
    assert full.reset()
    assert not full.combine(full, True)


def test_a_timing_cache_of_another_device_is_not_used(trt: Any) -> None:
    foreign = make_tensorrt(next(v for v in VERSIONS if trt.__version__.startswith(v)), FakeMachine(RTX_3090))
    stored = bytes(parse(foreign, float_graph())[0].config.create_timing_cache(b"").serialize())
    built = parse(trt, float_graph())[0]
    cache = built.config.create_timing_cache(stored)
    assert not built.config.set_timing_cache(cache, False)
    assert built.config.get_timing_cache() is None
    assert built.config.set_timing_cache(cache, True)


def test_a_broken_timing_cache_is_a_warning(trt: Any) -> None:
    built = parse(trt, float_graph())[0]
    assert built.config.create_timing_cache(b"nonsense") is not None
    assert ("WARNING", "Magic tag does not match. Timing cache will not be used.") in built.logger.lines


def test_level_zero_leaves_the_timing_cache_alone() -> None:
    trt = make_tensorrt("10.3.0")

    def configure(trt: Any, config: Any) -> None:
        config.builder_optimization_level = 0
        config.set_timing_cache(config.create_timing_cache(b""), False)

    built = build(trt, float_graph(), configure)
    assert bytes(built.config.get_timing_cache().serialize()) == bytes(
        built.config.create_timing_cache(b"").serialize()
    )


# Faults


def test_a_build_can_fail(trt: Any, machine: FakeMachine) -> None:
    machine.faults.build_fails = "Error Code 10: Internal Error (Could not find any implementation for node conv.)"
    assert "Could not find any implementation" in refused_build(trt, float_graph())


def test_a_build_can_run_out_of_memory(trt: Any, machine: FakeMachine) -> None:
    machine.faults.build_memory = machine.device.memory
    assert "OutOfMemory" in refused_build(trt, float_graph())


def test_memory_that_something_else_has_taken_counts(trt: Any, machine: FakeMachine) -> None:
    machine.memory.reserved = machine.device.memory
    assert "OutOfMemory" in refused_build(trt, float_graph())


def test_skipped_tactics_are_warnings(trt: Any, machine: FakeMachine) -> None:
    machine.faults.skipped_tactics = 2
    built = build(trt, float_graph())
    assert built.plan is not None
    assert built.logger.text().count("Skipping tactic") == 2


def watched_by(monitor: Any) -> Any:
    def configure(trt: Any, config: Any) -> None:
        config.progress_monitor = monitor

    return configure


@pytest.mark.parametrize("version", WITH_MONITOR)
def test_a_monitor_sees_phases_and_can_end_a_hanging_build(version: str, machine: FakeMachine) -> None:
    trt = make_tensorrt(version, machine)

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self, patience: int) -> None:
            trt.IProgressMonitor.__init__(self)
            self.told: list[Any] = []
            self.patience = patience

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.told.append(("start", phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.told.append(("step", phase_name, step))
            return step < self.patience

        def phase_finish(self, phase_name: str) -> None:
            self.told.append(("finish", phase_name))

    patient = Monitor(99)
    assert build(trt, float_graph(), watched_by(patient)).plan is not None
    assert [each[0] for each in patient.told].count("start") == [each[0] for each in patient.told].count("finish") == 2
    machine.faults.hang_build = 0.5
    before = time.monotonic()
    impatient = Monitor(-1)
    assert "Cancelled" in refused_build(trt, float_graph(), watched_by(impatient))
    assert time.monotonic() - before < 0.5


def test_a_monitor_that_answers_nothing_or_raises_ends_the_build(machine: FakeMachine) -> None:
    trt = make_tensorrt("10.3.0", machine)

    class Silent(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def step_complete(self, phase_name: str, step: int) -> None:
            return None

    class Raising(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def step_complete(self, phase_name: str, step: int) -> bool:
            raise KeyError("boom")

    for monitor in (Silent(), Raising()):
        assert "Cancelled" in refused_build(trt, float_graph(), watched_by(monitor))
    assert sum("step_complete(): KeyError" in each for each in machine.misuses) == 1


@pytest.mark.parametrize("fault", ["null_factory", "driver"])
def test_factories_fail_as_pybind_fails(trt: Any, machine: FakeMachine, fault: str) -> None:
    setattr(machine.faults, fault, "cudaErrorInsufficientDriver" if fault == "driver" else True)
    for factory in (trt.Builder, trt.Runtime):
        with pytest.raises(TypeError, match="factory function returned nullptr"):
            factory(trt.Logger(trt.Logger.Severity.INTERNAL_ERROR))
