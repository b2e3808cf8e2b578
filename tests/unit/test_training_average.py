"""The moving average of the weights: by its definition, under constraints, and what the student ends as."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from training_runs import Net, drawn_images, plan

from edgekit.compress.training.average import Average
from edgekit.compress.training.trainer import train
from edgekit.compress.training.weights import tensors_of


class Witness:
    """A constraint that asks for nothing and remembers the weights at every call."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def apply(self, student: nn.Module) -> None:
        self.seen.append({name: tensor.double() for name, tensor in tensors_of(student).items()})


class Mask:
    """Every second row of one convolution's kernels is zero."""

    def apply(self, student: nn.Module) -> None:
        student.get_parameter("features.4.weight")[:, :, ::2] = 0


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_student_ends_as_the_average_written_out(decay: float) -> None:
    witness, student = Witness(), Net(seed=1)
    train(student, Net(seed=2), drawn_images(64, 0), plan(ema_decay=decay, epochs=2, constraints=(witness,)))
    first, *after = witness.seen[:-1]  # the last call is the constraint applied to the average
    assert len(after) == 8
    for name, found in tensors_of(student).items():
        expected = first[name]
        for weights in after:
            expected = decay * expected + (1 - decay) * weights[name]
        if found.is_floating_point():
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6, msg=name)
        else:
            assert torch.equal(found.double(), after[-1][name]), name


def test_without_a_decay_the_last_weights_stay() -> None:
    witness, student = Witness(), Net(seed=1)
    train(student, Net(seed=2), drawn_images(32, 0), plan(constraints=(witness,)))
    last = witness.seen[-1]
    assert all(torch.equal(found.double(), last[name]) for name, found in tensors_of(student).items())


def test_the_average_does_not_change_how_the_student_learns() -> None:
    histories = [
        train(Net(seed=1), Net(seed=2), drawn_images(64, 0), plan(ema_decay=decay, epochs=2)) for decay in (0.0, 0.9)
    ]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("decay", [0.0, 0.9])
@pytest.mark.parametrize("patience", [0, 2])
def test_a_mask_is_exact_in_what_the_student_ends_as(decay: float, patience: int) -> None:
    student = Net(seed=1)
    options = plan(ema_decay=decay, epochs=2, patience=patience, held_back=0.3, constraints=(Mask(),))
    train(student, Net(seed=2), drawn_images(48, 0), options)
    weight = student.features[4].weight
    assert (weight[:, :, ::2] == 0).all()
    assert (weight[:, :, 1::2] != 0).all()


def test_a_mask_is_put_on_an_average_that_began_without_it() -> None:
    """The average itself keeps a share of the weights it began with; only the constraint takes it away."""
    student = Net(seed=1)
    average = Average(student, 0.9)
    with torch.no_grad():
        Mask().apply(student)
    average.update(student)
    assert (average.tensors["features.4.weight"][:, :, ::2] != 0).any()


def test_average_keeps_copies() -> None:
    student = Net(seed=1)
    average = Average(student, 0.9)
    before = copy.deepcopy(dict(average.tensors))
    with torch.no_grad():
        student.fc.weight.fill_(7)
    assert all(torch.equal(average.tensors[name], before[name]) for name in before)
