"""Masks: exact through training, readable from weights, and refused where they do not fit."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from pruning_networks import SHAPE, MobileLike, ResidualLike, VggLike, images, made
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgekit.compress.options import SPARSE_PATTERNS, FinetuneOptions, MatchingOptions, PruneOptions, SparsifyOptions
from edgekit.compress.pruning.structured import prune
from edgekit.compress.sparsity.magnitude import masks_for
from edgekit.compress.sparsity.masks import Masks, zero_masks
from edgekit.compress.sparsity.reading import masks_of
from edgekit.compress.training.plan import TrainPlan
from edgekit.compress.training.trainer import train
from edgekit.errors import BadInputError, DefectError
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.tap import Tap

OPTIONS = {
    "unstructured": SparsifyOptions(sparsity=0.6, ignore=("stem*",)),
    "2:4": SparsifyOptions(sparsity=0.5, pattern="2:4", ignore=("stem*",)),
}


def sparse(pattern: str = "unstructured") -> tuple[nn.Module, Masks]:
    model = made(ResidualLike)
    masks = masks_for(model, OPTIONS[pattern], OPTIONS[pattern].sparsity)
    masks.apply(model)
    return model, masks


def all_zero(model: nn.Module, masks: Masks) -> bool:
    """Plus zero: the bits that a file of zeros has."""
    return all(
        bool((model.get_parameter(name).view(torch.int32)[~kept] == 0).all()) for name, kept in masks.kept.items()
    )


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("pattern", SPARSE_PATTERNS)
def test_masked_weights_are_zero_to_the_bit_after_every_step_and_in_the_moving_average(
    pattern: str, nesterov: bool
) -> None:
    model, masks = sparse(pattern)
    model.train().requires_grad_(True)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=nesterov)
    start = copy.deepcopy(model.state_dict())
    for step in range(6):
        optimiser.zero_grad()
        functional.cross_entropy(model(images(4) + step), torch.tensor([0, 1, 2, 3])).backward()
        optimiser.step()
        # Momentum moves them at once: what holds them is the masks.
        moved = any(bool((model.get_parameter(name)[~kept] != 0).any()) for name, kept in masks.kept.items())
        assert moved
        masks.apply(model)
        average.update_parameters(model)
        assert all_zero(model, masks)
        masks.check(model)
    masks.check(average.module)
    assert all_zero(average.module, masks)
    assert all(parameter.requires_grad for parameter in model.parameters())
    # What is not masked has been trained.
    for name, kept in masks.kept.items():
        assert bool((model.get_parameter(name)[kept] != start[name][kept]).any())


def test_what_became_infinite_or_negative_is_plain_zero_again() -> None:
    model, masks = sparse()
    name, kept = next(iter(masks.kept.items()))
    with torch.no_grad():
        for value in (math.inf, -math.inf, math.nan, -0.0, -3.0):
            model.get_parameter(name)[~kept] = value
            masks.apply(model)
            assert all_zero(model, masks)


def test_masks_hold_in_another_memory_format_and_precision() -> None:
    model, masks = sparse()
    with torch.no_grad():
        other = copy.deepcopy(model).to(memory_format=torch.channels_last).double()
        for parameter in other.parameters():
            parameter.add_(1)
        masks.apply(other)
    masks.check(other)
    kept = masks.kept["a1.0.weight"]
    assert bool((other.a1[0].weight[kept] != 0).all())


def test_check_names_what_is_not_zero() -> None:
    model, masks = sparse()
    masks.check(model)
    gone = (~masks.kept["a1.0.weight"]).nonzero()[0]
    with torch.no_grad():
        model.a1[0].weight[tuple(gone)] = 1e-30
    with pytest.raises(DefectError, match="not zero") as caught:
        masks.check(model)
    assert caught.value.where == "a1.0.weight"


def test_masks_of_another_network_are_refused() -> None:
    model, masks = sparse()
    smaller = prune(model, PruneOptions(rate=0.5), SHAPE).model
    for other, message in ((made(VggLike), "does not have"), (smaller, "does not fit")):
        for act in (masks.apply, masks.check):
            with pytest.raises(BadInputError, match=message):
                act(other)
    # A single value would have been stretched over the whole weight.
    with pytest.raises(BadInputError, match="does not fit"):
        Masks({"a1.0.weight": torch.tensor(False)}).apply(model)


@pytest.mark.parametrize("pattern", SPARSE_PATTERNS)
def test_masks_are_read_back_from_stored_weights(pattern: str) -> None:
    model, masks = sparse(pattern)
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    fresh = made(ResidualLike, seed=50)
    fresh.load_state_dict(torch.load(stored, weights_only=True))
    found = masks_of(fresh, OPTIONS[pattern])
    assert list(found.kept) == list(masks.kept)
    assert all(torch.equal(found.kept[name], kept) for name, kept in masks.kept.items())
    assert found.dense == masks.dense
    assert found.to_dict() == masks.to_dict()


@pytest.mark.parametrize("pattern", SPARSE_PATTERNS)
def test_a_network_that_lost_its_zeros_is_an_error(pattern: str) -> None:
    model, masks = sparse(pattern)
    gone = (~masks.kept["a2.0.weight"]).nonzero()[0]
    with torch.no_grad():
        model.a2[0].weight[tuple(gone)] = 1.0
    with pytest.raises(BadInputError, match="not as sparse"):
        masks_of(model, OPTIONS[pattern])


def test_nothing_is_masked_where_nothing_was_asked_for() -> None:
    """Weights that are zero for another reason are not held there."""
    model = made(ResidualLike)
    with torch.no_grad():
        model.a1[0].weight.zero_()
    masks = masks_of(model, SparsifyOptions())
    assert (masks.kept, masks.sparsity(), masks.layer_sparsities()) == ({}, 0.0, {})
    masks.apply(model)
    masks.check(model)


def test_zeros_of_any_tensors_can_be_held() -> None:
    """As of a network that is not made of layers any more, under names of its own."""
    model, masks = sparse()
    found = zero_masks(dict(model.named_parameters()))
    assert set(found.kept) == set(masks.kept)
    assert all(torch.equal(found.kept[name], kept) for name, kept in masks.kept.items())


def test_numbers_are_those_of_the_masks() -> None:
    masks = Masks({"a": torch.tensor([[True, False], [False, False]]), "b": torch.tensor([True] * 6)}, {"c": "no"})
    assert (masks.weights, masks.zeros, masks.sparsity()) == (10, 3, 0.3)
    assert masks.layer_sparsities() == {"a": 0.75, "b": 0.0}
    assert masks.to_dict() == {
        "weights": 10,
        "zeros": 3,
        "sparsity": 0.3,
        "layers": {"a": 0.75, "b": 0.0},
        "dense": {"c": "no"},
    }


def test_channels_pruned_and_then_made_sparse() -> None:
    model = prune(made(MobileLike), PruneOptions(rate=0.5, round_to=4), SHAPE).model
    options = SparsifyOptions(sparsity=0.5, pattern="2:4")
    masks = masks_for(model, options, 0.5)
    assert {"expand.0.weight", "project.0.weight", "squeeze.weight"} <= set(masks.kept)
    masks.apply(model)
    assert masks_of(model, options).zeros == masks.zeros


def test_the_trainer_keeps_masks_and_moves_the_rest() -> None:
    class Images:
        pixels = np.random.default_rng(0).integers(0, 256, (12, *SHAPE[1:], 3)).astype(np.uint8)
        labels = np.arange(12) % 5
        digests = ()

    model, masks = sparse()
    teacher = copy.deepcopy(model)
    plan = TrainPlan(
        ModelCard(InputSpec(*SHAPE[1:]), tuple("abcde")),
        (Tap("b2"),),
        FinetuneOptions(epochs=2, batch_size=4, learning_rate=0.05),
        MatchingOptions(),
        constraints=(masks,),
    )
    train(model, teacher, Images(), plan)
    assert all_zero(model, masks)
    found = masks_of(model, OPTIONS["unstructured"])
    assert all(torch.equal(found.kept[name], kept) for name, kept in masks.kept.items())
    assert not torch.equal(model.a1[0].weight, teacher.a1[0].weight)
