"""Work in progress beside a stage's folder: kept over a kill, gone when there is nothing to go on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.core.stages import Stage, run_stage, stage_key
from edgekit.core.workplace import kept_workplace
from edgekit.errors import BadInputError, DefectError, UnavailableError

KEY, OTHER = "0" * 64, "f" * 64


def leave(folder: Path, text: str = "half done") -> None:
    folder.mkdir(parents=True)
    (folder / "state").write_text(text)


def stopped_by(cause: BaseException, destination: Path) -> None:
    with kept_workplace(destination, KEY) as place:
        leave(place)
        raise cause


def test_finished_work_is_removed(tmp_path: Path) -> None:
    with kept_workplace(tmp_path / "out", KEY) as place:
        assert place == tmp_path / "out.work" / KEY
        assert not place.exists()
        leave(place)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cause", [KeyboardInterrupt(), SystemExit(1), UnavailableError("the disk is full"), OSError()])
def test_work_is_kept_where_the_same_command_could_still_succeed(tmp_path: Path, cause: BaseException) -> None:
    with pytest.raises(type(cause)):
        stopped_by(cause, tmp_path / "out")
    with kept_workplace(tmp_path / "out", KEY) as place:
        assert (place / "state").read_text() == "half done"


@pytest.mark.parametrize("cause", [BadInputError("training diverged"), DefectError("a mask does not hold")])
def test_work_that_cannot_succeed_is_removed(tmp_path: Path, cause: BaseException) -> None:
    with pytest.raises(type(cause)):
        stopped_by(cause, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_work_begun_with_other_options_is_not_gone_on_with_and_goes_in_the_end(tmp_path: Path) -> None:
    leave(tmp_path / "out.work" / OTHER)
    leave(tmp_path / "out-b.work" / OTHER)
    with kept_workplace(tmp_path / "out", KEY) as place:
        assert not place.exists()
        assert (tmp_path / "out.work" / OTHER).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out-b.work"]


def test_what_somebody_else_keeps_there_stays(tmp_path: Path) -> None:
    leave(tmp_path / "out.work" / "holiday", "pictures")
    with kept_workplace(tmp_path / "out", KEY) as place:
        leave(place)
    assert [path.name for path in (tmp_path / "out.work").iterdir()] == ["holiday"]


def test_the_key_is_the_stages_own_and_changes_with_options_and_inputs(tmp_path: Path) -> None:
    (tmp_path / "input").write_text("x")
    stage, other = (Stage("s", 1, {"a": value}, {"file": tmp_path / "input"}) for value in (1, 2))
    key = stage_key(stage)
    assert run_stage(stage, tmp_path / "out", lambda folder: {}).key == key
    assert stage_key(other) != key
    (tmp_path / "input").write_text("y")
    assert stage_key(stage) != key
