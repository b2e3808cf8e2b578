"""The fake pycuda and cuda-python: the genuine names, the genuine ways of failing, one machine behind both."""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fake_cuda.cuda_python import CODE_ONLY, GENERATIONS, load_names, make_cuda_python
from fake_cuda.cuda_runtime import RuntimeLibrary
from fake_cuda.devices import ORIN_NANO_8
from fake_cuda.errors import CODES
from fake_cuda.faults import Faults, ParserFault
from fake_cuda.machine import FakeMachine
from fake_cuda.pycuda_module import make_pycuda
from fake_tensorrt.children import child_environment
from fake_tensorrt.install import INTERFACES, MISSING_LIBRARIES, installed

WHEELS = sorted({wheel for wheel, _ in GENERATIONS.values()})


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine(ORIN_NANO_8)


@pytest.fixture
def driver(machine: FakeMachine) -> Iterator[Any]:
    module = make_pycuda(machine)[1]
    module.init()
    context = module.Device(0).retain_primary_context()
    context.push()
    yield module
    if machine.stack:
        module.Context.pop()
        context.detach()
    del context


@pytest.fixture(params=["12.9", "13"])
def runtime(request: pytest.FixtureRequest, machine: FakeMachine) -> ModuleType:
    return make_cuda_python(machine, request.param)["cuda.bindings.runtime"]


# cuda-python's names


@pytest.mark.parametrize("generation", GENERATIONS)
def test_names_of_cuda_python_are_those_of_the_wheel(generation: str, machine: FakeMachine) -> None:
    wheel, paths = GENERATIONS[generation]
    names, modules = load_names(wheel), make_cuda_python(machine, generation)
    offered = {*names["functions"], *names["enums"], *names["constants"], *names["handles"]}
    for path in paths:
        found = modules[path]
        assert {name for name in dir(found) if not name.startswith("_")} == offered


@pytest.mark.parametrize("wheel", WHEELS)
def test_every_function_takes_the_parameters_of_the_wheel(wheel: str) -> None:
    for name, parameters in load_names(wheel)["functions"].items():
        assert list(inspect.signature(getattr(RuntimeLibrary, name)).parameters) == ["self", *parameters]


@pytest.mark.parametrize("wheel", WHEELS)
def test_numbers_are_those_of_the_wheel(wheel: str, machine: FakeMachine) -> None:
    names = load_names(wheel)
    assert {name: names["enums"]["cudaError_t"][name] for name in CODES} == CODES
    assert set(vars(RuntimeLibrary(machine, 0).cudaGetDeviceProperties(0))) <= set(names["properties"])
    generation = next(key for key, (known, _) in GENERATIONS.items() if known == wheel)
    module = make_cuda_python(machine, generation)[GENERATIONS[generation][1][0]]
    for name, members in names["enums"].items():
        assert {each.name: int(each) for each in getattr(module, name)} == {
            key: value for key, value in members.items() if getattr(module, name)[key].name == key
        }


def test_the_old_path_warns_where_there_is_a_new_one(machine: FakeMachine) -> None:
    both: Any = make_cuda_python(machine, "12.9")["cuda.cudart"]
    with pytest.warns(FutureWarning, match="deprecated"):
        count = both.cudaGetDeviceCount
    assert count()[1] == 1
    alone: Any = make_cuda_python(machine, "12.6")["cuda.cudart"]
    assert alone.cudaGetDeviceCount()[1] == 1


# cuda-python's behaviour


def test_answers_begin_with_the_code(runtime: Any, machine: FakeMachine) -> None:
    success = runtime.cudaError_t.cudaSuccess
    assert runtime.cudaMemGetInfo() == (success, machine.memory.total, machine.memory.total)
    assert runtime.cudaSetDevice(0) == (success,)
    assert runtime.cudaSetDevice(1) == (runtime.cudaError_t.cudaErrorInvalidDevice,)
    assert runtime.cudaMalloc(1 << 50) == (runtime.cudaError_t.cudaErrorMemoryAllocation, None)
    assert runtime.cudaGetErrorString(runtime.cudaError_t(2)) == (success, b"out of memory")
    code, properties = runtime.cudaGetDeviceProperties(0)
    assert (code, properties.name, properties.major, properties.integrated) == (success, b"Orin", 8, 1)
    with pytest.raises(AttributeError):
        properties.clockRate  # noqa: B018
    attribute = runtime.cudaDeviceAttr.cudaDevAttrComputeCapabilityMinor
    assert runtime.cudaDeviceGetAttribute(attribute, 0) == (success, 7)


