"""What is written down of every step."""

from __future__ import annotations

import csv
import dataclasses
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from training_runs import Net, Recorder, drawn_images, plan

from edgekit.compress.options import LOGS, FinetuneOptions
from edgekit.compress.training.checkpoint import CHECKPOINT_NAME
from edgekit.compress.training.log import CSV_NAME, LoggedStep, opened_log
from edgekit.compress.training.plan import EpochRecord
from edgekit.compress.training.trainer import train
from edgekit.errors import BadInputError, UnavailableError

IMAGES = drawn_images(32, 0)


def run(workplace: Path, log: str = "csv", observer: Recorder | None = None) -> tuple[EpochRecord, ...]:
    options = plan("swa", epochs=2, log=log)
    return train(Net(seed=1), Net(seed=2), IMAGES, options, observer or Recorder(), workplace=workplace)


def test_csv_has_every_step_in_full_and_adds_up_to_the_records(tmp_path: Path) -> None:
    observer = Recorder()
    history = run(tmp_path / "new" / "folder", observer=observer)
    with (tmp_path / "new" / "folder" / CSV_NAME).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert [int(row["epoch"]) for row in rows] == [1, 1, 2, 2]
    for name in ("loss", "supervised", "distillation", "matching"):
        for epoch, record in enumerate(history):
            # Batches of the same size: the mean over images is that over steps.
            found = math.fsum(float(row[name]) for row in rows[2 * epoch : 2 * epoch + 2]) / 2
            assert found == pytest.approx(getattr(record, name), rel=1e-12)
    assert float(rows[2]["rate"]) == history[1].learning_rate
    assert f"loss {float(rows[-1]['loss']):.4f}" in observer.steps[-1][2]


def test_csv_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name)
    assert (tmp_path / "a" / CSV_NAME).read_bytes() == (tmp_path / "b" / CSV_NAME).read_bytes()


def test_no_log_where_none_is_wanted(tmp_path: Path) -> None:
    run(tmp_path, log="none")
    assert [item.name for item in tmp_path.iterdir()] == [CHECKPOINT_NAME]


def test_an_unknown_log_is_refused() -> None:
    assert FinetuneOptions().log == LOGS[0] == "csv"
    with pytest.raises(BadInputError, match=r"compress\.finetune\.log"):
        FinetuneOptions(log="paper")


def test_tensorboard_that_is_not_installed_is_named_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    observer = Recorder()
    with pytest.raises(UnavailableError, match="tensorboard") as caught:
        run(tmp_path, log="tensorboard", observer=observer)
    assert "pip install tensorboard" in (caught.value.hint or "")
    assert observer.steps == []


def test_tensorboard_gets_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a writer of the same calls: the package itself is not part of what edgekit is tested with."""
    seen: dict[tuple[int, str], float] = {}
    begun: list[dict[str, Any]] = []

    class SummaryWriter:
        def __init__(self, folder: str, **settings: Any) -> None:
            begun.append({"folder": folder, **settings})

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen[step, name] = value

        def flush(self) -> None: ...

        def close(self) -> None: ...

    stand_in = ModuleType("torch.utils.tensorboard")
    monkeypatch.setattr(stand_in, "SummaryWriter", SummaryWriter, raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    run(tmp_path / "events", log="tensorboard")
    run(tmp_path / "csv")
    with (tmp_path / "csv" / CSV_NAME).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [field.name for field in dataclasses.fields(LoggedStep) if field.name != "step"]
    assert seen == {(int(row["step"]), name): float(row[name]) for row in rows for name in names}
    opened_log("tensorboard", tmp_path / "events", mark=3).close()
    assert [each["purge_step"] for each in begun] == [1, 4]
