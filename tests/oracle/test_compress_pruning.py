"""Pruning against definitions: silenced channels, Torch-Pruning's own cuts, and the head fault of the paper's code."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import pytest
import torch
import torch_pruning
from pruning_networks import (
    NETWORKS,
    SHAPE,
    ConvBn,
    GroupedLike,
    MobileLike,
    PaddedShortcut,
    ResidualLike,
    SharedLike,
    Shuffled,
    VggLike,
    images,
    made,
)
from torch import nn

from edgekit.compress.cost import Cost, measure_cost
from edgekit.compress.options import PruneOptions
from edgekit.compress.pruning.dependency import find_groups
from edgekit.compress.pruning.equivalence import is_pure_removal, silenced_copy
from edgekit.compress.pruning.importance import filter_norms, l1_importance
from edgekit.compress.pruning.structured import prune
from edgekit.errors import BadInputError, UnavailableError
from edgekit.teacher.architectures.registry import ARCHITECTURES
from edgekit.teacher.surgery import LayerCut, Surgery, apply_surgery


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("rate", "scope", "round_to"), [(0.3, "all", 1), (0.5, "inner", 1), (0.5, "all", 4)])
def test_pruned_network_answers_as_if_the_removed_channels_were_silent(
    name: str, rate: float, scope: str, round_to: int
) -> None:
    model = made(NETWORKS[name])
    before = copy.deepcopy(model.state_dict())
    pruned = prune(model, PruneOptions(rate=rate, scope=scope, round_to=round_to), SHAPE)
    assert pruned.report.after.parameters < pruned.report.before.parameters
    assert pruned.report.after.macs < pruned.report.before.macs
    x = images(dtype=torch.float64)
    expected = silenced_copy(copy.deepcopy(model).double(), pruned.surgery)(x)
    torch.testing.assert_close(pruned.model.double()(x), expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_cuts_equal_torch_prunings_own_bit_for_bit(name: str) -> None:
    """The same channels removed by Torch-Pruning one group after the other on the live network."""
    model = made(NETWORKS[name])
    pruned = prune(model, PruneOptions(rate=0.4), SHAPE)
    theirs = copy.deepcopy(model).requires_grad_(True)
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, (images(2),), verbose=False)
    for group in find_groups(model, SHAPE):
        kept = pruned.surgery.layers.get(group.root, LayerCut()).out_kept
        if kept is not None:
            module = theirs.get_submodule(group.root)
            cut = graph.get_pruner_of_module(module).prune_out_channels
            graph.get_pruning_group(module, cut, sorted(set(range(group.size)) - set(kept))).prune()
    ours, expected = pruned.model.state_dict(), theirs.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in expected.items()}
    assert all(torch.equal(value, expected[key]) for key, value in ours.items())
    assert torch.equal(pruned.model(images()), theirs(images()))


@pytest.mark.parametrize("name", ["vgg", "concat"])
def test_choice_equals_torch_prunings_l1_pruner(name: str) -> None:
    """Where one layer makes each channel, the choice is that of Li et al. as Torch-Pruning implements it."""
    model = made(NETWORKS[name])
    theirs = copy.deepcopy(model).requires_grad_(True)
    classifier = [module for module in theirs.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        theirs,
        (images(2),),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=1, group_reduction="first", normalizer=None),
        pruning_ratio=0.4,
        ignored_layers=[classifier],
        # Fresh ones: the defaults are shared by all pruners of the process.
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
    )
    pruner.step()
    assert torch.equal(prune(model, PruneOptions(rate=0.4), SHAPE).model(images()), theirs(images()))


@pytest.mark.parametrize("name", NETWORKS)
def test_surgery_turns_a_fresh_instance_into_the_pruned_architecture(name: str) -> None:
    model = made(NETWORKS[name])
    pruned = prune(model, PruneOptions(rate=0.4), SHAPE)
    record = Surgery.from_dict(pruned.surgery.to_dict(), where="test")
    assert record == pruned.surgery
    fresh = made(NETWORKS[name], seed=99)
    apply_surgery(fresh, record)
    fresh.load_state_dict(pruned.model.state_dict(), strict=True)
    assert torch.equal(fresh(images()), pruned.model(images()))
    replayed = copy.deepcopy(model)
    apply_surgery(replayed, record)
    assert torch.equal(replayed(images()), pruned.model(images()))
    for module in fresh.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)


@pytest.mark.parametrize("name", ["vgg", "residual", "mobile"])
def test_channels_without_any_weight_go_first_and_are_not_missed(name: str) -> None:
    model = made(NETWORKS[name])
    options = PruneOptions(rate=0.25, scope="inner")
    prunable = [group for group in find_groups(model, SHAPE) if not group.coupled and group.obstacle is None]
    emptied = {}
    with torch.no_grad():
        for group in prunable:
            count = group.size - int(group.size * (1 - options.rate))
            gone = [(3 * index + 1) % group.size for index in range(count)]
            emptied[group.root] = gone
            for link in group.links:
                if link.side != "in":
                    module = model.get_submodule(link.layer)
                    module.weight[gone] = 0
                    if module.bias is not None:
                        module.bias[gone] = 0
    assert emptied
    pruned = prune(model, options, SHAPE)
    for root, gone in emptied.items():
        kept = pruned.surgery.layers[root].out_kept
        assert kept is not None
        assert set(kept).isdisjoint(gone)
    torch.testing.assert_close(pruned.model(images()), model(images()), rtol=1e-5, atol=1e-6)


def test_columns_of_a_flattened_head_stay_with_their_channel() -> None:
    model = made(VggLike)
    surgery = prune(model, PruneOptions(rate=0.3, ignore=("classifier.*",)), SHAPE).surgery
    kept = surgery.layers["features.2.0"].out_kept
    assert kept is not None
    assert 0 < len(kept) < 10
    expected = tuple(channel * 36 + position for channel in kept for position in range(36))
    assert surgery.layers["classifier.0"] == LayerCut(in_kept=expected)


def test_the_scrambled_head_of_the_released_code_is_caught() -> None:
    """There the mask of kept channels is tiled over the positions, although features are flattened channel first."""
    model = made(VggLike)
    right = prune(model, PruneOptions(rate=0.3, ignore=("classifier.*",)), SHAPE).surgery
    kept = right.layers["features.2.0"].out_kept
    assert kept is not None
    mask = torch.zeros(10, dtype=torch.bool)
    mask[list(kept)] = True
    tiled = tuple(mask.repeat(36).nonzero().flatten().tolist())
    wrong = Surgery({**right.layers, "classifier.0": LayerCut(in_kept=tiled)})
    scrambled = copy.deepcopy(model)
    apply_surgery(scrambled, wrong)
    # Every layer fits and the network runs: only its answers tell.
    assert scrambled(images()).shape == (3, 5)
    assert is_pure_removal(model, right, SHAPE)
    assert not is_pure_removal(model, wrong, SHAPE)


def test_equivalence_finds_a_channel_swapped_for_another() -> None:
    model = made(ResidualLike)
    right = prune(model, PruneOptions(rate=0.5, scope="inner"), SHAPE).surgery
    assert is_pure_removal(model, right, SHAPE)
    kept = right.layers["a1.0"].out_kept
    assert kept is not None
    other = tuple(sorted({*kept[1:], next(index for index in range(12) if index not in kept)}))
    wrong = Surgery({**right.layers, "a2.0": LayerCut(in_kept=other, out_kept=right.layers["a2.0"].out_kept)})
    assert not is_pure_removal(model, wrong, SHAPE)


@pytest.mark.parametrize(("channel", "right"), [(9, True), (5, False)])
def test_equivalence_sees_the_offset_of_a_padded_shortcut_although_all_layers_fit(channel: int, right: bool) -> None:
    """Channel 5 of the stem is channel 9 of the padded stream; the dependency graph takes it for channel 5."""
    model = made(PaddedShortcut)
    stem, stream = (0, 1, 2, 3, 4, 6, 7), tuple(index for index in range(16) if index != channel)
    surgery = Surgery(
        {
            "stem.0": LayerCut(out_kept=stem),
            "stem.1": LayerCut(out_kept=stem),
            "inner.0": LayerCut(in_kept=stem),
            "outer.0": LayerCut(out_kept=stream),
            "outer.1": LayerCut(out_kept=stream),
            "last.0": LayerCut(in_kept=stream),
        }
    )
    cut = copy.deepcopy(model)
    apply_surgery(cut, surgery)
    assert cut(images()).shape == (3, 4)
    assert is_pure_removal(model, surgery, SHAPE) is right


def test_equivalence_refuses_to_judge_a_network_that_answers_everything_alike() -> None:
    class Constant(VggLike):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * 0)

    model = made(Constant)
    with pytest.raises(BadInputError, match="answers every image alike"):
        prune(model, PruneOptions(rate=0.3), SHAPE)


@pytest.mark.parametrize(("factory", "layer"), [(PaddedShortcut, "stem.0"), (Shuffled, "first.0")])
def test_what_the_graph_misunderstands_is_an_error_and_never_a_wrong_network(
    factory: Callable[[], nn.Module], layer: str
) -> None:
    model = made(factory)
    with pytest.raises(BadInputError) as caught:
        prune(model, PruneOptions(rate=0.5, scope="all"), SHAPE)
    assert "compress.prune.scope to inner" in (caught.value.hint or "")
    assert "compress.prune.ignore" in (caught.value.hint or "")
    assert layer in (caught.value.where or "")


def test_scope_inner_prunes_within_the_blocks_of_a_padded_shortcut() -> None:
    model = made(PaddedShortcut)
    pruned = prune(model, PruneOptions(rate=0.5, scope="inner"), SHAPE)
    assert pruned.report.channels["inner.0"] == (16, 8)
    assert pruned.report.channels["stem.0"] == (8, 8)
    assert pruned.report.channels["outer.0"] == (16, 16)
    assert any("addition" in reason for reason in pruned.report.untouched.values())


def test_following_the_advice_to_ignore_a_shuffled_layer_works() -> None:
    pruned = prune(made(Shuffled), PruneOptions(rate=0.5, ignore=("first*",)), SHAPE)
    assert pruned.report.channels == {"first.0": (8, 8), "second.0": (8, 4), "fc": (4, 4)}


@pytest.mark.parametrize(("scope", "stem"), [("all", 4), ("inner", 8)])
def test_scope_decides_about_the_residual_stream(scope: str, stem: int) -> None:
    report = prune(made(ResidualLike), PruneOptions(rate=0.5, scope=scope), SHAPE).report
    assert report.channels["stem.0"] == report.channels["a2.0"] == (8, stem)
    assert report.channels["a1.0"] == (12, 6)
    assert report.channels["fc"] == (5, 5)


def test_a_product_of_branches_does_not_count_as_coupling_across_blocks() -> None:
    report = prune(made(MobileLike), PruneOptions(rate=0.5, scope="inner"), SHAPE).report
    assert report.channels["expand.0"] == report.channels["depthwise.0"] == report.channels["excite"] == (24, 12)
    assert report.channels["stem.0"] == report.channels["project.0"] == (8, 8)


@pytest.mark.parametrize(
    ("rate", "round_to", "kept"), [(0.3, 1, 7), (0.9, 1, 1), (0.99, 1, 1), (0.5, 4, 8), (0.3, 8, 8)]
)
def test_kept_channels_follow_the_papers_rule_and_the_rounding(rate: float, round_to: int, kept: int) -> None:
    report = prune(made(VggLike), PruneOptions(rate=rate, round_to=round_to, ignore=("classifier.*",)), SHAPE).report
    assert report.channels["features.2.0"] == (10, kept)


def test_groups_of_a_grouped_convolution_stay_equal() -> None:
    pruned = prune(made(GroupedLike), PruneOptions(rate=0.5), SHAPE)
    grouped = pruned.model.get_submodule("grouped.0")
    assert (grouped.groups, grouped.in_channels, grouped.out_channels) == (3, 6, 6)


def test_filter_norms_are_sums_of_absolute_weights() -> None:
    plain = nn.Conv2d(2, 3, 2).requires_grad_(False)
    assert filter_norms(plain).tolist() == pytest.approx([float(plain.weight[i].abs().sum()) for i in range(3)])
    up = nn.ConvTranspose2d(4, 6, 2, groups=2).requires_grad_(False)
    by_hand = [float(up.weight[2 * (i // 3) : 2 * (i // 3) + 2, i % 3].abs().sum()) for i in range(6)]
    assert filter_norms(up).tolist() == pytest.approx(by_hand)


def test_importance_of_coupled_layers_is_the_mean_of_their_relative_norms() -> None:
    model = made(ResidualLike)
    group = next(found for found in find_groups(model, SHAPE) if "b2.0" in {link.layer for link in found.links})
    parts = [filter_norms(model.get_submodule(name)).double() for name in ("b2.0", "projection.0")]
    expected = sum(part / part.mean() for part in parts) / 2
    torch.testing.assert_close(l1_importance(model, group), expected)


def test_cost_is_counted_by_the_stated_rule() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False),
        nn.ConvTranspose2d(8, 2, 2, stride=2),
        nn.Flatten(),
        nn.Linear(2 * 12 * 12, 5),
    ).eval()
    macs = 4 * 36 * 27 + 8 * 36 * 9 + 8 * 36 * 2 * 4 + 2 * 144 * 5
    parameters = (4 * 27 + 4) + 8 + 8 * 9 + (8 * 2 * 4 + 2) + (288 * 5 + 5)
    assert measure_cost(model, SHAPE) == Cost(parameters=parameters, macs=macs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PruneOptions(rate=0.3, ignore=("feature.*",)), "matches none"),
        (PruneOptions(rate=0.3, round_to=64), "No channel of the network can be removed"),
        (PruneOptions(rate=0.3, ignore=("*",)), "No channel of the network can be removed"),
    ],
)
def test_requests_that_would_do_nothing_are_errors(options: PruneOptions, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        prune(made(VggLike), options, SHAPE)


def test_rate_zero_leaves_the_network_as_it_is() -> None:
    model = made(VggLike)
    pruned = prune(model, PruneOptions(rate=0), SHAPE)
    assert pruned.surgery == Surgery({})
    assert torch.equal(pruned.model(images()), model(images()))
    assert pruned.model is not model


def test_missing_torch_pruning_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(UnavailableError, match="torch-pruning"):
        prune(made(VggLike), PruneOptions(rate=0.3), SHAPE)


def test_a_network_that_cannot_be_traced_is_an_error_with_its_own_reason() -> None:
    class Broken(VggLike):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("a reason of its own")

    with pytest.raises(BadInputError, match="cannot be traced") as caught:
        prune(made(Broken), PruneOptions(rate=0.3), SHAPE)
    assert "a reason of its own" in (caught.value.found or "")


def test_layers_that_cannot_be_cut_are_left_alone_with_a_reason() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)
            self.second, self.scale = nn.Conv2d(8, 6, 3), nn.Parameter(torch.ones(1, 6, 1, 1))
            self.third, self.fc = nn.Conv2d(6, 8, 3), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.second(torch.relu(self.norm(self.first(x)))) * self.scale)
            return self.fc(torch.relu(self.third(x)).mean(dim=(2, 3)))

    report = prune(made(Normalised), PruneOptions(rate=0.5), SHAPE).report
    assert report.channels == {"first": (8, 8), "second": (6, 6), "third": (8, 4), "fc": (3, 3)}
    assert "GroupNorm" in report.untouched["first"]
    assert "parameter" in report.untouched["second"]
    assert "answer" in report.untouched["fc"]


def test_layers_that_share_a_weight_are_not_parted() -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(
            *(ConvBn(3, 8), nn.ReLU(), ConvBn(8, 8), nn.ReLU(), ConvBn(8, 8), nn.ReLU(), ConvBn(8, 6), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
        )
        model[4][0].weight = model[2][0].weight
        return model

    report = prune(made(tied), PruneOptions(rate=0.5), SHAPE).report
    assert report.channels == {"0.0": (8, 8), "2.0": (8, 8), "4.0": (8, 8), "6.0": (6, 3), "10": (4, 4)}
    assert report.untouched["2.0"] == "'2.0' and '4.0' share a weight"


def test_two_uses_of_one_layer_are_cut_together() -> None:
    report = prune(made(SharedLike), PruneOptions(rate=0.5), SHAPE).report
    assert report.channels == {"stem.0": (8, 4), "block.0": (8, 4), "last.0": (12, 6), "fc": (4, 4)}


def test_a_cut_that_leaves_one_channel_a_layer_can_be_checked() -> None:
    """With random weights the last channel is often silent behind its ReLU, and then tells nothing."""
    for seed in range(6):
        model = made(VggLike, seed=seed)
        pruned = prune(model, PruneOptions(rate=0.95), SHAPE)
        assert set(pruned.report.channels.values()) == {(8, 1), (10, 1), (14, 1), (5, 5)}


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_built_in_architectures_can_be_pruned_in_both_scopes(name: str) -> None:
    arguments = {"depth": 8} if name == "cifar_resnet" else {}
    shape = (3, 32, 32)
    factory = ARCHITECTURES.load(name)
    model = made(lambda: factory(**arguments))
    for scope in ("inner", "all"):
        pruned = prune(model, PruneOptions(rate=0.3, scope=scope), shape)
        fresh = made(lambda: factory(**arguments), seed=8)
        apply_surgery(fresh, pruned.surgery)
        fresh.load_state_dict(pruned.model.state_dict(), strict=True)
        assert torch.equal(fresh(images(shape=shape)), pruned.model(images(shape=shape)))
