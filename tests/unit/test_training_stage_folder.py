"""A stage that trains: killed and started again, and run by several processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import images, write_teacher

from edgekit.compress.options import CompressOptions, FinetuneOptions, PruneOptions
from edgekit.compress.stage import STUDENT_NAME, CompressRequest, compress
from edgekit.core.progress import NullObserver
from edgekit.core.stages import read_record
from edgekit.teacher.loading import load_model

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_training_stage_folder import request_for
from edgekit.compress.stage import compress
print(compress(request_for(Path(sys.argv[2])), Path(sys.argv[3])).facts["summary"])
"""


def request_for(teacher: Path) -> CompressRequest:
    options = CompressOptions(
        prune=PruneOptions(rate=0.5, scope="inner", rounds=2, round_epochs=2),
        finetune=FinetuneOptions(epochs=3, batch_size=8, batch_norm="running", learning_rate=0.01),
    )
    return CompressRequest(model=teacher, data=images(24), options=options, threads=1)


class Killer(NullObserver):
    """Stops at a step of the training called `task`."""

    def __init__(self, task: str, step: int) -> None:
        self.at, self.notes = (task, step), []

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        if (task, done) == self.at:
            raise KeyboardInterrupt

    def noted(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize("step", [5, 8])
def test_a_stage_killed_within_a_training_goes_on_and_ends_in_the_same_bytes(tmp_path: Path, step: int) -> None:
    teacher = write_teacher(tmp_path / "teacher.pt")
    whole = compress(request_for(teacher), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        compress(request_for(teacher), tmp_path / "killed", Killer("fine-tune", step))
    assert list((tmp_path / "killed.work").glob("*/*/*.ckpt"))
    again = Killer("", 0)
    record = compress(request_for(teacher), tmp_path / "killed", again)
    assert {name: ref.sha256 for name, ref in record.outputs.items()} == {
        name: ref.sha256 for name, ref in whole.outputs.items()
    }
    # The rounds before had ended, and are not trained again.
    assert [note.split(" goes on after ")[0] for note in again.notes if "goes on" in note] == ["prune-1", "fine-tune"]
    assert not (tmp_path / "killed.work").exists()


def test_two_processes_make_one_stage(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher.pt")
    alone = compress(request_for(teacher), tmp_path / "alone")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SCRIPT, str(TESTS / "unit"), str(teacher), str(tmp_path / "together")]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])} | common

    def both() -> list[str]:
        running = [
            subprocess.Popen(
                command,
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in (0, 1)
        ]
        said = [process.communicate(timeout=120)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0]
        return said

    first, second = both()
    assert first == second != ""
    record = read_record(tmp_path / "together")
    assert record.outputs.keys() == alone.outputs.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "teacher.pt", "together"]
    theirs, ours = (load_model(tmp_path / name / STUDENT_NAME).model.state_dict() for name in ("alone", "together"))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)
    # Finished work is found by all of them, and nobody waits for somebody who does not come.
    assert both() == [first, second]
