"""Stages: done once, done again when anything changed, never left looking whole when they are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.core import stages
from edgekit.core.digests import digest_bytes
from edgekit.core.stages import RECORD_NAME, FileRef, Stage, StageRecord, read_record, run_stage
from edgekit.errors import BadInputError, DefectError, IntegrityError


class Seen:
    """An observer that writes down what it was told about stages."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def stage_started(self, stage: str) -> None:
        self.events.append(("started", stage))

    def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
        assert seconds >= 0
        self.events.append(("finished", stage, skipped, summary))

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        raise AssertionError("run_stage has no steps of its own")

    def noted(self, message: str) -> None:
        raise AssertionError(message)


class Work:
    """A stage body that doubles its input and counts how often it ran."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.runs = 0

    def __call__(self, folder: Path) -> Mapping[str, Any]:
        self.runs += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "doubled").write_bytes(self.source.read_bytes() * 2)
        (folder / "note").write_text("done")
        return {"runs": self.runs, "summary": f"run {self.runs}", "pair": (1, 2)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "input.bin"
    path.write_bytes(b"abc")
    return path


@pytest.fixture
def stage(source: Path) -> Stage:
    return Stage("double", 1, {"factor": 2, "names": ["a"]}, {"source": source}, {"known": "00ff"})


@pytest.fixture
def work(source: Path) -> Work:
    return Work(source)


def test_a_stage_runs_and_records_what_it_did(stage: Stage, work: Work, tmp_path: Path) -> None:
    seen = Seen()
    record = run_stage(stage, tmp_path / "out", work, seen)
    assert record.stage == "double"
    assert record.options == {"factor": 2, "names": ["a"]}
    assert record.inputs == {"source": digest_bytes(b"abc"), "known": "00ff"}
    assert record.outputs == {
        "note": FileRef(digest_bytes(b"done"), 4),
        "sub/doubled": FileRef(digest_bytes(b"abcabc"), 6),
    }
    assert record.facts == {"runs": 1, "summary": "run 1", "pair": [1, 2]}
    assert seen.events == [("started", "double"), ("finished", "double", False, "run 1")]
    assert read_record(tmp_path / "out") == record


def test_unchanged_work_is_skipped(stage: Stage, work: Work, tmp_path: Path) -> None:
    first = run_stage(stage, tmp_path / "out", work)
    seen = Seen()
    assert run_stage(stage, tmp_path / "out", work, seen) == first
    assert work.runs == 1
    assert seen.events == [("started", "double"), ("finished", "double", True, "run 1")]


def test_moved_work_is_still_done(stage: Stage, work: Work, tmp_path: Path) -> None:
    run_stage(stage, tmp_path / "out", work)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    run_stage(stage, tmp_path / "elsewhere", work)
    assert work.runs == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda stage: replace(stage, options={"factor": 3, "names": ["a"]}),
        lambda stage: replace(stage, options={**stage.options, "new": None}),
        lambda stage: replace(stage, version=2),
        lambda stage: replace(stage, name="triple"),
        lambda stage: replace(stage, digests={"known": "00fe"}),
        lambda stage: replace(stage, digests={"other": "00ff"}),
    ],
    ids=["option", "further option", "version", "name", "known digest", "name of a digest"],
)
def test_done_again_when_what_was_asked_changed(
    stage: Stage, work: Work, tmp_path: Path, change: Callable[[Stage], Stage]
) -> None:
    first = run_stage(stage, tmp_path / "out", work)
    second = run_stage(change(stage), tmp_path / "out", work)
    assert work.runs == 2
    assert second.key != first.key


def test_done_again_when_an_input_byte_changed(stage: Stage, work: Work, source: Path, tmp_path: Path) -> None:
    run_stage(stage, tmp_path / "out", work)
    source.write_bytes(b"abd")
    run_stage(stage, tmp_path / "out", work)
    assert (tmp_path / "out" / "sub" / "doubled").read_bytes() == b"abdabd"
    assert work.runs == 2


def test_done_again_when_a_file_of_an_input_folder_was_renamed(work: Work, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    stage = Stage("double", 1, {}, {"images": folder})
    run_stage(stage, tmp_path / "out", work)
    (folder / "a").rename(folder / "b")
    run_stage(stage, tmp_path / "out", work)
    assert work.runs == 2


def test_done_again_by_another_version_of_edgekit(
    stage: Stage, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(stage, tmp_path / "out", work)
    monkeypatch.setattr(stages, "__version__", "0.0.0")
    run_stage(stage, tmp_path / "out", work)
    assert work.runs == 2


def flip_an_output_byte(out: Path) -> None:
    (out / "sub" / "doubled").write_bytes(b"abcabd")


def remove_an_output(out: Path) -> None:
    (out / "note").unlink()


def cut_the_record(out: Path) -> None:
    data = (out / RECORD_NAME).read_bytes()
    (out / RECORD_NAME).write_bytes(data[: len(data) // 2])


def _edit(out: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    raw = json.loads((out / RECORD_NAME).read_bytes())
    changed = change(raw)
    (out / RECORD_NAME).write_text(json.dumps(raw if changed is None else changed))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "output byte": flip_an_output_byte,
    "output gone": remove_an_output,
    "record cut": cut_the_record,
    "record empty": lambda out: (out / RECORD_NAME).write_bytes(b"") and None,
    "other key": lambda out: _edit(out, lambda raw: raw.update(key="0" * 64)),
    "other digest": lambda out: _edit(out, lambda raw: raw["outputs"]["note"].update(sha256="0" * 64)),
    "other format": lambda out: _edit(out, lambda raw: raw.update(format="edgekit.stage-record/2")),
    "no outputs": lambda out: _edit(out, lambda raw: raw.pop("outputs") and None),
    "outputs a list": lambda out: _edit(out, lambda raw: raw.update(outputs=["note"])),
    "output without size": lambda out: _edit(out, lambda raw: raw["outputs"]["note"].pop("size") and None),
    "size no number": lambda out: _edit(out, lambda raw: raw["outputs"]["note"].update(size="x")),
    "facts a number": lambda out: _edit(out, lambda raw: raw.update(facts=3)),
    "a list": lambda out: _edit(out, lambda raw: [raw]),
    "a number": lambda out: _edit(out, lambda raw: 7),
    "key twice": lambda out: (out / RECORD_NAME).write_text('{"key": 1, "key": 2}') and None,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_work_is_done_again(stage: Stage, work: Work, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    first = run_stage(stage, tmp_path / "out", work)
    damage(tmp_path / "out")
    again = run_stage(stage, tmp_path / "out", work)
    assert work.runs == 2
    assert again.outputs == first.outputs
    assert read_record(tmp_path / "out") == again


# Another key is sound, it only belongs to other work.
@pytest.mark.parametrize("name", sorted(set(DAMAGES) - {"other key"}))
def test_damaged_work_is_no_record(stage: Stage, work: Work, tmp_path: Path, name: str) -> None:
    run_stage(stage, tmp_path / "out", work)
    DAMAGES[name](tmp_path / "out")
    with pytest.raises(IntegrityError) as caught:
        read_record(tmp_path / "out")
    assert caught.value.where is not None
    assert str(tmp_path / "out") in caught.value.where


def test_where_there_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        read_record(tmp_path)


def test_a_body_that_raises_leaves_the_old_result(stage: Stage, work: Work, tmp_path: Path) -> None:
    first = run_stage(stage, tmp_path / "out", work)

    def failing(folder: Path) -> Mapping[str, Any]:
        (folder / "half").write_text("half")
        raise BadInputError("The teacher has no map.")

    with pytest.raises(BadInputError, match="no map"):
        run_stage(replace(stage, version=2), tmp_path / "out", failing)
    assert read_record(tmp_path / "out") == first
    assert sorted(item.name for item in tmp_path.iterdir()) == ["input.bin", "out"]


def test_a_first_run_that_raises_leaves_nothing(stage: Stage, tmp_path: Path) -> None:
    def failing(folder: Path) -> Mapping[str, Any]:
        (folder / "half").write_text("half")
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run_stage(stage, tmp_path / "out", failing)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["input.bin"]


def test_facts_that_are_no_json_are_a_defect_and_leave_nothing(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(DefectError):
        run_stage(stage, tmp_path / "out", lambda folder: {"value": float("nan")})
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_missing_is_said_before_anything_runs(work: Work, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        run_stage(Stage("double", 1, {}, {"source": tmp_path / "absent"}), tmp_path / "out", work)
    assert work.runs == 0


@pytest.mark.parametrize("mine", ["thesis.txt", "sub/thesis.txt"])
def test_a_folder_of_somebodys_is_not_replaced(stage: Stage, work: Work, tmp_path: Path, mine: str) -> None:
    path = tmp_path / "out" / mine
    path.parent.mkdir(parents=True)
    path.write_text("years of work")
    with pytest.raises(BadInputError, match="would be lost") as caught:
        run_stage(stage, tmp_path / "out", work)
    assert caught.value.hint is not None
    assert path.read_text() == "years of work"
    assert work.runs == 0


def test_a_file_of_somebodys_is_not_replaced(stage: Stage, work: Work, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("years of work")
    with pytest.raises(BadInputError, match="would be lost"):
        run_stage(stage, tmp_path / "out", work)
    assert (tmp_path / "out").read_text() == "years of work"


def test_an_empty_folder_is_used(stage: Stage, work: Work, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    run_stage(stage, tmp_path / "out", work)
    assert work.runs == 1


def test_a_record_is_the_same_fresh_and_read_back(stage: Stage, work: Work, tmp_path: Path) -> None:
    fresh = run_stage(stage, tmp_path / "out", work)
    again = read_record(tmp_path / "out")
    assert isinstance(again, StageRecord)
    assert fresh.to_dict() == again.to_dict()


def test_the_order_of_options_and_inputs_does_not_matter(
    stage: Stage, work: Work, source: Path, tmp_path: Path
) -> None:
    run_stage(stage, tmp_path / "out", work)
    turned = replace(stage, options=dict(reversed(stage.options.items())))
    run_stage(turned, tmp_path / "out", work)
    assert work.runs == 1
