"""The process that builds: what it says gets through, and it is not waited for when it hangs or dies."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from device_candidates import any_version, candidate, device_stand_in, replanned, run_on_device
from fake_cuda.faults import Faults, ParserFault
from fake_tensorrt.children import child_environment
from tensorrt_stand_ins import PAIRS, Listener

from edgekit.core.children import error_from_dict, error_to_dict
from edgekit.device.evidence import EVIDENCE_NAME
from edgekit.device.supervise import supervised
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import BadInputError, DefectError, EdgekitError, UnavailableError

V10 = PAIRS[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = candidate(tmp_path_factory.mktemp("host"))
    return replanned(made.folder, tmp_path_factory.mktemp("any") / "bundle", any_version)


def test_the_work_is_done_in_a_process_of_its_own(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    with device_stand_in(*V10, monkeypatch, tmp_path):
        evidence = run_on_device(bundle, tmp_path / "out", work=_listening(listener))
    assert {said.verdict["outcome"] for said in evidence.candidates.values()} == {"pass"}
    assert any(note.startswith(NEVER_RUN) for note in listener.notes)
    assert "golden samples" in {task for task, *_ in listener.steps}


def _listening(listener: Listener) -> object:
    return lambda bundle, output, silence_s, observer: supervised(bundle, output, silence_s, listener)


def test_an_error_there_is_the_same_error_here(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults(parser=(ParserFault(4, "Assertion failed: no such luck"),))
    with device_stand_in(*V10, monkeypatch, tmp_path, faults), pytest.raises(BadInputError) as caught:
        run_on_device(bundle, tmp_path / "out", work=supervised)
    assert "no such luck" in str(caught.value.found)
    assert caught.value.hint
    assert not (tmp_path / "out" / EVIDENCE_NAME).exists()


@pytest.mark.parametrize("where", ["hang_build", "hang_deserialise", "hang_execution"])
def test_a_hang_is_ended(where: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    faults = Faults(**{where: 60.0})
    with device_stand_in(*V10, monkeypatch, tmp_path, faults), pytest.raises(UnavailableError) as caught:
        run_on_device(bundle, tmp_path / "out", work=supervised, patience_s=2.0)
    assert time.monotonic() - begun < 40
    assert "sign of life" in caught.value.message
    assert "2 seconds" in str(caught.value.expected)
    assert "--patience" in str(caught.value.hint)
    assert not (tmp_path / "out" / EVIDENCE_NAME).exists()


_FENCED = """
import sys
from pathlib import Path
blocked = {"captum", "jinja2", "onnxscript", "PIL", "pydantic", "rich", "safetensors", "scipy", "torch", "yaml"}
class Fence:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is behind the fence", name=name)
sys.meta_path.insert(0, Fence())
from jetson_devices import probe_of
from edgekit.device.build import DeviceBuildRequest, device_build
evidence = device_build(DeviceBuildRequest(Path(sys.argv[1]), Path(sys.argv[2]), probe=probe_of("orin-nano-super")))
print(evidence.device.tensorrt, *(each.verdict["outcome"] for each in evidence.candidates.values()))
"""


def test_the_device_needs_nothing_of_the_workstation(bundle: Path, tmp_path: Path) -> None:
    # Its own probe and worker look for TensorRT in processes of theirs; the stand-in alone uses ONNX Runtime and onnx.
    environment = child_environment(*(V10[0], (V10[1],)), device="orin-nano-8") | {"XDG_CACHE_HOME": str(tmp_path)}
    words = [sys.executable, "-c", _FENCED, str(bundle), str(tmp_path / "out")]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["10.3.0", "pass", "pass"]


def _worker(tmp_path: Path, body: str) -> tuple[str, ...]:
    path = tmp_path / "worker.py"
    path.write_text(body)
    return (sys.executable, str(path))


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("import os; os.abort()", UnavailableError, "exit code -6"),
        ("import sys; sys.stderr.write('out of luck'); sys.exit(9)", UnavailableError, "out of luck"),
        ("pass", UnavailableError, "it said nothing"),
        ("print('hello')", DefectError, "hello"),
        ("print([1])", DefectError, "[1]"),
        ('print(\'{"said": "much"}\')', DefectError, "{}"),
        ('print(\'{"ended": {"error": "OSError", "message": "x"}}\')', DefectError, "OSError"),
    ],
)
def test_a_worker_that_dies_or_babbles(tmp_path: Path, body: str, kind: type[EdgekitError], words: str) -> None:
    with pytest.raises(kind) as caught:
        supervised(tmp_path, tmp_path / "out", 20.0, command=_worker(tmp_path, body))
    assert words in str(caught.value.found)


def test_a_worker_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="could not be started"):
        supervised(tmp_path, tmp_path / "out", 20.0, command=(str(tmp_path / "none"),))


@pytest.mark.parametrize("error", [BadInputError("a", expected="b", found="c", where="d", hint="e"), DefectError("a")])
def test_errors_travel_whole(error: EdgekitError) -> None:
    back = error_from_dict(error_to_dict(error))
    assert type(back) is type(error)
    assert back.diagnostics() == error.diagnostics()
