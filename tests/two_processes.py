"""What each of two processes does that train together; the test beside one process reads what they leave behind."""

from __future__ import annotations

import csv
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from training_runs import Net, drawn_images, plan, weights_of

from edgekit.compress.training.distributed import joined
from edgekit.compress.training.log import CSV_NAME
from edgekit.compress.training.plan import EpochRecord, TrainPlan
from edgekit.compress.training.trainer import train
from edgekit.errors import BadInputError

# 43 images in batches of 8: the last is of 3, which two processes cannot share evenly.
IMAGES = drawn_images(43, 0)
STEPS = 6
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "batch_norm": "running", "learning_rate": 0.02}
PLANS: dict[str, TrainPlan] = {
    "none": plan("none", **SETTINGS),
    "ewa": plan("ewa", **SETTINGS),
    "swa": plan("swa", **SETTINGS),
    "swa mid-network": plan("swa", tap="features.3", **SETTINGS),
    "swa with a parameter that is not used": plan("swa", **SETTINGS),
    "swa twice": plan("swa", **SETTINGS),
    "sswa with everything": plan(
        "sswa", **SETTINGS, ema_decay=0.8, clip_norm=0.5, patience=2, held_back=0.2, mixed_precision="off"
    ),
}


class Killer:
    """A constraint that does nothing until it is called once more than it bears."""

    def __init__(self, bears: int) -> None:
        self._left = bears

    def apply(self, student: nn.Module) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt


def trained(name: str, workplace: Path | None = None) -> tuple[Net, tuple[EpochRecord, ...]]:
    """The student of a plan after training, and its records."""
    student = Net(seed=1)
    if "not used" in name:
        student.idle = nn.Parameter(torch.ones(3))
    if "twice" in name:
        # As between the rounds of iterative pruning: nothing of the first run may act on the second.
        train(student, Net(seed=2).eval(), IMAGES, plan("ewa", **SETTINGS))
    return student, train(student, Net(seed=2).eval(), IMAGES, PLANS[name], workplace=workplace)


def curve(workplace: Path) -> list[dict[str, float]]:
    """What was logged of every step."""
    with (workplace / CSV_NAME).open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def resumed(folder: Path) -> bool:
    """Whether a run that was killed in its second epoch, with dropout, ends as one that was not."""

    def run(bears: int, workplace: Path | None) -> bytes:
        student = Net(seed=1, dropout=0.3)
        options = plan("sswa", constraints=(Killer(bears),), **SETTINGS)
        train(student, Net(seed=2), IMAGES, options, workplace=workplace)
        return weights_of(student)

    try:
        run(1 + STEPS + 2, folder / "killed")
    except KeyboardInterrupt:
        assert list((folder / "killed").glob("*.ckpt"))
        return run(99, folder / "killed") == run(99, None)
    return False


def refused(**settings: Any) -> str:
    """What is said of a plan that cannot be carried out."""
    try:
        train(Net(1), Net(2), IMAGES, plan("none", **{**SETTINGS, **settings}))
    except BadInputError as error:
        return f"{error.message} {error.where}"
    return ""


def process(rank: int, folder: Path, port: int) -> None:
    """All of it; what was found is written to `found-RANK.pt`."""
    # As in the process of the tests, whose settings do not reach this one.
    warnings.simplefilter("error")
    variables = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in variables.items()})
    with joined(torch.device("cpu")) as processes:
        found: dict[str, Any] = {"joined": [processes.rank, processes.size, processes.told(5.0 + rank)]}
    found["left"] = not distributed.is_initialized()
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    found["curves"] = {}
    for place, name in enumerate(PLANS):
        workplace = folder / str(place)
        student, history = trained(name, workplace)
        found[name] = [record.to_dict() for record in history], dict(student.state_dict())
        found["curves"][name] = curve(workplace)
        found["files"] = sorted(item.name for item in workplace.iterdir())
    found["resumed"] = resumed(folder)
    found["diverged"] = refused(learning_rate=1e30)
    found["batch statistics"] = refused(batch_norm="batch")
    torch.save(found, folder / f"found-{rank}.pt")
    distributed.destroy_process_group()