def test_the_last_error_is_kept_until_it_is_asked_for(runtime: Any) -> None:
    assert runtime.cudaGetLastError() == (runtime.cudaError_t.cudaSuccess,)
    runtime.cudaFree(12345)
    for ask in (runtime.cudaPeekAtLastError, runtime.cudaGetLastError):
        assert ask() == (runtime.cudaError_t.cudaErrorInvalidValue,)
    assert runtime.cudaGetLastError() == (runtime.cudaError_t.cudaSuccess,)


@pytest.mark.parametrize("fault", ["cudaErrorInsufficientDriver", "cudaErrorNoDevice"])
def test_a_driver_that_does_not_start_is_a_code(runtime: Any, machine: FakeMachine, fault: str) -> None:
    machine.faults.driver = fault
    assert runtime.cudaGetDeviceCount() == (runtime.cudaError_t[fault], None)
    assert runtime.cudaMemGetInfo() == (runtime.cudaError_t[fault], None, None)
    assert runtime.cudaSetDevice(0) == (runtime.cudaError_t[fault],)


def test_a_batch_goes_there_and_back_through_a_graph(runtime: Any, machine: FakeMachine) -> None:
    kind = runtime.cudaMemcpyKind
    _, stream = runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking)
    _, host = runtime.cudaHostAlloc(64, runtime.cudaHostAllocDefault)
    _, device = runtime.cudaMalloc(64)
    machine.memory.any_view(host, 64)[:] = 5
    mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    assert runtime.cudaStreamBeginCapture(stream, mode) == (0,)
    assert runtime.cudaStreamIsCapturing(stream)[1].name == "cudaStreamCaptureStatusActive"
    runtime.cudaMemcpyAsync(device, host, 64, kind.cudaMemcpyHostToDevice, stream)
    _, graph = runtime.cudaStreamEndCapture(stream)
    _, executable = runtime.cudaGraphInstantiate(graph, 0)
    assert (machine.memory.any_view(device, 64) == 255).all()
    assert runtime.cudaGraphLaunch(graph, stream)[0] != 0
    assert runtime.cudaGraphLaunch(executable, stream) == (0,)
    assert runtime.cudaStreamSynchronize(stream) == (0,)
    assert (machine.memory.any_view(device, 64) == 5).all()
    for give_back, handle in (
        (runtime.cudaGraphExecDestroy, executable),
        (runtime.cudaGraphDestroy, graph),
        (runtime.cudaStreamDestroy, stream),
        (runtime.cudaFree, device),
        (runtime.cudaFreeHost, host),
    ):
        assert give_back(handle) == (0,)
        assert give_back(handle)[0] != 0
    assert machine.leaks() == {}


def test_synchronising_a_captured_stream_is_a_code(runtime: Any) -> None:
    _, stream = runtime.cudaStreamCreate()
    runtime.cudaStreamBeginCapture(stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal)
    assert runtime.cudaStreamSynchronize(stream)[0].name == "cudaErrorStreamCaptureUnsupported"
    assert runtime.cudaStreamEndCapture(stream) == (runtime.cudaError_t.cudaErrorStreamCaptureInvalidated, None)


def test_events_measure_and_say_when_they_are_ahead(runtime: Any, machine: FakeMachine) -> None:
    _, stream = runtime.cudaStreamCreate()
    (_, start), (_, end) = runtime.cudaEventCreate(), runtime.cudaEventCreateWithFlags(runtime.cudaEventDefault)
    _, device = runtime.cudaMalloc(1 << 20)
    runtime.cudaEventRecord(start, stream)
    runtime.cudaMemsetAsync(device, 0, 1 << 20, stream)
    runtime.cudaEventRecord(end, stream)
    assert runtime.cudaEventElapsedTime(start, end) == (runtime.cudaError_t.cudaErrorNotReady, None)
    assert runtime.cudaEventSynchronize(end) == (0,)
    code, elapsed = runtime.cudaEventElapsedTime(start, end)
    assert (code, elapsed > 0) == (0, True)
    assert runtime.cudaEventQuery(end) == (0,)


