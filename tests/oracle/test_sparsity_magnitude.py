"""Global magnitude pruning against a slow sort, torch's own, and the properties that rounds rely on."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_networks import NETWORKS, GroupedLike, MobileLike, ResidualLike, VggLike, images, made
from torch import nn
from torch.nn.utils import prune as torch_prune

from edgekit.compress.options import SPARSE_PATTERNS, SparsifyOptions
from edgekit.compress.sparsity.magnitude import masks_for
from edgekit.compress.sparsity.masks import Masks
from edgekit.compress.sparsity.patterns import SPARSITY_PATTERNS
from edgekit.compress.sparsity.rounds import sparsify_in_rounds, sparsities
from edgekit.errors import BadInputError

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def evened(factory: Callable[[], nn.Module], seed: int = 3) -> nn.Module:
    """A network whose layers have weights of one size, as if trained: no layer dies before the others."""
    model = made(factory, seed)
    for module in model.modules():
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            module.weight /= module.weight.std()
    return model


def slowly(model: nn.Module, kinds: tuple[type, ...], sparsity: float) -> dict[str, torch.Tensor]:
    """One list of all weights, sorted by magnitude and then by place, and the first of them struck out."""
    names = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, kinds)]
    names = [name for name, _ in model.named_parameters() if name in names]
    entries = [
        (abs(float(value)), order, index)
        for order, name in enumerate(names)
        for index, value in enumerate(model.get_parameter(name).flatten().tolist())
    ]
    kept = {name: torch.ones(model.get_parameter(name).numel(), dtype=torch.bool) for name in names}
    for _, order, index in sorted(entries)[: round(len(entries) * sparsity)]:
        kept[names[order]][index] = False
    return {name: mask.reshape(model.get_parameter(name).shape) for name, mask in kept.items()}


def same(found: Masks, expected: dict[str, torch.Tensor]) -> bool:
    return list(found.kept) == list(expected) and all(
        torch.equal(found.kept[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("sparsity", [0.013, 0.5, 0.8])
@pytest.mark.parametrize("name", NETWORKS)
def test_masks_are_those_of_a_slow_sort(name: str, sparsity: float, linear: bool) -> None:
    model = evened(NETWORKS[name])
    before = copy.deepcopy(model.state_dict())
    found = masks_for(model, SparsifyOptions(linear=linear, sparsity=sparsity), sparsity)
    kinds = (*CONVOLUTIONS, nn.Linear) if linear else CONVOLUTIONS
    assert same(found, slowly(model, kinds, sparsity))
    assert found.zeros == round(found.weights * sparsity)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(mask.dtype == torch.bool for mask in found.kept.values())


@pytest.mark.parametrize("sparsity", [0.2, 0.77])
@pytest.mark.parametrize("name", ["vgg", "residual", "mobile", "grouped", "dense"])
def test_zeros_are_those_of_torchs_own_global_pruning(name: str, sparsity: float) -> None:
    model = evened(NETWORKS[name])
    theirs = copy.deepcopy(model)
    modules = [(module, "weight") for module in theirs.modules() if isinstance(module, CONVOLUTIONS)]
    torch_prune.global_unstructured(modules, pruning_method=torch_prune.L1Unstructured, amount=sparsity)
    masks_for(model, SparsifyOptions(), sparsity).apply(model)
    expected, found = theirs(images()), model(images())
    assert torch.equal(found, expected)
    for module, _ in modules:
        torch_prune.remove(module, "weight")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in theirs.state_dict().items())


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]), min_size=8, max_size=40), st.floats(0.15, 0.6))
@settings(max_examples=60, deadline=None)
def test_of_equal_weights_the_first_go(values: list[float], sparsity: float) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(1, len(values) - 4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(values[:4]).reshape(-1, 1, 1, 1))
        model[1].weight.copy_(torch.tensor(values[4:]).reshape(-1, 1, 1, 1))
    expected = slowly(model, CONVOLUTIONS, sparsity)
    if not all(mask.any() for mask in expected.values()):
        with pytest.raises(BadInputError, match="without any weight"):
            masks_for(model, SparsifyOptions(), sparsity)
        return
    assert same(masks_for(model, SparsifyOptions(), sparsity), expected)


@given(seed=st.integers(0, 1000), step=st.sampled_from([0.2, 0.35, 0.5]), sparsity=st.floats(0.3, 0.85))
@settings(max_examples=15, deadline=None)
def test_zeros_of_one_round_are_zeros_of_all_that_follow(seed: int, step: float, sparsity: float) -> None:
    """Even where training leaves a masked weight away from zero, or a living one at zero."""
    model = evened(MobileLike, seed)
    generator = torch.Generator().manual_seed(seed)
    rounds: list[Masks] = []

    def between(network: nn.Module, masks: Masks, number: int) -> None:
        assert number == len(rounds) + 1
        rounds.append(masks)
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
            parameter[torch.rand(parameter.shape, generator=generator) < 0.1] = 0

    options = SparsifyOptions(sparsity=sparsity, step=step)
    rounds.append(sparsify_in_rounds(model, options, between=between))
    assert len(rounds) == len(sparsities(options))
    for earlier, later, reached in zip(rounds[:-1], rounds[1:], sparsities(options)[1:], strict=True):
        assert all(bool((later.kept[name] <= kept).all()) for name, kept in earlier.kept.items())
        assert later.zeros == round(later.weights * reached) >= earlier.zeros
    rounds[-1].check(model)


@settings(deadline=None)
@given(sparsity=st.floats(0.001, 0.999), step=st.floats(0.05, 0.95))
def test_rounds_take_the_same_share_of_what_is_left_and_end_exactly(sparsity: float, step: float) -> None:
    reached = sparsities(SparsifyOptions(sparsity=sparsity, step=step))
    assert reached[-1] == sparsity
    assert all(earlier < later for earlier, later in itertools.pairwise(reached))
    left = [1.0, *(1 - each for each in reached)]
    shares = [1 - later / earlier for earlier, later in itertools.pairwise(left)]
    assert shares[:-1] == pytest.approx([step] * (len(shares) - 1))
    assert shares[-1] <= step + 1e-6


def test_the_papers_rounds() -> None:
    reached = sparsities(SparsifyOptions(sparsity=0.97))
    assert len(reached) == 16
    assert reached[:3] == pytest.approx([0.2, 0.36, 0.488])
    # Not a third round of a rounding's size.
    assert sparsities(SparsifyOptions(sparsity=0.36)) == pytest.approx((0.2, 0.36))
    assert sparsities(SparsifyOptions(sparsity=0)) == ()
    assert sparsities(SparsifyOptions(sparsity=0.5, pattern="2:4")) == (0.5,)


def test_the_registry_and_the_recipe_know_the_same_patterns() -> None:
    assert SPARSITY_PATTERNS.names() == tuple(sorted(SPARSE_PATTERNS))


def test_what_stays_dense_is_said() -> None:
    masks = masks_for(made(MobileLike), SparsifyOptions(ignore=("stem*", "squeeze")), 0.4)
    assert set(masks.dense) == {"stem.0", "squeeze", "fc"}
    assert "ignored" in masks.dense["stem.0"]
    assert "linear" in masks.dense["fc"]
    # Depthwise convolutions are ranked like all others.
    assert masks.layer_sparsities()["depthwise.0.weight"] > 0
    assert "up.weight" in masks_for(made(GroupedLike), SparsifyOptions(), 0.4).kept


def test_a_weight_of_two_layers_counts_once_and_is_masked_in_both() -> None:
    model = made(ResidualLike)
    model.a1[0].weight = model.b1[0].weight
    masks = masks_for(model, SparsifyOptions(), 0.5)
    assert "a1.0.weight" in masks.kept
    assert "b1.0.weight" not in masks.kept
    masks.apply(model)
    assert float((model.b1[0].weight == 0).double().mean()) == masks.layer_sparsities()["a1.0.weight"] > 0


def test_a_layer_that_would_die_is_named() -> None:
    model = made(ResidualLike)
    with torch.no_grad():
        model.b1[0].weight *= 1e-6
        model.projection[0].weight *= 1e-6
    with pytest.raises(BadInputError, match="without any weight") as caught:
        masks_for(model, SparsifyOptions(), 0.5)
    assert caught.value.where == "b1.0, projection.0"
    assert "compress.sparsify.ignore" in (caught.value.hint or "")
    spared = masks_for(model, SparsifyOptions(ignore=("b1.*", "projection.*")), 0.5)
    assert spared.zeros == round(spared.weights * 0.5)


@pytest.mark.parametrize("pattern", SPARSE_PATTERNS)
@pytest.mark.parametrize(
    ("ignore", "message"), [(("layer9.*",), "matches none"), (("*",), "No weight of the network can be made sparse")]
)
def test_requests_that_would_do_nothing_are_errors(pattern: str, ignore: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        masks_for(made(VggLike), SparsifyOptions(pattern=pattern, sparsity=0.5, ignore=ignore), 0.5)


@pytest.mark.parametrize("pattern", SPARSE_PATTERNS)
def test_a_network_without_convolutions_is_an_error_unless_linear_layers_are_asked_for(pattern: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    options = SparsifyOptions(pattern=pattern, sparsity=0.5)
    with pytest.raises(BadInputError, match="No weight of the network") as caught:
        masks_for(model, options, 0.5)
    assert "compress.sparsify.linear is off" in (caught.value.found or "")
    assert masks_for(model, SparsifyOptions(pattern=pattern, sparsity=0.5, linear=True), 0.5).sparsity() == 0.5
    with pytest.raises(BadInputError, match="No weight of the network"):
        masks_for(nn.Flatten(), options, 0.5)


@pytest.mark.parametrize("sparsity", [0.0, 1.0, -0.2, 1.5, float("nan")])
def test_a_share_out_of_range_is_an_error(sparsity: float) -> None:
    with pytest.raises(BadInputError, match="cannot be zero"):
        masks_for(made(VggLike), SparsifyOptions(), sparsity)


@pytest.mark.parametrize("field", [{"sparsity": 1.0}, {"sparsity": -0.1}, {"step": 0.0}, {"step": 1.0}])
def test_options_out_of_range_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match=r"compress\.sparsify\."):
        SparsifyOptions(**field)


def test_fewer_zeros_than_one_or_than_before_are_errors() -> None:
    model = made(VggLike)
    with pytest.raises(BadInputError, match="So few weights"):
        masks_for(model, SparsifyOptions(), 1e-6)
    with pytest.raises(BadInputError, match="So few weights") as caught:
        masks_for(model, SparsifyOptions(), 0.4, earlier=masks_for(model, SparsifyOptions(), 0.6))
    assert "masked already" in (caught.value.expected or "")


@pytest.mark.parametrize("pattern", SPARSE_PATTERNS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(pattern: str, value: float) -> None:
    model = made(VggLike)
    with torch.no_grad():
        model.features[0].weight[2, 1, 0, 0] = value
    with pytest.raises(BadInputError, match="not finite") as caught:
        masks_for(model, SparsifyOptions(pattern=pattern, sparsity=0.5), 0.5)
    assert caught.value.where == "features.0.weight"
