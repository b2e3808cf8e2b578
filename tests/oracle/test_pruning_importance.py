"""Measures of importance against slow definitions and Torch-Pruning's own."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch_pruning
from pruning_networks import (
    NETWORKS,
    SHAPE,
    ConcatLike,
    ConvBn,
    DenseLike,
    MobileLike,
    ResidualLike,
    VggLike,
    images,
    made,
)
from torch import nn
from torch.nn import functional

from edgekit.compress.options import IMPORTANCES, PruneOptions
from edgekit.compress.pruning.dependency import ChannelGroup, find_groups
from edgekit.compress.pruning.equivalence import silenced_copy
from edgekit.compress.pruning.evidence import PruneEvidence, gather_evidence, labelled_batches
from edgekit.compress.pruning.importance import IMPORTANCE_SCORES, bn_scale_importance, filter_norms
from edgekit.compress.pruning.structured import prune
from edgekit.core.digests import digest_array
from edgekit.errors import BadInputError
from edgekit.interface.card import InputSpec, ModelCard

# Layers without batch normalisation behind them, which "bn-scale" cannot rank.
WITHOUT_NORM = {
    "vgg": ("features.0", "classifier.*"),
    "residual": (),
    "mobile": ("squeeze",),
    "concat": ("mix",),
    "grouped": ("up",),
    "dense": (),
    "shared": (),
}


def evidence_of(model: nn.Module, count: int = 6) -> PruneEvidence:
    return gather_evidence(model, [(images(count), torch.arange(count) % 3)], "softmax", seed=5)


def group_of(model: nn.Module, root: str) -> ChannelGroup:
    return next(group for group in find_groups(model, SHAPE) if group.root == root)


def test_the_registry_and_the_recipe_know_the_same_measures() -> None:
    assert IMPORTANCE_SCORES.names() == tuple(sorted(IMPORTANCES))


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("round_to", [1, 4])
def test_every_measure_removes_its_weakest_channels_and_nothing_else(name: str, importance: str, round_to: int) -> None:
    model = made(NETWORKS[name])
    ignore = WITHOUT_NORM[name] if importance == "bn-scale" else ()
    options = PruneOptions(rate=0.4, importance=importance, ignore=ignore, round_to=round_to)
    evidence = evidence_of(model)
    pruned = prune(model, options, SHAPE, evidence=evidence)
    x = images(dtype=torch.float64)
    expected = silenced_copy(copy.deepcopy(model).double(), pruned.surgery)(x)
    torch.testing.assert_close(copy.deepcopy(pruned.model).double()(x), expected, rtol=1e-9, atol=1e-9)
    for before, after in pruned.report.channels.values():
        assert after % round_to == 0 or after == before
    measure = IMPORTANCE_SCORES.load(importance)
    for group in find_groups(model, SHAPE):
        cut = pruned.surgery.layers.get(group.root)
        if cut is None or cut.out_kept is None or group.splits > 1 or group.root in pruned.report.untouched:
            continue
        scores = measure(model, group, evidence)
        assert scores is not None
        assert scores.dtype == torch.float64
        gone = sorted(set(range(group.size)) - set(cut.out_kept))
        assert scores[gone].max() <= scores[list(cut.out_kept)].min()


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_counts_do_not_depend_on_the_measure(importance: str) -> None:
    model = made(ResidualLike)
    report = prune(model, PruneOptions(rate=0.4, importance=importance), SHAPE, evidence=evidence_of(model)).report
    assert report.channels == prune(model, PruneOptions(rate=0.4), SHAPE).report.channels


def test_l2_norms_are_roots_of_sums_of_squares() -> None:
    plain = nn.Conv2d(2, 3, 2).requires_grad_(False)
    by_hand = [sum(float(w) ** 2 for w in plain.weight[i].flatten()) ** 0.5 for i in range(3)]
    assert filter_norms(plain, 2).tolist() == pytest.approx(by_hand)
    up = nn.ConvTranspose2d(4, 6, 2, groups=2).requires_grad_(False)
    columns = [up.weight[2 * (i // 3) : 2 * (i // 3) + 2, i % 3] for i in range(6)]
    assert filter_norms(up, 2).tolist() == pytest.approx([float(column.norm()) for column in columns])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ["vgg", "concat", "dense"])
def test_norms_choose_as_torch_prunings_do(name: str, order: int) -> None:
    model = made(NETWORKS[name])
    theirs = pruned_by_torch_pruning(
        model, torch_pruning.importance.GroupMagnitudeImportance(p=order, group_reduction="first", normalizer=None)
    )
    ours = prune(model, PruneOptions(rate=0.4, importance=f"l{order}"), SHAPE).model
    assert torch.equal(ours(images()), theirs(images()))


def test_bn_scale_chooses_as_torch_prunings_does() -> None:
    """Where one batch normalisation follows each layer; theirs measures nothing for a group without one."""
    model = made(lambda: nn.Sequential(ConvBn(3, 8), nn.ReLU(), ConvBn(8, 10), nn.ReLU(), *head(10)))
    theirs = pruned_by_torch_pruning(model, torch_pruning.importance.BNScaleImportance(normalizer=None))
    ours = prune(model, PruneOptions(rate=0.4, importance="bn-scale"), SHAPE).model
    assert torch.equal(ours(images()), theirs(images()))


def test_taylor_of_single_weights_is_the_square_of_torch_prunings() -> None:
    """Theirs adds magnitudes, ours squares: with one input and a 1 x 1 kernel a filter is one weight, and they meet."""
    model = made(lambda: nn.Sequential(nn.Conv2d(1, 9, 1, bias=False), nn.ReLU(), *head(9)))
    x, label = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(4)), torch.tensor([1])
    theirs = copy.deepcopy(model).requires_grad_(True)
    functional.cross_entropy(theirs(x), label).backward()
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, (x,), verbose=False)
    group = graph.get_pruning_group(theirs[0], torch_pruning.prune_conv_out_channels, list(range(9)))
    measure = torch_pruning.importance.GroupTaylorImportance(group_reduction="first", normalizer=None)
    evidence = gather_evidence(model, [(x, label)], "softmax")
    whole = next(found for found in find_groups(model, (1, 6, 6)) if found.root == "0")
    ours = IMPORTANCE_SCORES.load("taylor")(model, whole, evidence)
    assert ours is not None
    torch.testing.assert_close(ours.sqrt().float(), measure(group))


def test_bn_scale_is_the_weight_behind_the_layer_and_the_mean_of_several() -> None:
    model = made(DenseLike)
    scores = bn_scale_importance(model, group_of(model, "conv1"))
    parts = [model.norm2.weight[8:], model.norm.weight[8:20]]
    means = [model.norm2.weight.mean(), model.norm.weight.mean()]
    expected = sum(part.double() / mean.double() for part, mean in zip(parts, means, strict=True)) / 2
    torch.testing.assert_close(scores, expected)
    model = made(ResidualLike)
    with torch.no_grad():
        model.a1[1].weight[3] = -10
    scores = bn_scale_importance(model, group_of(model, "a1.0"))
    assert scores is not None
    assert int(scores.argmax()) == 3


def test_bn_scale_names_every_layer_that_it_cannot_measure() -> None:
    model = made(ConcatLike)
    model.left[1] = nn.BatchNorm2d(8, affine=False)
    model.norm = nn.BatchNorm2d(24, affine=False)
    model.eval().requires_grad_(False)
    with pytest.raises(BadInputError, match="bn-scale") as caught:
        prune(model, PruneOptions(rate=0.5, importance="bn-scale"), SHAPE)
    assert caught.value.where == "mix, left.0"
    assert "'mix', 'left.0' to compress.prune.ignore" in (caught.value.hint or "")
    ignored = PruneOptions(rate=0.5, importance="bn-scale", ignore=("left.0", "mix"))
    assert prune(model, ignored, SHAPE).report.channels["right.0"] == (10, 5)


def test_squared_gradients_are_those_of_single_images() -> None:
    """Against functional per-sample gradients, with the batch split in two ways."""
    model = made(ResidualLike)
    x, wanted = images(5), torch.arange(5) % 3
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(values: dict[str, torch.Tensor], one: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(model, (values, buffers), (one[None],))
        return functional.cross_entropy(logits, label[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, wanted)
    for batches in ([(x, wanted)], [(x[:2], wanted[:2]), (x[2:], wanted[2:])]):
        evidence = gather_evidence(model, batches, "softmax")
        assert evidence.images == 5
        for name, gradients in each.items():
            expected = gradients.double().square().mean(dim=0)
            torch.testing.assert_close(evidence.squared_gradients[name], expected, rtol=1e-4, atol=1e-12)


def test_gradients_of_a_multi_label_network_are_those_of_its_own_loss() -> None:
    model = made(ResidualLike)
    positive = torch.tensor([[1, 0, 1, 0, 0]])
    evidence = gather_evidence(model, [(images(1), positive)], "multi-label")
    # Of the head's bias the gradient is known: the error of each of the five binary answers, over five.
    errors = (torch.sigmoid(model(images(1))) - positive)[0] / 5
    torch.testing.assert_close(evidence.squared_gradients["fc.bias"].float(), errors.square())


def test_gathering_leaves_the_network_as_it_was() -> None:
    model = made(MobileLike).train()
    model.stem.eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first = evidence_of(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    again = evidence_of(model.eval())
    assert all(torch.equal(first.squared_gradients[name], value) for name, value in again.squared_gradients.items())


def test_taylor_sees_what_norms_do_not() -> None:
    """A filter of large weights that nothing listens to costs nothing to remove."""
    model = made(ResidualLike)
    with torch.no_grad():
        model.a1[0].weight[4] *= 100
        model.a2[0].weight[:, 4] = 0
    kept_by = {}
    for importance in ("l1", "taylor"):
        options = PruneOptions(rate=0.1, scope="inner", importance=importance)
        kept_by[importance] = prune(model, options, SHAPE, evidence=evidence_of(model)).surgery.layers["a1.0"].out_kept
    assert 4 in (kept_by["l1"] or ())
    assert 4 not in (kept_by["taylor"] or (4,))


def test_the_contributions_of_several_makers_add_up() -> None:
    model = made(ResidualLike)
    evidence = evidence_of(model)
    group = next(found for found in find_groups(model, SHAPE) if "b2.0" in {link.layer for link in found.links})
    scores = IMPORTANCE_SCORES.load("taylor")(model, group, evidence)
    expected = torch.zeros(16, dtype=torch.float64)
    for name in ("b2.0", "projection.0"):
        weight = model.get_submodule(name).weight.double()
        expected += (weight.square() * evidence.squared_gradients[f"{name}.weight"]).sum(dim=(1, 2, 3))
    torch.testing.assert_close(scores, expected)


def test_random_channels_follow_from_the_seed_alone() -> None:
    model, other = made(VggLike), made(VggLike, seed=12)
    options = PruneOptions(rate=0.5, importance="random")

    def surgery(network: nn.Module, seed: int) -> object:
        return prune(network, options, SHAPE, evidence=PruneEvidence(seed=seed)).surgery

    assert surgery(model, 1) == surgery(other, 1)
    assert surgery(model, 1) != surgery(model, 2)


@pytest.mark.parametrize("importance", ["taylor", "random"])
def test_missing_evidence_is_an_error(importance: str) -> None:
    with pytest.raises(BadInputError, match=f"'{importance}' needs"):
        prune(made(VggLike), PruneOptions(rate=0.5, importance=importance), SHAPE)


def test_evidence_about_another_network_is_an_error() -> None:
    model = made(ResidualLike)
    evidence = evidence_of(model)
    options = PruneOptions(rate=0.5, importance="taylor")
    smaller = prune(model, options, SHAPE, evidence=evidence).model
    with pytest.raises(BadInputError, match="another network"):
        prune(smaller, options, SHAPE, evidence=evidence)
    with pytest.raises(BadInputError, match="another network"):
        prune(made(VggLike), options, SHAPE, evidence=evidence)


def test_no_image_and_broken_gradients_are_errors() -> None:
    model = made(VggLike)
    with pytest.raises(BadInputError, match="No image"):
        gather_evidence(model, [], "softmax")
    with torch.no_grad():
        model.classifier[3].weight[0, 0] = float("nan")
    with pytest.raises(BadInputError, match="not finite"):
        evidence_of(copy.deepcopy(model), 1)


def test_images_for_evidence_are_balanced_and_follow_from_the_seed() -> None:
    class Images:
        pixels = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 12, 12, 3), dtype=np.uint8)
        labels = np.array([0] * 15 + [1] * 5)
        digests = tuple(digest_array(image) for image in pixels)

    card = ModelCard(InputSpec(12, 12), ("a", "b", "c", "d"))
    drawn = list(labelled_batches(Images(), card, 6, seed=3))
    (x, found), (again, _) = drawn[0], next(iter(labelled_batches(Images(), card, 6, seed=3)))
    assert (x.shape, found.bincount().tolist()) == ((6, 3, 12, 12), [3, 3])
    assert torch.equal(x, again)


def head(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)


def pruned_by_torch_pruning(model: nn.Module, importance: object) -> nn.Module:
    theirs = copy.deepcopy(model).requires_grad_(True)
    classifier = [module for module in theirs.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        theirs,
        (images(2),),
        importance=importance,
        pruning_ratio=0.4,
        ignored_layers=[classifier],
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
    )
    pruner.step()
    return theirs
