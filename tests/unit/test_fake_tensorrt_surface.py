"""The fake `tensorrt` of each version offers the names, signatures and numbers of the genuine bindings, no other."""

from __future__ import annotations

import inspect
import runpy
from typing import Any

import numpy as np
import pytest
from fake_cuda.machine import FakeMachine
from fake_tensorrt import VERSIONS, make_tensorrt
from fake_tensorrt.api import ASSETS, load_dump
from fake_tensorrt.driving import build, open_plan, parse
from fake_tensorrt.graphs import float_graph
from fake_tensorrt.module import FUNCTIONS
from fake_tensorrt.signatures import bind, parse_signature
from fake_tensorrt.surface import INTERFACES

NEWEST = VERSIONS[-1]


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def trt(version: str) -> Any:
    return make_tensorrt(version)


@pytest.fixture
def dump(version: str) -> dict[str, Any]:
    return load_dump(version)


def public(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def object_classes(dump: dict[str, Any]) -> dict[str, Any]:
    return {name: spec for name, spec in dump["classes"].items() if "enum" not in spec}


def test_the_module_offers_the_names_of_the_dump(trt: Any, dump: dict[str, Any]) -> None:
    assert public(trt) == {*dump["classes"], *dump["constants"], *dump["functions"]}
    assert set(FUNCTIONS) == set(dump["functions"])
    assert trt.__version__ == dump["about"]["version"]


def test_enums_have_the_members_and_numbers_of_the_dump(trt: Any, dump: dict[str, Any]) -> None:
    enums = {name: spec["enum"] for name, spec in dump["classes"].items() if "enum" in spec}
    assert len(enums) >= 17
    for name, members in enums.items():
        found = getattr(trt, name)
        assert {member: int(value) for member, value in found.__members__.items()} == members
        assert public(found) == {*members, "name", "value"}


def test_classes_offer_the_names_of_the_dump(trt: Any, dump: dict[str, Any]) -> None:
    classes = object_classes(dump)
    for name, spec in classes.items():
        expected: set[str] = set()
        for owner in (name, *spec.get("bases", ())):
            for part in ("methods", "properties", "constants", "nested"):
                expected |= set(classes[owner].get(part, ()))
        # Host memory is made of bytes, whose names only its objects hide.
        found = trt.IHostMemory(b"") if name == "IHostMemory" else getattr(trt, name)
        offered = {each for each in public(found) if hasattr(found, each)}
        assert offered == {each for each in expected if not each.startswith("_")}, name


def test_properties_are_as_writable_as_in_the_dump(trt: Any, dump: dict[str, Any]) -> None:
    checked = 0
    for name, spec in object_classes(dump).items():
        for attribute, access in spec.get("properties", {}).items():
            found = getattr(trt, name).__dict__[attribute]
            assert (found.fset is not None) == ("set" in access), f"{name}.{attribute}"
            checked += 1
    assert checked > 60


def test_methods_take_the_arguments_of_the_dump(trt: Any, dump: dict[str, Any]) -> None:
    checked = 0
    for name, spec in object_classes(dump).items():
        for method, texts in spec.get("methods", {}).items():
            for text in [texts] if isinstance(texts, str) else texts:
                overload = parse_signature(text)
                values = {each.name: object() for each in overload.parameters}

                def anything(kind: str, value: Any) -> bool:
                    return True

                def keep(kind: str, spelling: str) -> Any:
                    return spelling

                assert bind((overload,), tuple(values.values()), {}, anything, keep) == tuple(values.values())
                assert bind((overload,), (*values.values(), 1), {}, anything, keep) is None
                assert bind((overload,), tuple(values.values()), {"no_such_name": 1}, anything, keep) is None
                if not any(each.startswith("arg") for each in values):
                    assert bind((overload,), (), values, anything, keep) == tuple(values.values())
                needed = [each for each in overload.parameters if each.default is None]
                if needed:
                    fewer = {key: value for key, value in values.items() if key != needed[-1].name}
                    assert bind((overload,), (), fewer, anything, keep) is None
                checked += 1
            if name not in ("Dims",):
                blank = getattr(trt, name).__new__(getattr(trt, name))
                with pytest.raises(TypeError, match="incompatible"):
                    getattr(blank, method)(no_such_name=1)
    assert checked > 90


def test_everything_that_is_offered_does_something(trt: Any, version: str, dump: dict[str, Any]) -> None:
    built = build(trt, float_graph())
    machine = FakeMachine()
    module = make_tensorrt(version, machine)
    opened = open_plan(module, machine, built.plan)
    refused, accepted = parse(module, b"no graph")
    assert not accepted
    config = built.config
    cache = config.create_timing_cache(b"")
    objects = [
        *(built.builder, config, built.network, built.parser, built.network.get_input(0), built.network.get_layer(0)),
        *(built.builder.create_optimization_profile(), cache, built.plan, refused.parser.get_error(0)),
        *(opened.runtime, opened.engine, opened.context, opened.engine.create_engine_inspector(), trt.Logger()),
    ]
    if hasattr(opened.engine, "create_serialization_config"):
        objects.append(opened.engine.create_serialization_config())
    classes = object_classes(dump)
    assert {type(each).__name__ for each in objects} == set(classes) - set(INTERFACES) - {"Dims"}
    for each in objects:
        spec = classes[type(each).__name__]
        for method, texts in spec.get("methods", {}).items():
            for text in [texts] if isinstance(texts, str) else texts:
                if method != "__init__":
                    # Every overload of the dump reaches what is behind it.
                    count = len(parse_signature(text).parameters)
                    inspect.signature(getattr(each._fake, method)).bind(*range(count))
        for attribute, access in spec.get("properties", {}).items():
            value = getattr(each, attribute)
            if "set" in access and (value is not None or access["set"].startswith("I")):
                setattr(each, attribute, value)
                assert getattr(each, attribute) is value or access["get"] == "Dims" or getattr(each, attribute) == value
    opened.close()


def test_the_oldest_version_is_the_next_less_what_its_sources_lack() -> None:
    script = runpy.run_path(str(ASSETS / "trim.py"))
    older = script["without"](load_dump("8.6.1"), script["ABSENT_IN_8_5"])
    assert {**older, "about": {}} == {**load_dump("8.5.2"), "about": {}}
    assert load_dump("8.5.2")["about"] == {"derived_from": "8.6.1", "version": "8.5.2.2", "wheel": ""}
    with pytest.raises(KeyError):
        script["without"](older, ("ILayer.metadata",))


def test_trimming_again_changes_nothing(dump: dict[str, Any]) -> None:
    script = runpy.run_path(str(ASSETS / "trim.py"))
    again = script["trimmed"](dump)
    assert {**again, "about": {}} == {**dump, "about": {}}
    assert {name for name in script["KEPT"] if name not in dump["classes"]} <= {
        *("IInt8Calibrator", "IInt8EntropyCalibrator2", "IInt8MinMaxCalibrator"),
        *("IProgressMonitor", "ISerializationConfig"),
    }


# By version: 8.5.2, 8.6.1, 10.3, 10.13, 10.16, 11.4.
PRESENT = {
    "BuilderFlag.INT8": "111110",
    "BuilderFlag.FP16": "111110",
    "BuilderFlag.VERSION_COMPATIBLE": "011111",
    "BuilderFlag.STRIP_PLAN": "001111",
    "DataType.INT64": "001111",
    "HardwareCompatibilityLevel": "011111",
    "IBuilderConfig.builder_optimization_level": "011111",
    "IBuilderConfig.int8_calibrator": "111110",
    "IBuilderConfig.max_aux_streams": "011111",
    "IBuilderConfig.progress_monitor": "001111",
    "IBuilderConfig.max_workspace_size": "000000",
    "ICudaEngine.device_memory_size": "111110",
    "ICudaEngine.device_memory_size_v2": "001111",
    "ICudaEngine.num_bindings": "000000",
    "IExecutionContext.execute_async_v3": "111111",
    "IExecutionContext.execute_async_v2": "000000",
    "IInt8EntropyCalibrator2": "111110",
    "ILayer.metadata": "011111",
    "ILayer.precision": "111110",
    "IProgressMonitor": "001111",
    "ITensor.set_dynamic_range": "111110",
    "MemoryPoolType.TACTIC_DRAM": "011111",
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": "111110",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": "001111",
    "OnnxParser.set_builder_config": "000011",
    "OnnxParserFlag": "011111",
    "ParserError.node_name": "001111",
    "Builder.platform_has_fast_int8": "111110",
    "QuantizationFlag": "111110",
}


@pytest.mark.parametrize("name", PRESENT)
@pytest.mark.parametrize(("position", "version"), tuple(enumerate(VERSIONS)))
def test_what_came_and_went_with_versions(name: str, position: int, version: str) -> None:
    found: Any = make_tensorrt(version)
    *owners, last = name.split(".")
    for part in owners:
        found = getattr(found, part)
    assert hasattr(found, last) is (PRESENT[name][position] == "1")


def test_numbers_of_members_move() -> None:
    moved = {version: int(make_tensorrt(version).BuilderFlag.SPARSE_WEIGHTS) for version in VERSIONS}
    assert set(moved.values()) == {7, 8}
    typed = [int(make_tensorrt(version).NetworkDefinitionCreationFlag.STRONGLY_TYPED) for version in VERSIONS[2:]]
    assert typed == [1, 1, 1, 0]


def test_members_are_neither_numbers_nor_walked_over(trt: Any) -> None:
    member = trt.DataType.INT8
    assert int(member) == 2
    assert member != 2
    assert member == trt.DataType(2)
    assert member != trt.TensorLocation(0)
    assert str(member) == "DataType.INT8"
    assert len({member, trt.int8}) == 1
    with pytest.raises(TypeError):
        1 << member
    with pytest.raises(TypeError):
        list(trt.DataType)
    with pytest.raises(AttributeError):
        member.value = 3
    with pytest.raises(ValueError, match="99"):
        trt.DataType(99)


def test_objects_take_no_attributes_that_the_version_lacks(trt: Any) -> None:
    config = parse(trt, float_graph())[0].config
    with pytest.raises(AttributeError):
        config.max_workspace_size = 1 << 30
    with pytest.raises(AttributeError):
        config.num_optimization_profiles = 3
    with pytest.raises(TypeError, match="No constructor"):
        trt.IBuilderConfig()


@pytest.mark.parametrize("bad", [1.5, True, "1", None])
def test_integers_are_integers(trt: Any, bad: Any) -> None:
    builder = trt.Builder(trt.Logger())
    with pytest.raises(TypeError, match="incompatible function arguments"):
        builder.create_network(bad)


def test_a_flags_number_is_no_mask() -> None:
    trt = make_tensorrt("10.3.0")
    with pytest.raises(TypeError, match="incompatible"):
        trt.Builder(trt.Logger()).create_network(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def test_dimensions_are_read_like_tuples_and_compared_with_care(trt: Any) -> None:
    dims = trt.Dims([1, 3, 4])
    assert tuple(dims) == (1, 3, 4)
    assert (len(dims), dims[1], dims[1:], dims.MAX_DIMS) == (3, 3, (3, 4), 8)
    assert dims == (1, 3, 4)
    assert dims == [1, 3, 4]
    assert dims != (1, 3)
    for other in (trt.Dims((1, 3, 4)), None):
        with pytest.raises(TypeError, match="__eq__"):
            assert dims == other
    with pytest.raises(ValueError, match="8"):
        trt.Dims(range(9))


def test_host_memory_is_a_buffer_and_no_bytes_object(trt: Any) -> None:
    plan = build(trt, float_graph()).plan
    assert plan.nbytes == len(bytes(plan)) == memoryview(plan).nbytes
    for use in (len, iter, lambda found: found[0], lambda found: found + b"", lambda found: found == b""):
        with pytest.raises(TypeError):
            use(plan)
    with pytest.raises(AttributeError):
        plan.decode()


def test_interfaces_have_to_be_initialised_and_implemented(trt: Any) -> None:
    class Forgetful(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            self.lines: list[str] = []

    with pytest.raises(TypeError, match="must be called when overriding __init__"):
        Forgetful()

    with pytest.raises(TypeError, match="incompatible"):
        trt.Builder(object())


def test_an_exception_ends_where_the_bindings_call(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    machine = FakeMachine()
    trt = make_tensorrt(version, machine)
    assert trt.IProfiler().report_layer_time("layer", 1.0) is None
    pure = 'report_layer_time(): Tried to call pure virtual function "IProfiler::report_layer_time"'

    class Raising(trt.ILogger):  # type: ignore[misc, name-defined]
        def log(self, severity: Any, msg: str) -> None:
            raise KeyError("boom")

    assert not trt.OnnxParser(trt.Builder(Raising()).create_network(1), Raising()).parse(b"no graph")
    told = [f"Exception caught in {pure}", "Exception caught in log(): KeyError: 'boom'"]
    assert [line.removeprefix("[ERROR] ") for line in capsys.readouterr().err.splitlines()] == told
    assert machine.misuses == [each.replace("Exception caught", "an exception ends") for each in told]


def test_objects_of_the_bindings_take_no_attributes_and_derived_ones_do(trt: Any) -> None:
    class Mine(trt.ILogger):  # type: ignore[misc]
        pass

    Mine().lines = []
    for each in (trt.Logger(), trt.ILogger()):
        with pytest.raises(AttributeError):
            each.lines = []


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_calibrators_know_their_algorithm(version: str) -> None:
    trt = make_tensorrt(version)

    class Mine(trt.IInt8EntropyCalibrator2):  # type: ignore[misc, name-defined]
        pass

    assert Mine().get_algorithm() == trt.CalibrationAlgoType.ENTROPY_CALIBRATION_2
    assert isinstance(Mine(), trt.IInt8Calibrator)


def test_types_of_numpy(trt: Any) -> None:
    assert trt.nptype(trt.float32) is np.float32
    assert trt.nptype(trt.DataType.INT32) is np.int32
    assert trt.volume((2, 3, 4)) == 24
    assert trt.init_libnvinfer_plugins(trt.Logger(), "")
    with pytest.raises(TypeError):
        trt.init_libnvinfer_plugins(trt.Logger())


def test_a_version_without_a_dump_is_refused() -> None:
    with pytest.raises(ValueError, match=r"9\.0"):
        make_tensorrt("9.0")
