"""Killed and started again: the same bytes, records and log; and what a checkpoint is trusted with."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import Images, Net, Recorder, drawn_images, plan, weights_of

from edgekit.compress.training.checkpoint import CHECKPOINT_NAME, Checkpoints
from edgekit.compress.training.log import CSV_NAME
from edgekit.compress.training.plan import EpochRecord, TrainPlan
from edgekit.compress.training.trainer import train
from edgekit.core.digests import digest_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer

IMAGES = drawn_images(40, 0)
EPOCHS, STEPS = 4, 3
# Everything that has a state of its own at once: dropout, thinned channels, momentum, average, best epoch, schedule.
FULL = {"epochs": EPOCHS, "ema_decay": 0.7, "patience": 3, "held_back": 0.15, "clip_norm": 1.0}


def run(
    options: TrainPlan, workplace: Path | None, observer: Observer = NULL_OBSERVER, images: Images = IMAGES
) -> tuple[bytes, tuple[EpochRecord, ...]]:
    student = Net(seed=2, dropout=0.3)
    history = train(student, Net(seed=2).eval(), images, options, observer, workplace=workplace)
    return weights_of(student), history


def killed(options: TrainPlan, workplace: Path, steps: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(options, workplace, Recorder(stop_after=steps))


@pytest.mark.parametrize("settings", [{"epochs": EPOCHS}, FULL], ids=["plain", "full"])
def test_killed_at_any_epoch_boundary_a_run_ends_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    options = plan("sswa", **settings)
    whole = run(options, tmp_path / "whole")
    log = (tmp_path / "whole" / CSV_NAME).read_bytes()
    assert whole == run(options, None)
    for epoch in range(1, EPOCHS):
        workplace, observer = tmp_path / str(epoch), Recorder()
        # The first step after the boundary is done and logged, and lost.
        killed(options, workplace, epoch * STEPS + 1)
        assert (workplace / CHECKPOINT_NAME).exists()
        torch.rand(3)
        assert run(options, workplace, observer) == whole
        assert [done for done, _, _ in observer.steps] == list(range(epoch * STEPS + 1, EPOCHS * STEPS + 1))
        assert observer.notes == [f"fine-tune goes on after epoch {epoch}"]
        assert (workplace / CSV_NAME).read_bytes() == log
        assert sorted(item.name for item in workplace.iterdir()) == sorted([CSV_NAME, CHECKPOINT_NAME])


def test_killed_again_and_again(tmp_path: Path) -> None:
    options = plan("swa", **FULL)
    for steps in (2, STEPS + 2, STEPS + 1, 3 * STEPS + 2):
        killed(options, tmp_path, steps)
    assert run(options, tmp_path) == run(options, None)


def test_a_run_that_had_ended_ends_again_at_once(tmp_path: Path) -> None:
    """As between rounds: nothing is left to do but to take the weights."""
    options, observer = plan("swa", **FULL), Recorder()
    whole = run(options, tmp_path)
    assert run(options, tmp_path, observer) == whole
    assert observer.steps == []


def test_a_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    options = plan("none", epochs=9, patience=1, held_back=0.15, learning_rate=0.5)
    whole = run(options, tmp_path)
    assert 1 < len(whole[1]) < 9
    observer = Recorder()
    assert run(options, tmp_path, observer) == whole
    assert observer.steps == []


@pytest.mark.parametrize("place", [0, 25, 100, 5000, -1])
def test_a_damaged_checkpoint_is_noted_and_not_used(tmp_path: Path, place: int) -> None:
    options, observer = plan(epochs=2), Recorder()
    killed(options, tmp_path, STEPS + 1)
    path = tmp_path / CHECKPOINT_NAME
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert run(options, tmp_path, observer) == run(options, None)
    assert len(observer.steps) == 2 * STEPS
    assert [note.endswith("is damaged; training begins anew") for note in observer.notes] == [True]


def test_half_a_checkpoint_is_damaged(tmp_path: Path) -> None:
    options, observer = plan(epochs=2), Recorder()
    killed(options, tmp_path, STEPS + 1)
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:-1000])
    run(options, tmp_path, observer)
    assert "damaged" in observer.notes[0]


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"learning_rate": 0.02}, {"loss": "ewa"}, {"beta": 50.0}, {"epochs": 3}, {"tap": "features.6"}],
    ids=str,
)
def test_a_checkpoint_of_another_plan_is_noted_and_not_used(tmp_path: Path, other: dict[str, Any]) -> None:
    killed(plan(**{"epochs": 2, **other}), tmp_path, STEPS + 1)
    observer = Recorder()
    assert run(plan(epochs=2), tmp_path, observer) == run(plan(epochs=2), None)
    assert ["another training run" in note for note in observer.notes] == [True]


@pytest.mark.parametrize("changed", ["images", "labels", "student", "teacher", "constraint"])
def test_a_checkpoint_of_other_material_is_noted_and_not_used(tmp_path: Path, changed: str) -> None:
    class Shift:
        def apply(self, student: torch.nn.Module) -> None:
            student.get_parameter("fc.bias").clamp_(max=0)

    options, observer = plan(epochs=2), Recorder()
    killed(options, tmp_path, STEPS + 1)
    images, student, teacher = IMAGES, Net(seed=2, dropout=0.3), Net(seed=2).eval()
    if changed == "images":
        images = Images(IMAGES.pixels ^ 1, IMAGES.labels)
    elif changed == "labels":
        images = Images(IMAGES.pixels, IMAGES.labels[::-1])
    elif changed == "constraint":
        options = plan(epochs=2, constraints=(Shift(),))
    else:
        (student if changed == "student" else teacher).fc.bias.data[0] += 1
    train(student, teacher, images, options, observer, workplace=tmp_path)
    assert ["another training run" in note for note in observer.notes] == [True]
    assert len(observer.steps) == 2 * STEPS


def test_a_run_whose_log_is_gone_begins_anew(tmp_path: Path) -> None:
    options, observer = plan(epochs=2), Recorder()
    killed(options, tmp_path, STEPS + 1)
    (tmp_path / CSV_NAME).unlink()
    run(options, tmp_path, observer)
    assert "no log" in observer.notes[0]
    assert (tmp_path / CSV_NAME).read_text(encoding="utf-8").count("\n") == 1 + 2 * STEPS


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of a checkpoint was run",))


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    """Even one whose digest is right: whoever writes the file can compute it too."""
    buffer = io.BytesIO()
    torch.save({"identity": "x", "learner": Bomb()}, buffer)
    for body in (buffer.getvalue(), pickle.dumps(Bomb())):
        data = b"edgekit.training/1 " + digest_bytes(body).encode() + b"\n" + body
        (tmp_path / CHECKPOINT_NAME).write_bytes(data)
        observer = Recorder()
        assert Checkpoints(tmp_path, "x").load(observer) is None
        assert "damaged" in observer.notes[0]


def test_a_checkpoint_that_lacks_something_is_noted_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, observer = plan(epochs=2), Recorder()
    save = Checkpoints.save
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", lambda self, content: save(self, {**content, "learner": {}}))
        killed(options, tmp_path, STEPS + 1)
    assert run(options, tmp_path, observer) == run(options, None)
    assert "not whole" in observer.notes[0]
