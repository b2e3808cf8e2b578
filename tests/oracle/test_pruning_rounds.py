"""Iterative pruning: one surgery in the end, of the same size as one shot, and replayable."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_networks import NETWORKS, SHAPE, ConvBn, GroupedLike, ResidualLike, VggLike, images, made
from torch import nn

from edgekit.compress.options import PruneOptions
from edgekit.compress.pruning.choice import channels_kept
from edgekit.compress.pruning.dependency import AxisLink, ChannelGroup
from edgekit.compress.pruning.equivalence import is_pure_removal, silenced_copy
from edgekit.compress.pruning.evidence import PruneEvidence, gather_evidence
from edgekit.compress.pruning.rounds import plan_rounds, prune_in_rounds, round_rates
from edgekit.compress.pruning.structured import Pruned, prune
from edgekit.errors import BadInputError
from edgekit.teacher.surgery import Surgery, apply_surgery


def shaken(model: nn.Module, number: int) -> None:
    """Something like training: weights move, shapes do not."""
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def left_alone(_model: nn.Module, _number: int) -> None:
    pass


@settings(deadline=None)
@given(rate=st.floats(0.01, 0.99), rounds=st.integers(1, 20))
def test_rates_of_rounds_multiply_to_the_rate(rate: float, rounds: int) -> None:
    rates = round_rates(PruneOptions(rate=rate, rounds=rounds))
    assert len(rates) == rounds
    assert all(0 < each < 1 for each in rates)
    assert math.prod(1 - each for each in rates) == pytest.approx(1 - rate)


@settings(deadline=None)
@given(
    each=st.integers(1, 300),
    splits=st.sampled_from([1, 2, 3, 8]),
    rate=st.floats(0.01, 0.99),
    round_to=st.sampled_from([1, 4, 8, 16]),
)
def test_counts_are_the_least_that_fit_the_rate_the_rounding_and_equal_parts(
    each: int, splits: int, rate: float, round_to: int
) -> None:
    size = each * splits
    link = AxisLink("a", "out", tuple(range(size)), tuple(range(size)), produces=True, splits=splits)
    group = ChannelGroup("a", size, (link,), coupled=False, obstacle=None, misfit=False, _graph=None)
    least = splits * max(1, math.floor(each * (1 - rate) + 1e-9))
    fitting = [count for count in range(least, size + 1) if count % splits == 0 and count % round_to == 0]
    assert channels_kept({"a": group}, rate, round_to) == {"a": fitting[0] if fitting else size}


@given(rate=st.floats(0.05, 0.95), rounds=st.integers(2, 6), round_to=st.sampled_from([1, 8]))
@settings(max_examples=25, deadline=None)
def test_the_last_round_of_a_plan_is_one_shot_whatever_the_rate(rate: float, rounds: int, round_to: int) -> None:
    model = made(lambda: nn.Sequential(nn.Conv2d(3, 997, 1), nn.ReLU(), *head(997)))
    options = PruneOptions(rate=rate, rounds=rounds, round_to=round_to)
    assert plan_rounds(model, options, (3, 2, 2))[-1] == {"0": prune(model, options, (3, 2, 2)).model[0].out_channels}


@pytest.mark.parametrize("rounds", [2, 5])
@pytest.mark.parametrize(("rate", "round_to"), [(0.55, 1), (0.5, 4), (0.9, 1)])
@pytest.mark.parametrize("name", NETWORKS)
def test_rounds_end_with_the_channel_counts_of_one_shot(name: str, rate: float, round_to: int, rounds: int) -> None:
    model = made(NETWORKS[name])
    options = PruneOptions(rate=rate, round_to=round_to, rounds=rounds)
    plan = plan_rounds(model, options, SHAPE)
    assert len(plan) == rounds
    for root in plan[0]:
        counts = [kept[root] for kept in plan]
        assert counts == sorted(counts, reverse=True)
    found = prune_in_rounds(model, options, SHAPE, between=shaken)
    expected = prune(model, options, SHAPE)
    assert found.report == expected.report
    assert {key: value.shape for key, value in found.model.state_dict().items()} == {
        key: value.shape for key, value in expected.model.state_dict().items()
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_rounds_amount_to_one_surgery_that_can_be_replayed(name: str) -> None:
    model = made(NETWORKS[name])
    before = copy.deepcopy(model.state_dict())
    pruned = prune_in_rounds(model, PruneOptions(rate=0.5, rounds=3), SHAPE, between=left_alone)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert is_pure_removal(model, pruned.surgery, SHAPE)
    replayed = copy.deepcopy(model)
    apply_surgery(replayed, Surgery.from_dict(pruned.surgery.to_dict(), where="test"))
    assert torch.equal(replayed(images()), pruned.model(images()))
    x = images(dtype=torch.float64)
    expected = silenced_copy(copy.deepcopy(model).double(), pruned.surgery)(x)
    torch.testing.assert_close(pruned.model.double()(x), expected, rtol=1e-9, atol=1e-9)


def test_weights_that_were_trained_between_rounds_fit_a_fresh_instance() -> None:
    pruned = prune_in_rounds(made(ResidualLike), PruneOptions(rate=0.5, rounds=3), SHAPE, between=shaken)
    fresh = made(ResidualLike, seed=77)
    apply_surgery(fresh, pruned.surgery)
    fresh.load_state_dict(pruned.model.state_dict(), strict=True)
    assert torch.equal(fresh(images()), pruned.model(images()))


def test_without_training_a_measure_of_single_channels_removes_in_rounds_what_it_removes_at_once() -> None:
    """Batch normalisation weights do not change when other channels go, unlike norms of filters."""
    model = made(lambda: nn.Sequential(ConvBn(3, 16), nn.ReLU(), ConvBn(16, 12), nn.ReLU(), *head(12)))
    options = PruneOptions(rate=0.6, rounds=4, importance="bn-scale")
    assert prune_in_rounds(model, options, SHAPE, between=left_alone).surgery == prune(model, options, SHAPE).surgery


def test_training_happens_between_rounds_and_evidence_before_each() -> None:
    told: list[str] = []
    sizes: list[int] = []

    def between(model: nn.Module, number: int) -> None:
        told.append(f"train {number}")
        shaken(model, number)

    def evidence(model: nn.Module, number: int) -> PruneEvidence:
        told.append(f"gather {number}")
        sizes.append(sum(parameter.numel() for parameter in model.parameters()))
        return gather_evidence(model, [(images(2), torch.tensor([0, 1]))], "softmax")

    options = PruneOptions(rate=0.5, rounds=3, importance="taylor")
    prune_in_rounds(made(ResidualLike), options, SHAPE, between=between, evidence=evidence)
    assert told == ["gather 1", "train 1", "gather 2", "train 2", "gather 3"]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


def test_a_round_in_which_rounding_leaves_nothing_to_remove_changes_nothing() -> None:
    model = made(VggLike)
    options = PruneOptions(rate=0.3, rounds=4, round_to=8, ignore=("features.0", "classifier.*"))
    sizes: list[int] = []
    pruned = prune_in_rounds(
        model, options, SHAPE, between=lambda network, _: sizes.append(network.features[2][0].out_channels)
    )
    assert sizes == [10, 8, 8]
    assert pruned.report.channels["features.2.0"] == (10, 8)


def test_a_grouped_convolution_that_becomes_depthwise_on_the_way_can_still_be_pruned() -> None:
    model = made(GroupedLike)
    options = PruneOptions(rate=0.8, rounds=3)
    pruned = prune_in_rounds(model, options, SHAPE, between=left_alone)
    assert pruned.model.get_submodule("grouped.0").weight.shape[:2] == (3, 1)
    assert pruned.report.channels == prune(model, options, SHAPE).report.channels


@pytest.mark.parametrize("options", [PruneOptions(rate=0.4), PruneOptions(rate=0, rounds=5)])
def test_one_round_and_no_pruning_are_what_they_are_without_rounds(options: PruneOptions) -> None:
    model = made(VggLike)

    def never(_model: nn.Module, _number: int) -> None:
        raise AssertionError

    found: Pruned = prune_in_rounds(model, options, SHAPE, between=never)
    expected = prune(model, options, SHAPE)
    assert (found.surgery, found.report) == (expected.surgery, expected.report)
    assert found.model is not model
    assert round_rates(options) == ((0.4,) if options.rate else ())


def test_rounds_that_would_remove_nothing_are_an_error_before_any_training() -> None:
    with pytest.raises(BadInputError, match="No channel of the network can be removed"):
        plan_rounds(made(VggLike), PruneOptions(rate=0.3, round_to=64, rounds=3), SHAPE)
    with pytest.raises(BadInputError, match="matches none"):
        plan_rounds(made(VggLike), PruneOptions(rate=0.3, rounds=3, ignore=("feature.*",)), SHAPE)


@pytest.mark.parametrize(("rate", "rounds"), [(1.0, 1), (-0.1, 1), (0.5, 0)])
def test_rates_and_rounds_out_of_range_are_refused(rate: float, rounds: int) -> None:
    with pytest.raises(BadInputError, match=r"compress\.prune\.(rate|rounds)"):
        PruneOptions(rate=rate, rounds=rounds)


def head(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)
