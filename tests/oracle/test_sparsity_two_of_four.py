"""2:4 sparsity against its definition, one group of four at a time."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_networks import NETWORKS, GroupedLike, MobileLike, VggLike, made
from torch import nn

from edgekit.compress.options import SparsifyOptions
from edgekit.compress.sparsity.magnitude import masks_for
from edgekit.compress.sparsity.two_of_four import is_two_of_four
from edgekit.errors import BadInputError

OPTIONS = SparsifyOptions(sparsity=0.5, pattern="2:4")
LINEAR = SparsifyOptions(sparsity=0.5, pattern="2:4", linear=True)


def slowly(weight: torch.Tensor) -> torch.Tensor:
    """Which weights live, by looking at every output channel, cell of the kernel and four inputs on its own."""
    kept = torch.ones(weight.shape, dtype=torch.bool)
    cells = itertools.product(*(range(size) for size in weight.shape[2:]))
    for output, cell in itertools.product(range(weight.shape[0]), list(cells)):
        for first in range(0, weight.shape[1], 4):
            inputs = range(first, first + 4)
            ranked = sorted(inputs, key=lambda number: (-abs(float(weight.detach()[(output, number, *cell)])), number))
            for number in ranked[2:]:
                kept[(output, number, *cell)] = False
    return kept


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_are_those_of_the_definition(name: str) -> None:
    model = made(NETWORKS[name])
    masks = masks_for(model, LINEAR, 0.5)
    for parameter, kept in masks.kept.items():
        assert torch.equal(kept, slowly(model.get_parameter(parameter)))
    assert masks.sparsity() == 0.5
    assert set(masks.layer_sparsities().values()) == {0.5}
    masks.apply(model)
    layers = [key for key, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert {key for key in layers if is_two_of_four(model.get_submodule(key).weight)} == {
        key.removesuffix(".weight") for key in masks.kept
    }


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=8, max_size=8))
@settings(max_examples=60, deadline=None)
def test_of_equal_weights_the_later_go(values: list[float]) -> None:
    model = nn.Sequential(nn.Conv2d(8, 1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(values).reshape(1, 8, 1, 1))
    assert torch.equal(masks_for(model, OPTIONS, 0.5).kept["0.weight"], slowly(model[0].weight))


def test_fours_run_along_inputs_and_not_along_the_kernel() -> None:
    """A weight whose large values fill half of each kernel but all inputs at those cells is not 2:4."""
    weight = torch.zeros(2, 4, 2, 2)
    weight[:, :, 0] = 1
    assert not is_two_of_four(weight)
    weight = torch.zeros(2, 4, 2, 2)
    weight[:, 1::2] = 1
    assert is_two_of_four(weight)
    assert not is_two_of_four(torch.zeros(2, 6, 1, 1))


def test_what_cannot_be_two_of_four_stays_dense_and_is_named() -> None:
    masks = masks_for(made(MobileLike), OPTIONS, 0.5)
    assert set(masks.dense) == {"stem.0", "depthwise.0", "excite", "fc"}
    assert masks.dense["stem.0"] == "it has 3 inputs to each output channel, no multiple of 4"
    assert masks.dense["depthwise.0"] == "it has 1 inputs to each output channel, no multiple of 4"
    masks = masks_for(made(GroupedLike), OPTIONS, 0.5)
    assert masks.dense["up"] == "it is a transposed convolution"
    # Four inputs to each of three groups.
    assert masks.kept["grouped.0.weight"].shape[1] == 4


def test_other_shares_than_a_half_and_networks_without_fours_are_errors() -> None:
    with pytest.raises(BadInputError, match="half"):
        masks_for(made(VggLike), OPTIONS, 0.4)
    with pytest.raises(BadInputError, match=r"compress\.sparsify\.sparsity"):
        SparsifyOptions(sparsity=0.4, pattern="2:4")
    with pytest.raises(BadInputError, match="No layer of the network can be made 2:4") as caught:
        masks_for(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1)), OPTIONS, 0.5)
    assert "0: it has 3 inputs" in (caught.value.found or "")


def test_what_was_masked_before_stays_masked() -> None:
    model = made(VggLike)
    earlier = masks_for(model, SparsifyOptions(), 0.7)
    masks = masks_for(model, OPTIONS, 0.5, earlier=earlier)
    kept, before = masks.kept["features.2.0.weight"], earlier.kept["features.2.0.weight"]
    assert bool((kept <= before).all())
    assert torch.equal(kept, slowly(model.features[2][0].weight) & before)