def test_mapped_memory_has_an_address_for_the_device(runtime: Any) -> None:
    _, mapped = runtime.cudaHostAlloc(64, runtime.cudaHostAllocMapped)
    assert runtime.cudaHostGetDevicePointer(mapped, 0) == (0, mapped)
    _, plain = runtime.cudaHostAlloc(64, runtime.cudaHostAllocDefault)
    assert runtime.cudaHostGetDevicePointer(plain, 0) == (runtime.cudaError_t.cudaErrorInvalidValue, None)


def test_arguments_have_their_types(runtime: Any) -> None:
    _, device = runtime.cudaMalloc(16)
    data = np.ones(16, np.uint8)
    assert runtime.cudaMemcpy(device, data, 16, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice) == (0,)
    with pytest.raises(TypeError, match="cudaMemcpyKind"):
        runtime.cudaMemcpy(device, data, 16, 1)
    with pytest.raises(TypeError, match="integer"):
        runtime.cudaMalloc(16.0)
    with pytest.raises(TypeError, match="was given"):
        runtime.cudaMalloc(16, 2)
    kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    assert runtime.cudaMemcpy(device, data, 16, kind)[0] == runtime.cudaError_t.cudaErrorInvalidValue


def test_functions_that_answer_a_code_alone_are_known() -> None:
    assert {"cudaFree", "cudaStreamSynchronize", "cudaGraphLaunch"} <= CODE_ONLY
    assert not {"cudaMalloc", "cudaStreamCreate", "cudaMemGetInfo"} & CODE_ONLY


# pycuda


def test_pycuda_moves_a_batch(driver: Any, machine: FakeMachine) -> None:
    host = driver.pagelocked_empty((4, 8), np.float32)
    host[...] = np.arange(32).reshape(4, 8)
    back = driver.pagelocked_zeros((4, 8), np.float32)
    device, stream = driver.mem_alloc(host.nbytes), driver.Stream()
    start = driver.Event().record(stream)
    driver.memcpy_htod_async(device, host, stream)
    driver.memcpy_dtoh_async(back, device, stream)
    end = driver.Event().record(stream)
    assert not back.any()
    stream.synchronize()
    np.testing.assert_array_equal(back, host)
    assert end.time_since(start) == start.time_till(end) > 0
    assert machine.memory.pageable_copies == 0
    assert driver.mem_get_info() == (machine.memory.total - 128, machine.memory.total)
    device.free()
    host.base.free()
    back.base.free()
    del start, end, stream
    assert machine.leaks() == {"primary contexts": 1}


def test_pycuda_frees_with_the_last_reference(driver: Any, machine: FakeMachine) -> None:
    device, host = driver.mem_alloc(64), driver.pagelocked_empty(64, np.uint8)
    del device, host
    gc.collect()
    assert machine.leaks() == {"primary contexts": 1}
    device = driver.mem_alloc(64)
    device.free()
    with pytest.raises(driver.LogicError):
        device.free()
    with pytest.raises(driver.LogicError):
        int(device)


def test_pycuda_raises_errors_of_its_own(driver: Any, machine: FakeMachine) -> None:
    assert not issubclass(driver.RuntimeError, RuntimeError)
    assert not issubclass(driver.MemoryError, MemoryError)
    for error in (driver.RuntimeError, driver.MemoryError, driver.LogicError, driver.LaunchError):
        assert issubclass(error, driver.Error)
    with pytest.raises(driver.MemoryError, match="cuMemAlloc failed: out of memory"):
        driver.mem_alloc(1 << 50)
    machine.faults.driver = "cudaErrorNoDevice"
    with pytest.raises(driver.RuntimeError, match="cuInit failed"):
        driver.init()
    machine.faults.driver = "cudaErrorInsufficientDriver"
    with pytest.raises(driver.LogicError, match="cuInit failed"):
        driver.init()
    early, late = driver.Event().record(), driver.Event().record()
    with pytest.raises(driver.RuntimeError, match="cuEventElapsedTime failed"):
        late.time_since(early)


def test_pycuda_needs_a_context_on_the_thread(driver: Any, machine: FakeMachine) -> None:
    caught: list[Exception] = []

    def elsewhere() -> None:
        try:
            driver.mem_alloc(16)
        except driver.LogicError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "invalid device context" in str(caught[0])
    driver.Context.pop()
    with pytest.raises(driver.LogicError, match="invalid device context"):
        driver.Stream()
    with pytest.raises(driver.LogicError, match="cannot pop"):
        driver.Context.pop()


