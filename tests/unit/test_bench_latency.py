"""Measuring real engines in real processes. No time is asserted: only what was run, in which order, how often."""

from __future__ import annotations

import re
import tempfile
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgekit.bench import worker
from edgekit.bench.latency import LatencySubject, measure_latency
from edgekit.bench.options import LatencyOptions
from edgekit.bench.process import Block, WorkerProcess
from edgekit.bench.result import LatencyReport
from edgekit.bench.worker import BlockRequest
from edgekit.core.progress import NullObserver
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError, IntegrityError

GRAPH = Path(__file__).resolve().parents[1] / "assets" / "tiny_explained.onnx"
SUBJECTS = {name: LatencySubject(name, GRAPH) for name in ("ort-cpu", "reference")}
OPTIONS = LatencyOptions(batch=2, warmup=2, rounds=3, iterations=4, lead_in=1, timeout_s=60)

pytestmark = pytest.mark.skipif(
    not all(ENGINES.load(name).availability().available for name in SUBJECTS), reason="onnxruntime is not installed"
)


def images(count: int = 5) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(count, 3, 4, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go; empty again after every test."""
    path = tmp_path / "scratch"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


class Listener(NullObserver):
    def __init__(self) -> None:
        self.progress: list[tuple[int, int | None]] = []
        self.notes: list[str] = []

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        self.progress.append((done, total))

    def noted(self, message: str) -> None:
        self.notes.append(message)


def test_every_engine_is_measured_in_blocks_that_take_turns(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    original = WorkerProcess.block

    def noticed(self: WorkerProcess, request: BlockRequest) -> Block:
        order.append(self._settings.name)
        return original(self, request)

    monkeypatch.setattr(WorkerProcess, "block", noticed)
    listener = Listener()
    report = measure_latency(SUBJECTS, images(), OPTIONS, listener)
    assert order == ["ort-cpu", "reference", "reference", "ort-cpu", "ort-cpu", "reference"]
    assert listener.progress == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert set(report.results) == set(SUBJECTS)
    for name, result in report.results.items():
        assert [len(block) for block in result.rounds] == [4, 4, 4]
        assert all(sample > 0 for sample in result.samples_ms)
        assert result.engine["engine"] == name
        assert result.batch == 2
        assert result.power is None
    assert report.environment["packages"]["onnxruntime"]
    assert LatencyReport.from_dict(report.to_dict(), where="test") == report
    assert list(scratch.iterdir()) == []


def test_an_artifact_given_by_a_relative_path_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GRAPH.parent)
    subject = LatencySubject("reference", Path(GRAPH.name))
    assert measure_latency({"odd/name": subject}, images(1), OPTIONS).results["odd/name"].batch == 2


def test_a_module_in_the_working_directory_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the working directory')\n")
    monkeypatch.chdir(tmp_path)
    assert measure_latency({"one": SUBJECTS["reference"]}, images(1), OPTIONS).results


def test_the_engines_error_arrives_as_it_was_raised(tmp_path: Path, scratch: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(GRAPH.read_bytes()[:500])
    with pytest.raises(IntegrityError, match="cannot open the engine") as caught:
        measure_latency({"int8": LatencySubject("ort-cpu", damaged)}, images(), OPTIONS)
    assert str(damaged) in str(caught.value)
    with pytest.raises(BadInputError, match=re.escape("[N, 3, 4, 4]")):
        measure_latency(SUBJECTS, np.zeros((1, 3, 5, 5), dtype=np.float32), OPTIONS)
    with pytest.raises(BadInputError, match="no engine called"):
        measure_latency({"x": LatencySubject("warp-drive", GRAPH)}, images(), OPTIONS)
    assert list(scratch.iterdir()) == []


def test_nothing_to_measure_is_bad_input() -> None:
    for subjects, given in (({}, images()), (SUBJECTS, images(0)), (SUBJECTS, images()[0])):
        with pytest.raises(BadInputError, match="nothing to measure"):
            measure_latency(subjects, given, OPTIONS)


def test_a_process_that_rests_is_quiet_and_one_that_spins_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # Windows in which even a crowded machine gives the spinning thread a turn.
    monkeypatch.setattr(worker, "_QUIET_WINDOW_S", 0.25)
    monkeypatch.setattr(worker, "_QUIET_TIMEOUT_S", 0.6)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(1000))

    spinner = threading.Thread(target=spin)
    spinner.start()
    try:
        assert not worker.wait_until_quiet()
    finally:
        stop.set()
        spinner.join()
    monkeypatch.setattr(worker, "_QUIET_TIMEOUT_S", 30.0)
    assert worker.wait_until_quiet()


def test_an_engine_that_never_rests_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        WorkerProcess,
        "block",
        lambda self, request: Block((1.0,) * 4, 4, 0.0, 1.0, None, self._settings.name != "reference"),
    )
    listener = Listener()
    report = measure_latency(SUBJECTS, images(), OPTIONS, listener)
    assert {name: result.quiet for name, result in report.results.items()} == {"ort-cpu": True, "reference": False}
    assert len(listener.notes) == 1
    assert "'reference'" in listener.notes[0]


def test_batches_take_every_image_in_turn(tmp_path: Path) -> None:
    seen: list[npt.NDArray[np.float32]] = []

    class Recorder:
        def run(self, batch: npt.NDArray[np.float32], class_index: npt.NDArray[np.int32]) -> None:
            assert class_index.tolist() == [-1, -1]
            seen.append(batch)

    np.save(tmp_path / "images.npy", images(3))
    request = worker.OpenRequest("reference", str(GRAPH), str(tmp_path / "images.npy"), batch=2, threads=0, warmup=1)
    load = worker._Load(request)
    load.runner.close()
    load.runner = Recorder()  # type: ignore[assignment]
    assert len(load.run(4)) == 4
    # The warm-up took images 0 and 1; then 2 and 0, and from the start again.
    expected = images(3)[[2, 0, 0, 1, 2, 0, 0, 1]].reshape(4, 2, 3, 4, 4)
    np.testing.assert_array_equal(np.stack(seen), expected)
