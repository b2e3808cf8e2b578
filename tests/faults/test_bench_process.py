"""Processes that die, hang or talk nonsense while they are timed: noticed, named, and never left running."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.bench.process import WorkerProcess, WorkerSettings, worker_command
from edgekit.bench.worker import BlockRequest, OpenRequest
from edgekit.errors import BadInputError, DefectError, EdgekitError, UnavailableError

GRAPH = Path(__file__).resolve().parents[1] / "assets" / "tiny_explained.onnx"
OPEN = OpenRequest("reference", "absent.onnx", "absent.npy", batch=1, threads=0, warmup=1)
BLOCK = BlockRequest(lead_in=0, iterations=2)


def settings(tmp_path: Path, program: str, timeout_s: float = 60.0) -> WorkerSettings:
    return WorkerSettings("int8", tmp_path, timeout_s, (sys.executable, "-c", program))


def answering(line: str) -> str:
    return f"import sys; sys.stdin.readline(); print({line!r}, flush=True); sys.stdin.readline()"


def check_gone(worker: WorkerProcess) -> None:
    assert worker._process.poll() is not None
    assert not worker._reader.is_alive()


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.stdin.readline(); sys.stderr.write('the driver fell over'); sys.exit(3)",
        "import os, sys; os.write(2, b'the driver fell over'); sys.stdin.readline(); os.abort()",
        "import sys; sys.stderr.write('the driver fell over')",
    ],
    ids=["exit", "abort", "before it was asked"],
)
def test_a_process_that_dies_is_quoted(tmp_path: Path, program: str) -> None:
    with (
        pytest.raises(UnavailableError, match="'int8' ended") as caught,
        WorkerProcess(settings(tmp_path, program)) as worker,
    ):
        worker.open(OPEN)
    assert "the driver fell over" in str(caught.value)
    check_gone(worker)


def test_only_the_end_of_a_long_complaint_is_quoted(tmp_path: Path) -> None:
    program = "import sys; sys.stderr.write('x' * 100_000 + 'the end'); sys.exit(1)"
    with pytest.raises(UnavailableError) as caught, WorkerProcess(settings(tmp_path, program)) as worker:
        worker.open(OPEN)
    assert str(caught.value).endswith("the end")
    assert len(str(caught.value)) < 3000


def test_a_process_that_hangs_is_given_up_and_killed(tmp_path: Path) -> None:
    program = "import time; time.sleep(600)"
    with (
        pytest.raises(UnavailableError, match="did not answer in time"),
        WorkerProcess(settings(tmp_path, program, timeout_s=0.2)) as worker,
    ):
        worker.open(OPEN)
    check_gone(worker)


def test_an_interrupted_measurement_kills_its_processes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), WorkerProcess(settings(tmp_path, "import time; time.sleep(600)")) as worker:
        raise KeyboardInterrupt
    check_gone(worker)


@pytest.mark.parametrize(
    "line",
    [
        "Loading model...",
        "",
        "null",
        "[]",
        "{}",
        '{"ok": true}',
        '{"ok": false}',
        '{"ok": false, "error": "SystemExit", "message": "no"}',
        '{"ok": false, "error": "annotations", "message": "no"}',
    ],
)
def test_an_answer_out_of_the_protocol_is_a_defect(tmp_path: Path, line: str) -> None:
    with pytest.raises(DefectError), WorkerProcess(settings(tmp_path, answering(line))) as worker:
        worker.block(BLOCK)
    check_gone(worker)


TIMED = """
import json, sys, time
sys.stdin.readline()
begun = time.monotonic()
time.sleep(0.01)
answer = {"ok": True, "samples_ms": [1.0, 1.0], "runs": 2, "begun_s": begun, "ended_s": time.monotonic()}
answer |= {"peak_memory_bytes": 10**6, "quiet": True}
CHANGE
print(json.dumps(answer), flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("change", ["pass", "answer['peak_memory_bytes'] = None", "answer['runs'] = 7"])
def test_an_answer_in_the_protocol_is_taken(tmp_path: Path, change: str) -> None:
    with WorkerProcess(settings(tmp_path, TIMED.replace("CHANGE", change))) as worker:
        block = worker.block(BLOCK)
    assert block.samples_ms == (1.0, 1.0)
    assert block.ended_s - block.begun_s >= 0.01
    assert block.peak_memory_bytes in (10**6, None)


@pytest.mark.parametrize(
    "change",
    [
        "answer['ok'] = 1",
        "answer['more'] = 1",
        "answer.pop('quiet')",
        "answer['quiet'] = 1",
        "answer['samples_ms'] = [1.0]",
        "answer['samples_ms'] = [1.0, 0.0]",
        "answer['samples_ms'] = [1.0, float('nan')]",
        "answer['samples_ms'] = [1.0, '1.0']",
        "answer['samples_ms'] = 2.0",
        "answer['runs'] = 1",
        "answer['runs'] = 2.0",
        "answer['peak_memory_bytes'] = 0",
        "answer['peak_memory_bytes'] = 1.5",
        "answer['ended_s'] = answer['begun_s']",
        # A process whose clock is another one: powers would go to the wrong engine.
        "answer['begun_s'] -= 1e6; answer['ended_s'] -= 1e6",
        "answer['ended_s'] += 1e6",
        'print(\'{"ok": true, "ok": true}\', flush=True)',
    ],
)
def test_a_block_out_of_the_protocol_is_a_defect(tmp_path: Path, change: str) -> None:
    program = TIMED.replace("CHANGE", change)
    with pytest.raises(DefectError), WorkerProcess(settings(tmp_path, program)) as worker:
        worker.block(BLOCK)
    check_gone(worker)


def test_an_error_of_the_family_keeps_its_type_and_details(tmp_path: Path) -> None:
    line = '{"ok": false, "error": "BadInputError", "message": "No.", "expected": "A", "found": null, "hint": "do B"}'
    with pytest.raises(BadInputError) as caught, WorkerProcess(settings(tmp_path, answering(line))) as worker:
        worker.open(OPEN)
    error: EdgekitError = caught.value
    assert (error.message, error.expected, error.found, error.where, error.hint) == ("No.", "A", None, None, "do B")


def test_what_a_runtime_prints_does_not_reach_the_protocol(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    np.save(tmp_path / "images.npy", np.ones((1, 3, 4, 4), dtype=np.float32))
    program = """
import os
from edgekit.bench import worker
quiet_run = worker._Load.run
def noisy_run(self, times):
    print("a banner", flush=True)
    os.write(1, b'{"ok": true}\\n')
    return quiet_run(self, times)
worker._Load.run = noisy_run
worker.main()
"""
    wanted = OpenRequest("reference", str(GRAPH), str(tmp_path / "images.npy"), batch=1, threads=0, warmup=1)
    with WorkerProcess(settings(tmp_path, program)) as worker:
        assert worker.open(wanted)["info"]["engine"] == "reference"
        assert len(worker.block(BLOCK).samples_ms) == 2
    assert (tmp_path / "stderr.txt").read_text().count("a banner") == 3


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    missing = WorkerSettings("int8", tmp_path, 5.0, (str(tmp_path / "no-such-python"),))
    with pytest.raises(UnavailableError, match="could not be started"):
        WorkerProcess(missing)


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    worker = WorkerProcess(WorkerSettings("int8", tmp_path, 60.0, worker_command()))
    worker.close()
    worker.close()
    check_gone(worker)
    assert worker._process.returncode == 0


def test_the_real_worker_refuses_what_is_out_of_order(tmp_path: Path) -> None:
    with (
        pytest.raises(DefectError, match="cannot do"),
        WorkerProcess(WorkerSettings("int8", tmp_path, 60.0, worker_command())) as worker,
    ):
        worker.block(BLOCK)
    check_gone(worker)