def test_pycuda_tells_of_contexts_that_are_lost(machine: FakeMachine) -> None:
    driver = make_pycuda(machine)[1]
    context = driver.Device(0).retain_primary_context()
    context.push()
    device = driver.mem_alloc(16)
    driver.Context.pop()
    context.detach()
    assert machine.misuses == ["the context goes with 16 bytes of device memory (pycuda)"]
    del device
    with pytest.raises(driver.LogicError):
        context.push()
    kept = driver.Device(0).retain_primary_context()
    del kept
    assert machine.misuses[-1] == "a retained context is collected without being detached"


def test_pycuda_takes_arrays_as_they_lie(driver: Any) -> None:
    device = driver.mem_alloc(64)
    with pytest.raises(ValueError, match="contiguous"):
        driver.memcpy_htod(device, np.ones((4, 8), np.float32)[:, ::2])
    frozen = np.zeros(16, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        driver.memcpy_dtoh(frozen, device)
    with pytest.raises(driver.LogicError, match="run over the end"):
        driver.memcpy_htod(device, np.ones(17, np.float32))


def test_pycuda_maps_memory_where_it_is_asked_to(driver: Any, machine: FakeMachine) -> None:
    mapped = driver.pagelocked_empty(16, np.float32, mem_flags=driver.host_alloc_flags.DEVICEMAP)
    address = mapped.base.get_device_pointer()
    machine.memory.device_view(address, 64).view(np.float32)[:] = 3
    assert (mapped == 3).all()
    with pytest.raises(driver.LogicError, match="not mapped"):
        driver.pagelocked_empty(16, np.float32).base.get_device_pointer()


def test_pycuda_describes_the_device(driver: Any) -> None:
    device = driver.Context.get_device()
    assert (device.name(), device.compute_capability(), device.total_memory()) == ("Orin", (8, 7), 8 << 30)
    assert device.get_attribute(driver.device_attribute.INTEGRATED) == 1
    assert (driver.Device.count(), driver.get_version(), driver.get_driver_version()) == (1, (12, 6, 0), 12060)
    with pytest.raises(driver.LogicError):
        driver.Device(1)


# Installation


def paths_of(interface: str) -> tuple[str, ...]:
    return ("pycuda.driver",) if interface == "pycuda" else GENERATIONS[interface.rpartition("-")[2]][1]


@pytest.mark.parametrize("interface", INTERFACES)
def test_imports_find_the_fakes_and_nothing_else(interface: str) -> None:
    with installed("10.3.0", (interface,)) as fakes:
        for path in ("tensorrt", *paths_of(interface)):
            assert import_module(path) is fakes.modules[path]
        others = {path for other in INTERFACES for path in paths_of(other)} - set(paths_of(interface))
        for path in (*others, "pycuda.autoinit"):
            with pytest.raises(ModuleNotFoundError):
                import_module(path)
    assert "tensorrt" not in sys.modules


def test_a_missing_library_is_an_import_error() -> None:
    with installed("10.3.0", broken=MISSING_LIBRARIES):
        for path, library in (("tensorrt", r"libnvinfer\.so\.10"), ("pycuda.driver", r"libcuda\.so\.1")):
            with pytest.raises(ImportError, match=library):
                import_module(path)
    with installed(None, ()), pytest.raises(ModuleNotFoundError):
        import_module("tensorrt")


@pytest.mark.parametrize("interface", ["pycuda", "cuda-python-13"])
def test_child_processes_find_the_fakes(interface: str) -> None:
    program = {
        "pycuda": "import pycuda.driver as d; d.init(); print(d.Device(0).name())",
        "cuda-python-13": "from cuda.bindings import runtime as r; print(r.cudaGetDeviceProperties(0)[1].name)",
    }[interface]
    faults = Faults(parser=(ParserFault(3),), fallback_layers=("conv",))
    environment = child_environment("10.13.3.9", (interface,), "thor-t5000", faults)
    code = f"import tensorrt; print(tensorrt.__version__); {program}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    version, name = done.stdout.split("\n")[:2]
    assert (version, name.strip("b'")) == ("10.13.3.9", "NVIDIA Thor")
    nothing = child_environment(None, ())
    failed = subprocess.run(
        [sys.executable, "-c", "import tensorrt"], env=nothing, capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError: No module named 'tensorrt'" in failed.stderr
