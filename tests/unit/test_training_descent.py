"""Each step's size: the schedule in steps, clipping, groups with rates of their own, and frozen statistics."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_runs import Net, Recorder, drawn_images, plan, weights_of

from edgekit.compress.options import FinetuneOptions
from edgekit.compress.training.schedule import learning_rate_at
from edgekit.compress.training.trainer import train


def test_step_schedule_by_hand() -> None:
    options = FinetuneOptions(learning_rate=0.8, schedule="step", step_at=(0.5, 0.75), step_factor=0.5)
    assert [learning_rate_at(options, step, 8) for step in range(8)] == [0.8] * 4 + [0.4] * 2 + [0.2] * 2


@given(tenths=st.integers(1, 99), steps=st.integers(1, 400))
def test_a_share_of_the_steps_is_taken_exactly(tenths: int, steps: int) -> None:
    """0.55 * 20 is a little above 11 in floating point; the eleventh step must not wait for it."""
    options = FinetuneOptions(learning_rate=1.0, schedule="step", step_at=(tenths / 100,), step_factor=0.1)
    found = [learning_rate_at(options, step, steps) for step in range(steps)]
    assert found == [0.1 if 100 * step >= tenths * steps else 1.0 for step in range(steps)]


def test_training_follows_the_step_schedule_over_all_epochs() -> None:
    observer = Recorder()
    options = plan("none", epochs=2, schedule="step", step_at=(0.5,), learning_rate=0.04, step_factor=0.5)
    history = train(Net(1), Net(2), drawn_images(64, 0), options, observer)
    assert [record.learning_rate for record in history] == [0.04, 0.02]
    assert ["rate 0.04" in detail for _, _, detail in observer.steps] == [True] * 4 + [False] * 4


def moved(**options: object) -> tuple[float, Net]:
    """How far one step without momentum and decay moves the parameters, in L2, at a rate of 1."""
    student = Net(seed=1)
    settings = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 24, **options}
    train(student, Net(seed=2), drawn_images(24, 0), plan("swa", **settings))
    before = dict(Net(seed=1).named_parameters())
    squares = [(found - before[name]).detach().square().sum() for name, found in student.named_parameters()]
    return float(torch.stack(squares).sum().sqrt()), student


def test_clipping_bounds_the_norm_over_all_parameters_and_no_more() -> None:
    free, unclipped = moved()
    assert moved(clip_norm=free / 3)[0] == pytest.approx(free / 3, rel=1e-3)
    assert weights_of(moved(clip_norm=free * 3)[1]) == weights_of(unclipped)


def test_running_statistics_are_kept_and_used() -> None:
    student, start = Net(seed=1), Net(seed=1)
    history = train(student, Net(seed=2), drawn_images(48, 0), plan(batch_norm="running", epochs=2))
    for index in (1, 5, 8):
        own, former = student.features[index], start.features[index]
        assert torch.equal(own.running_mean, former.running_mean)
        assert torch.equal(own.running_var, former.running_var)
        assert not torch.equal(own.weight, former.weight)
    other = train(Net(seed=1), Net(seed=2), drawn_images(48, 0), plan(batch_norm="batch", epochs=2))
    assert history[0].loss != other[0].loss


def test_a_parameter_may_have_a_rate_of_its_own_and_no_decay() -> None:
    base = plan("none", weight_decay=0.1, batch_size=24)
    frozen = dataclasses.replace(base, learning_rates={"fc.weight": 0.0, "fc.bias": 0.0})
    kept, free, undecayed = Net(seed=1), Net(seed=1), Net(seed=1)
    train(kept, Net(seed=2), drawn_images(24, 0), frozen)
    train(free, Net(seed=2), drawn_images(24, 0), base)
    train(undecayed, Net(seed=2), drawn_images(24, 0), dataclasses.replace(base, undecayed=frozenset({"fc.weight"})))
    start = Net(seed=1).fc.weight
    assert torch.equal(kept.fc.weight, start)
    # One step of rate 0.01: the decay is all that tells the two apart.
    torch.testing.assert_close((undecayed.fc.weight - free.fc.weight).detach(), 0.01 * 0.1 * start.detach())
