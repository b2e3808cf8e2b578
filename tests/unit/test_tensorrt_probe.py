"""Asking whether TensorRT can work here: in a child process, with a limit, and without ever making a runtime."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from fake_cuda.faults import Faults
from fake_tensorrt.children import child_environment
from fake_tensorrt.install import MISSING_LIBRARIES, installed
from tensorrt_stand_ins import PAIRS

from edgekit.engines.registry import ENGINES
from edgekit.engines.tensorrt import engine, probe
from edgekit.engines.tensorrt.binding import OLDEST, TensorRt, find_tensorrt, tensorrt_problem
from edgekit.engines.tensorrt.engine import ENGINE
from edgekit.engines.tensorrt.probe import DeviceProbe, look, probe_device


def use(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_a_child_finds_version_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, child_environment("10.3.0", ("pycuda",)))
    found = probe_device()
    assert (found.problem, found.tensorrt) == ("", "10.3.0")
    assert found.gpu is not None
    assert found.gpu["name"] == "Orin"


def test_a_child_tells_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, child_environment("10.3.0", ("pycuda",), faults=Faults(driver="cudaErrorNoDevice")))
    found = probe_device()
    assert found.problem
    assert "driver" in found.hint


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def test_a_child_that_hangs_is_not_waited_for() -> None:
    begun = time.monotonic()
    found = probe_device(script("import time; time.sleep(60)"), timeout_s=0.5)
    assert "within 0.5 seconds" in found.problem
    assert time.monotonic() - begun < 20


def test_a_child_that_dies_is_told() -> None:
    found = probe_device(script("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))
    assert "status -11" in found.problem
    assert found.hint


@pytest.mark.parametrize("line", ["nothing", "edgekit-probe ", "edgekit-probe {}", "edgekit-probe [1]"])
def test_a_child_that_says_something_else_is_told(line: str) -> None:
    assert probe_device(script(f"print({line!r})")).problem


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "no process could be started" in probe_device((str(tmp_path / "python"),)).problem


@pytest.mark.parametrize(("version", "interface"), PAIRS)
def test_looking_makes_no_runtime_and_leaves_nothing(
    version: str, interface: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(version, (interface,)) as there:
        monkeypatch.setattr(there.modules["tensorrt"], "Runtime", None)
        found = look()
        assert found.problem == ""
        assert found.tensorrt.startswith(version)
        assert not there.machine.leaks()
        assert not there.machine.misuses


def test_looking_tells_what_is_missing() -> None:
    with installed(None, ("pycuda",)):
        assert "tensorrt" in look().problem
    with installed("10.3.0", ()):
        found = look()
        assert "CUDA" in found.problem
        assert found.tensorrt == "10.3.0"
    with installed("10.3.0", ("pycuda",), broken={"tensorrt": MISSING_LIBRARIES["tensorrt"]}):
        found = look()
        assert "libnvinfer" in found.problem
        assert "loader's path" in found.hint


def test_versions_are_told_apart_by_names_and_numbers() -> None:
    for version, _ in PAIRS:
        with installed(version, ()):
            assert tensorrt_problem() == ""
            tensorrt = find_tensorrt()
            assert tensorrt.always_strong is version.startswith("11")
            assert tensorrt.may_be_strong is version.startswith(("10.13", "10.16", "11"))
            assert tensorrt.may_calibrate is not version.startswith("11")
            assert tensorrt.dla_by_cache is (tensorrt.version < (10, 8, 0))
            assert tensorrt.dla_by_graph is False
            assert tensorrt.has("IProgressMonitor") is not version.startswith("8")
            assert not tensorrt.has("NoSuchThing.member")
    assert TensorRt(None, "11.4.1.5").dla_by_graph
    assert TensorRt(None, "8.4").version == (8, 4, 0) < OLDEST


def test_what_is_too_old_or_only_a_runtime_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with installed("8.5.2", ()) as there:
        monkeypatch.setattr(there.modules["tensorrt"], "__version__", "8.4.1")
        assert "older" in tensorrt_problem()
        monkeypatch.setattr(there.modules["tensorrt"], "__version__", "8.5.2")
        monkeypatch.setattr(there.modules["tensorrt"], "OnnxParser", None)
        assert "runtime only" in tensorrt_problem()


def test_the_engine_asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted() -> DeviceProbe:
        asked.append(1)
        return DeviceProbe("it hangs", "restart it")

    monkeypatch.setattr(engine, "probe_device", counted)
    engine._probe.cache_clear()
    with installed("10.3.0", ()):
        answers = [ENGINE.availability() for _ in range(3)]
    engine._probe.cache_clear()
    assert len(asked) == 1
    assert {(each.available, each.reason, each.hint) for each in answers} == {(False, "it hangs", "restart it")}
    assert ENGINES.load("tensorrt") is ENGINE


def test_an_engine_that_is_not_installed_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_probe", None)
    with installed(None, ()):
        found = ENGINE.availability()
    assert not found.available
    assert "JetPack" in found.hint
    assert probe.probe_command()[-1] == "edgekit.engines.tensorrt.probe"
