"""The compress stage over files: what it writes, that it repeats itself, when it does nothing and says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import Images, images, probe, write_teacher

from edgekit.compress.options import CompressOptions, FinetuneOptions, MatchingOptions, PruneOptions
from edgekit.compress.stage import HISTORY_FORMAT, HISTORY_NAME, STUDENT_NAME, CompressRequest, compress
from edgekit.core.canonical import read_json
from edgekit.core.progress import NullObserver
from edgekit.core.stages import StageRecord
from edgekit.errors import BadInputError
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.surgery import Surgery, apply_surgery


def options(rate: float = 0.5, epochs: int = 1, loss: str = "swa", scope: str = "all") -> CompressOptions:
    return CompressOptions(
        prune=PruneOptions(rate=rate, scope=scope),
        finetune=FinetuneOptions(epochs=epochs, batch_size=16),
        matching=MatchingOptions(loss=loss),
    )


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return write_teacher(tmp_path / "teacher.pt")


def run(teacher: Path, folder: Path, **settings: Any) -> StageRecord:
    request = {"data": images(), "options": options(), "threads": 1, **settings}
    return compress(CompressRequest(teacher, **request), folder)


@pytest.mark.parametrize("scope", ["all", "inner"])
def test_student_is_a_checkpoint_that_loads_on_its_own(teacher: Path, tmp_path: Path, scope: str) -> None:
    record = run(teacher, tmp_path / "out", options=options(scope=scope))
    student, original = load_model(tmp_path / "out" / STUDENT_NAME), load_model(teacher)
    assert student.surgery is not None
    assert (student.arch, student.arguments, student.card) == (original.arch, original.arguments, original.card)
    replayed = original.model
    apply_surgery(replayed, student.surgery)
    shapes = {name: value.shape for name, value in student.model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in replayed.state_dict().items()}
    facts = record.facts
    assert facts["after"]["parameters"] == sum(value.numel() for value in student.model.parameters())
    assert facts["after"]["macs"] < facts["before"]["macs"]
    assert facts["channels"]["layer1.0.conv1"] == [6, 3]
    assert facts["channels"]["conv1"] == [6, 3 if scope == "all" else 6]
    assert "parameters" in facts["summary"]
    assert "skipped" not in facts
    history = read_json(tmp_path / "out" / HISTORY_NAME)
    assert history["format"] == HISTORY_FORMAT
    (only,) = history["runs"]
    assert only["name"] == "fine-tune"
    assert [epoch["epoch"] for epoch in only["epochs"]] == [1]
    assert facts["last_epoch"] == only["epochs"][-1]
    assert set(record.outputs) == {STUDENT_NAME, HISTORY_NAME, "logs/fine-tune.steps.csv"}


def test_same_request_gives_the_same_bytes_under_any_name(teacher: Path, tmp_path: Path) -> None:
    """Neither the file's name, nor the time, nor what the process drew before is in the student."""
    renamed = tmp_path / "copy of the teacher.pt"
    renamed.write_bytes(teacher.read_bytes())
    first = run(teacher, tmp_path / "a")
    torch.rand(3)
    second = run(renamed, tmp_path / "b" / "deeper")
    assert first == second
    for name in (STUDENT_NAME, HISTORY_NAME):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / "deeper" / name).read_bytes()
    other = run(teacher, tmp_path / "c", seed=1)
    assert other.outputs[STUDENT_NAME] != first.outputs[STUDENT_NAME]


def test_finished_work_is_not_done_again_and_changed_input_is(teacher: Path, tmp_path: Path) -> None:
    class Recorder(NullObserver):
        def __init__(self) -> None:
            self.skipped: list[bool] = []

        def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
            self.skipped.append(skipped)

    observer = Recorder()
    base = CompressRequest(teacher, data=images(), options=options(epochs=0), threads=1)
    relabelled = Images(base.data.pixels, (base.data.labels + 1) % 3) if base.data else None
    for request in (
        base,
        base,
        dataclasses.replace(base, options=options(epochs=0, rate=0.4)),
        dataclasses.replace(base, data=relabelled),
        dataclasses.replace(base, load=LoadOptions(card={"tap": "layer2"})),
        dataclasses.replace(base, data=None),
    ):
        compress(request, tmp_path / "out", observer)
    assert observer.skipped == [False, True, False, False, False, False]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"data": None}, "no training data"),
        ({"options": options(rate=0, epochs=0)}, "nothing to prune and no epoch to train"),
    ],
)
def test_skipped_stage_says_why_and_hands_the_teacher_on(
    teacher: Path, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    record = run(teacher, tmp_path / "out", **settings)
    assert record.facts["skipped"] == reason
    assert reason in record.facts["summary"]
    student, original = load_model(tmp_path / "out" / STUDENT_NAME), load_model(teacher)
    assert (student.arch, student.arguments, student.card) == (original.arch, original.arguments, original.card)
    assert student.surgery is None
    handed_on = student.model.state_dict()
    assert all(torch.equal(value, handed_on[name]) for name, value in original.model.state_dict().items())
    assert read_json(tmp_path / "out" / HISTORY_NAME)["runs"] == []


def test_pruning_alone_leaves_the_kept_weights_as_they_were(teacher: Path, tmp_path: Path) -> None:
    record = run(teacher, tmp_path / "out", options=options(epochs=0))
    student, original = load_model(tmp_path / "out" / STUDENT_NAME), load_model(teacher).model
    assert isinstance(student.surgery, Surgery)
    apply_surgery(original, student.surgery)
    assert torch.equal(student.model(probe()), original(probe()))
    assert "last_epoch" not in record.facts


def test_fine_tuning_alone_keeps_every_channel(teacher: Path, tmp_path: Path) -> None:
    run(teacher, tmp_path / "out", options=options(rate=0))
    student, original = load_model(tmp_path / "out" / STUDENT_NAME), load_model(teacher).model
    assert student.surgery is None
    assert not torch.equal(student.model(probe()), original(probe()))


def test_a_student_can_be_compressed_again(teacher: Path, tmp_path: Path) -> None:
    """The second surgery is recorded relative to the architecture, not to the first student."""
    run(teacher, tmp_path / "once")
    first = load_model(tmp_path / "once" / STUDENT_NAME)
    run(tmp_path / "once" / STUDENT_NAME, tmp_path / "twice", options=options(rate=0.34, epochs=0))
    second = load_model(tmp_path / "twice" / STUDENT_NAME)
    assert first.surgery is not None
    assert second.surgery is not None
    fewer = second.surgery.layers["layer3.0.conv1"].out_kept
    kept = first.surgery.layers["layer3.0.conv1"].out_kept
    assert kept is not None
    assert fewer is not None
    assert (len(kept), len(fewer)) == (5, 3)
    assert set(fewer) < set(kept)
    run(tmp_path / "twice" / STUDENT_NAME, tmp_path / "tuned", options=options(rate=0))
    assert load_model(tmp_path / "tuned" / STUDENT_NAME).surgery == second.surgery


def test_failure_leaves_nothing_behind(teacher: Path, tmp_path: Path) -> None:
    single = Images(images().pixels, np.zeros(40, dtype=np.int64))
    with pytest.raises(BadInputError, match="cannot teach"):
        run(teacher, tmp_path / "out", data=single)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher.pt"]
