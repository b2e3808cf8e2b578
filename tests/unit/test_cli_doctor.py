"""The doctor: what is missing is found, named, and answered with a command that names the right thing."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pytest

from edgekit.cli.main import run
from edgekit.engines import installation
from edgekit.engines.installation import Installation, SideState, inspect_installation
from edgekit.engines.protocol import Availability
from edgekit.engines.registry import ENGINES
from edgekit.errors import DefectError, ExitCode, UnavailableError

HERE = {"numpy": "2.1.0", "click": "8.1.7", "onnxruntime": "1.22.0"}
HOST = {
    **HERE,
    "torch": "2.13.0+cpu",
    "torch-pruning": "1.6.1",
    "onnx": "1.17.0",
    "onnxscript": "0.5.0",
    "pillow": "10.0.0",
    "pydantic": "2.7",
    "pyyaml": "6.0.1",
    "rich": "13.0",
    "jinja2": "3.1.6",
    "safetensors": "0.4.5",
    "cryptography": "44.0.0",
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Installation]:
    """Inspect a machine on which just these distributions are installed, all of them sound unless named."""

    def inspect(versions: dict[str, str], broken: tuple[str, ...] = (), nvidia: bool = False) -> Installation:
        def importing(module: str) -> None:
            if module in broken:
                raise OSError(f"lib{module}.so: cannot open shared object file")

        runtimes = tuple(name for name in ("onnxruntime", "onnxruntime-gpu") if name in versions)
        monkeypatch.setattr(installation, "distribution_version", versions.get)
        monkeypatch.setattr(installation, "onnxruntime_distributions", lambda: runtimes)
        monkeypatch.setattr(installation, "import_module", importing)
        monkeypatch.setattr(installation, "_nvidia_driver_seen", lambda: nvidia)
        monkeypatch.setattr(
            installation,
            "_engine_availability",
            lambda name: Availability(bool(runtimes) and "onnxruntime" not in broken, "no onnxruntime", "install it"),
        )
        return inspect_installation()

    return inspect


def side(found: Installation, name: str) -> SideState:
    return next(item for item in found.sides if item.name == name)


def test_a_device_with_numpy_click_and_a_runtime_is_ready(machine: Callable[..., Installation]) -> None:
    found = machine(HERE)
    assert side(found, "device").ready
    assert not side(found, "host").ready
    assert found.usable
    missing = {text.partition(":")[0] for text in side(found, "host").missing}
    assert missing == set(HOST) - set(HERE)
    assert "[host]" in side(found, "host").command


def test_a_workstation_with_everything_is_ready(machine: Callable[..., Installation]) -> None:
    found = machine(HOST)
    assert side(found, "host").ready
    assert (side(found, "host").missing, side(found, "host").command) == ((), "")


def test_without_a_runtime_nothing_can_run(machine: Callable[..., Installation]) -> None:
    found = machine({name: version for name, version in HOST.items() if name != "onnxruntime"})
    assert not found.usable
    assert "[cpu]" in side(found, "device").command


@pytest.mark.parametrize(
    ("name", "version", "fits"),
    [
        ("torch", "2.7.1", False),
        ("torch", "2.8.0", True),
        ("torch", "2.10.0", True),
        ("torch", "3.0.0a0+git12", True),
        ("torch-pruning", "2.0", False),
        ("torch-pruning", "1.5.9", False),
        ("pyyaml", "6", True),
        ("pydantic", "2.10", True),
    ],
)
def test_versions_are_compared_as_numbers(
    name: str, version: str, fits: bool, machine: Callable[..., Installation]
) -> None:
    host = side(machine({**HOST, name: version}), "host")
    assert host.ready is fits
    if not fits:
        assert any(name in text and version in text for text in host.missing)


def test_a_package_that_cannot_be_imported_is_named_with_its_reason(machine: Callable[..., Installation]) -> None:
    host = side(machine(HOST, broken=("torch",)), "host")
    assert not host.ready
    assert host.missing == ("torch: installed, but importing it fails: libtorch.so: cannot open shared object file",)


def test_two_runtimes_side_by_side_are_noticed(machine: Callable[..., Installation]) -> None:
    found = machine({**HOST, "onnxruntime-gpu": "1.22.0"})
    (problem,) = found.problems
    assert "onnxruntime and onnxruntime-gpu" in problem.message
    assert "uninstall -y onnxruntime onnxruntime-gpu" in problem.remedy
    assert problem.remedy.endswith("install onnxruntime-gpu")
    assert machine(HOST).problems == ()


def test_the_gpu_runtime_serves_the_host_side_too(machine: Callable[..., Installation]) -> None:
    versions = {name: version for name, version in HOST.items() if name != "onnxruntime"}
    found = machine({**versions, "onnxruntime-gpu": "1.22.0"})
    assert side(found, "host").ready
    assert side(found, "gpu").ready


def test_the_gpu_runtime_replaces_the_other(machine: Callable[..., Installation]) -> None:
    command = side(machine(HOST, nvidia=True), "gpu").command
    assert command.index("uninstall -y onnxruntime ") < command.index("[gpu]")


def test_an_old_python_runs_bundles_and_builds_none(
    machine: Callable[..., Installation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation.sys, "version_info", (3, 10, 12, "final", 0))
    found = machine(HOST)
    assert side(found, "device").ready
    assert not side(found, "host").ready
    assert "Python 3.11" in side(found, "host").command


def test_every_requirement_of_the_distribution_is_understood() -> None:
    lines = metadata.requires("edgekit") or []
    wanted = installation._wanted_packages()
    libraries = {"tensorboard", "timm", "torchvision", "transformers"}
    known = {"", "cpu", "gpu", "openvino", "tensorrt", "images", "host", "model-signing", *libraries}
    assert {item.extra for item in wanted} == known
    assert len(wanted) == sum('extra == "dev"' not in line for line in lines)


@pytest.mark.parametrize("line", ["", "torch @ https://x/y", "torch ~ 2; extra == 'host'"])
def test_a_requirement_that_is_not_understood_is_a_defect(line: str) -> None:
    def understand() -> None:
        item = installation._parse_requirement(line)
        assert item is not None
        installation._fits("2.0", item.bounds)

    with pytest.raises(DefectError):
        understand()


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        (None, "'edgekit[host]'"),
        ({"url": "file:///a%20b/edgekit", "dir_info": {"editable": True}}, "-e '/a b/edgekit[host]'"),
        ({"url": "file:///src/edgekit", "dir_info": {}}, "'/src/edgekit[host]'"),
        ({"url": "file:///e.whl", "archive_info": {}}, "'edgekit[host] @ file:///e.whl'"),
    ],
)
def test_the_command_installs_the_edgekit_that_is_here(
    origin: dict[str, Any] | None, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Distribution:
        def __init__(self, text: str | None) -> None:
            self.text = text

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return self.text

    found = [Distribution(None), Distribution(json.dumps(origin) if origin else None)]
    monkeypatch.setattr(installation.metadata, "distributions", lambda name: iter(found))
    assert installation._install_source("host") == source


def test_a_folder_that_was_never_installed_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installation.metadata, "requires", absent)
    with pytest.raises(UnavailableError, match="pip install"):
        inspect_installation()


def test_an_engine_whose_package_is_missing_is_reported_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in ENGINES:
        found = installation._engine_availability(name)
        assert not found.available
        assert found.reason


def test_the_command_tells_the_same_in_text_and_json(
    machine: Callable[..., Installation], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = machine(HERE)
    monkeypatch.setattr(installation, "inspect_installation", lambda: found)
    assert run(["doctor", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert document["usable"] is True
    assert run(["doctor"]) == ExitCode.OK
    text = capsys.readouterr().out
    for item in document["sides"]:
        assert item["name"] in text
        # Where no NVIDIA driver is, the GPU sides are not advertised.
        assert (item["command"] in text) is (item["name"] not in ("gpu", "tensorrt"))
    assert all(package["name"] in text for item in document["sides"] for package in item["packages"])


def test_a_machine_that_can_do_nothing_exits_with_5(
    machine: Callable[..., Installation], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = machine({"numpy": "2.1.0", "click": "8.1.7"})
    monkeypatch.setattr(installation, "inspect_installation", lambda: found)
    assert run(["doctor"]) == ExitCode.UNAVAILABLE
    assert sys.executable in capsys.readouterr().out


@pytest.mark.parametrize(
    ("here", "problems", "ready", "named"),
    [
        ({"pycuda": "2025.1"}, {"pycuda": ""}, True, "pycuda"),
        ({"cuda-python": "13.0.1"}, {"cuda-python": ""}, True, "cuda-python"),
        ({"pycuda": "2025.1", "cuda-python": "12.6"}, {"pycuda": "no libcuda.so"}, True, "cuda-python"),
        ({"cuda-python": "13.0.1"}, {"cuda-python": "no libcuda.so"}, False, "pycuda"),
        ({}, {}, False, "pycuda"),
    ],
)
def test_either_package_that_reaches_cuda_completes_tensorrt(
    here: dict[str, str],
    problems: dict[str, str],
    ready: bool,
    named: str,
    machine: Callable[..., Installation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Backend:
        def __init__(self, name: str) -> None:
            self.name = name

        def import_problem(self) -> str:
            return problems.get(self.name, "")

    monkeypatch.setattr(type(installation.MEMORIES), "load", _loading(type(installation.MEMORIES).load, Backend))
    found = side(machine({**HERE, "tensorrt": "10.3.0", **here}), "tensorrt")
    assert found.ready is ready
    assert named in {item.name for item in found.packages}
    if not ready:
        (reason,) = found.missing
        assert "pycuda: " in reason
        assert "cuda-python, which would do as well" in reason


def _loading(genuine: Callable[..., Any], backend: Callable[[str], Any]) -> Callable[..., Any]:
    def load(registry: Any, name: str) -> Any:
        return backend(name) if registry is installation.MEMORIES else genuine(registry, name)

    return load
