"""Two processes that train together: the loss curve and weights of one, second derivatives included."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from training_runs import Net, weights_of
from two_processes import PLANS, STEPS, curve, process, trained

from edgekit.compress.training.checkpoint import CHECKPOINT_NAME
from edgekit.compress.training.checks import check_statistics
from edgekit.compress.training.distributed import ALONE, Processes
from edgekit.compress.training.log import CSV_NAME
from edgekit.errors import BadInputError

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(process, args=(folder, port), nprocs=2)
    return [torch.load(folder / f"found-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", PLANS)
def test_two_processes_have_the_loss_curve_and_weights_of_one(
    found: list[dict[str, Any]], name: str, tmp_path: Path
) -> None:
    student, history = trained(name, tmp_path)
    alone = curve(tmp_path)
    assert len(alone) == STEPS * 2 or PLANS[name].finetune.patience
    assert len({row["loss"] for row in alone}) == len(alone)
    assert found[0]["curves"][name] == found[1]["curves"][name]
    for row, expected in zip(found[0]["curves"][name], alone, strict=True):
        assert row == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)
    for records, weights in (found[0][name], found[1][name]):
        for record, one in zip(records, history, strict=True):
            assert measured(record) == pytest.approx(measured(one.to_dict()), rel=TOLERANCE, abs=TOLERANCE)
        for key, value in student.state_dict().items():
            torch.testing.assert_close(weights[key], value, rtol=TOLERANCE, atol=TOLERANCE, msg=f"{name}: {key}")


def measured(record: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record.items() if value is not None}


def test_both_processes_end_with_the_same_bytes_and_records(found: list[dict[str, Any]]) -> None:
    for name in PLANS:
        (records, weights), (other_records, other_weights) = found[0][name], found[1][name]
        assert records == other_records
        assert all(torch.equal(weights[key], other_weights[key]) for key in weights)


def test_processes_that_torchrun_started_are_joined_and_left(found: list[dict[str, Any]]) -> None:
    assert [each["joined"] for each in found] == [[0, 2, 5.0], [1, 2, 5.0]]
    assert all(each["left"] for each in found)


def test_one_log_and_one_checkpoint_are_left(found: list[dict[str, Any]]) -> None:
    assert [each["files"] for each in found] == [[CSV_NAME, CHECKPOINT_NAME]] * 2


def test_a_killed_run_of_two_goes_on_with_each_ones_dropout(found: list[dict[str, Any]]) -> None:
    assert all(each["resumed"] for each in found)


def test_a_loss_that_is_not_finite_stops_both_with_the_same_words(found: list[dict[str, Any]]) -> None:
    assert found[0]["diverged"] == found[1]["diverged"]
    assert "Training diverged. epoch 1 of 2" in found[0]["diverged"]


def test_batch_statistics_are_refused(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert "Batch statistics cannot be shared" in each["batch statistics"]


def test_batch_statistics_are_no_matter_without_batch_normalisation() -> None:
    options = PLANS["none"].finetune
    shared = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4))
    check_statistics(shared, options, 2)
    for model, processes in ((nn.Conv2d(3, 4, 3), 2), (shared, 1)):
        check_statistics(model, type(options)(batch_norm="batch"), processes)
    with pytest.raises(BadInputError, match="second derivative"):
        check_statistics(shared, type(options)(batch_norm="batch"), 2)


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("size", range(1, 6))
def test_shares_are_the_batch_and_their_weighted_means_its_mean(count: int, size: int) -> None:
    values = torch.arange(1.0, count + 1) ** 2
    seen: list[int] = []
    total = torch.zeros(())
    for rank in range(size):
        processes = Processes(rank, size)
        positions, counted = processes.share(count)
        assert len(positions) > 0
        seen += positions[:counted].tolist()
        total += processes.weighted(values[torch.from_numpy(positions)].mean(), counted, count)
    assert sorted(seen) == list(range(count))
    # DistributedDataParallel divides the sum of gradients by the number of processes.
    assert float(total) / size == pytest.approx(float(values.mean()))


def test_one_process_alone_exchanges_nothing() -> None:
    student = Net(seed=1)
    before, loss, tensor = weights_of(student), torch.tensor(2.0), torch.arange(3)
    assert ALONE.first
    assert ALONE.wrapped(student, torch.zeros(1, 3, 16, 16)) is student
    assert ALONE.weighted(loss, 3, 3) is loss
    assert ALONE.told(3.5) == 3.5
    assert ALONE.gathered(tensor)[0] is tensor
    assert weights_of(student) == before
    assert np.array_equal(ALONE.share(4)[0], np.arange(4))
