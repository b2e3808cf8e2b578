"""Channel factors: equal answers for any, and the least expected cost for the chosen ones."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from explained_graphs import GRAPHS, GraphBuilder, random_images
from exported import exported
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.adjustments import Adjustments
from edgekit.calibrate.attribution.channel_evidence import (
    ChannelEvidence,
    GroupEvidence,
    collect_evidence,
    evidence_tensors,
)
from edgekit.calibrate.attribution.equalise import EqualisationCost, choose_factors, choose_scales
from edgekit.calibrate.attribution.equality import equal_answers, proven_groups
from edgekit.calibrate.attribution.scale_groups import ScaleGroup, factors_of, find_groups
from edgekit.calibrate.drift import drift_of
from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.calibrate.gradients.stream import GradientStream, TensorGradient
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import Answers, answers_of, float_answers
from edgekit.calibrate.stage import quantise_graph

FORMAT = NUMBER_FORMATS["x86-u8s8"]
# The second has its tap in the middle, so that its branch holds weights from before batch norms were folded.
EXPORTED = [("residual", "layer2"), ("residual", "layer1"), ("vgg", "features.1")]
SOURCES = [*GRAPHS, *("/".join(pair) for pair in EXPORTED)]


@cache
def proven(name: str) -> tuple[ExplainedGraph, tuple[ScaleGroup, ...], Any, Answers]:
    model = exported(*name.split("/")).model if "/" in name else GRAPHS[name]()
    graph = parse_graph(model.SerializeToString(), where="test")
    images = np.random.default_rng(5).normal(0, 1, (4, *graph.input_shape)).astype(np.float32)
    groups, _ = proven_groups(graph, find_groups(graph, place(graph, FORMAT)), images)
    return graph, groups, images, float_answers(graph, images)


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_positive_factors_leave_the_answers_as_they_are(name: str, data: st.DataObject) -> None:
    graph, groups, images, reference = proven(name)
    assert groups
    seed = data.draw(st.integers(0, 2**16))
    spread = data.draw(st.floats(0.1, 2.5))
    chosen = data.draw(st.lists(st.sampled_from(range(len(groups))), min_size=1, unique=True))
    rng = np.random.default_rng(seed)
    factors = tuple(
        item
        for number in chosen
        for item in factors_of(groups[number], np.exp(rng.normal(0, spread, groups[number].size)))
    )
    adjusted = apply_adjustments(graph, Adjustments(factors=factors))
    assert equal_answers(reference, adjusted, images, 1e-4)


@pytest.mark.parametrize("name", ["residual/layer2", "residual/layer1"])
def test_a_residual_network_is_scaled_throughout(name: str) -> None:
    """Behind a tap in the middle and at a tap at the end too, for the map is a product of activation and gradient."""
    graph, groups, _, _ = proven(name)
    members = {member.tensor for group in groups for member in group.members}
    assert members == set(place(graph, FORMAT).observed) - {"image"}


def evidence_for(graph: ExplainedGraph, groups: tuple[ScaleGroup, ...], seed: int = 0) -> GroupEvidence:
    rng = np.random.default_rng(seed)
    channels = {
        member.tensor: ChannelEvidence(
            -rng.exponential(1, member.shape) * rng.integers(0, 2), *(rng.lognormal(0, 1.5, (2, *member.shape)))
        )
        for group in groups
        for member in group.members
    }
    weights = {}
    for group in groups:
        for link in group.links:
            if link.costs:
                shape = np.moveaxis(graph.constant(link.constant), link.axis, 1).shape[:2]
                weights[link.constant] = rng.lognormal(-1, 1, shape)
    return GroupEvidence(channels, weights)


def slow_cost(
    graph: ExplainedGraph, group: ScaleGroup, evidence: GroupEvidence, scales: Any, symmetric: bool, limit: int
) -> float:
    """As the module's text has it, in loops."""
    factor = lambda variable: 1.0 if variable < 0 else float(scales[variable])  # noqa: E731
    total = 0.0
    for member in group.members:
        found = evidence.channels[member.tensor]
        rows = list(
            zip(member.variables, found.low.ravel(), found.high.ravel(), found.sensitivity.ravel(), strict=True)
        )
        low = min(low / factor(variable) for variable, low, _, _ in rows)
        high = max(high / factor(variable) for variable, _, high, _ in rows)
        step = max(high, -low) / 127 if symmetric else (high - low) / 255
        total += sum(step**2 / 12 * factor(variable) ** 2 * cost for variable, _, _, cost in rows)
    for link in group.links:
        if not link.costs:
            continue
        weight = np.moveaxis(graph.constant(link.constant), link.axis, 1).astype(float)
        for output, row in enumerate(weight):
            step = max(abs(row[column]).max() * factor(v) for column, v in enumerate(link.variables)) / limit
            for column, variable in enumerate(link.variables):
                cost = evidence.weights[link.constant][output, column]
                total += step**2 / 12 * cost / factor(variable) ** 2
    return total


@pytest.mark.parametrize("fmt", [NUMBER_FORMATS["x86-u8s8"], NUMBER_FORMATS["trt-s8s8"]], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("name", ["residual", "padded-shortcut", "dense-concat", "flattened"])
def test_the_cost_is_that_of_a_slow_reading_of_its_formula(name: str, fmt: Any) -> None:
    graph, groups, _, _ = proven(name)
    evidence = evidence_for(graph, groups)
    rng = np.random.default_rng(1)
    for group in groups:
        scales = np.exp(rng.normal(0, 1, group.size))
        slow = slow_cost(graph, group, evidence, scales, fmt.symmetric, fmt.weight_limit)
        cost = EqualisationCost(graph, group, evidence, fmt)
        assert cost(scales) == pytest.approx(slow, rel=1e-9)
        # Away from ties the subgradient is the gradient.
        logs, direction = np.log(scales), rng.normal(0, 1, group.size)
        ahead, behind = (cost.with_gradient(logs + step * direction)[0] for step in (1e-6, -1e-6))
        assert cost.with_gradient(logs)[1] @ direction == pytest.approx((ahead - behind) / 2e-6, rel=1e-3)


def least_logarithm(cost: EqualisationCost, start: Any) -> float:
    def logarithm(logs: Any) -> float:
        return float(np.log(cost.with_gradient(logs)[0]))

    bounds = [(-4.1, 4.1)] * cost.size
    return float(minimize(logarithm, start, method="Powell", bounds=bounds, options={"maxiter": 4}).fun)


@pytest.mark.parametrize("name", ["residual", "padded-shortcut", "dense-concat"])
def test_the_chosen_factors_cost_hardly_more_than_the_best_that_another_optimiser_finds(name: str) -> None:
    graph, groups, _, _ = proven(name)
    evidence = evidence_for(graph, groups, seed=2)
    for group in groups:
        cost = EqualisationCost(graph, group, evidence, FORMAT)
        found = cost(choose_scales(cost))
        starts = (np.zeros(group.size), np.log(choose_scales(cost)))
        best = min(least_logarithm(cost, start) for start in starts)
        assert np.log(found) <= best + 0.02


def test_channels_whose_readers_have_a_step_each_are_made_to_reach_equally_far() -> None:
    g = GraphBuilder(seed=4)
    x = g.relu(g.conv(g.relu(g.conv("image", 3, 8)), 8, 8, group=8))
    g.pooled_head(g.relu(g.conv(x, 8, 8)), 8, 5, 256)
    graph = parse_graph(g.model().SerializeToString(), where="test")
    group = find_groups(graph, place(graph, FORMAT))[0]
    reach = np.array([1, 2, 4, 8, 1, 0.5, 3, 1.0])
    (member,) = group.members
    ones = np.ones(member.shape)
    evidence = GroupEvidence({member.tensor: ChannelEvidence(0 * ones, reach.reshape(member.shape), ones)}, {})
    scales = choose_scales(EqualisationCost(graph, group, evidence, FORMAT))
    relative = (scales / reach)[list(np.argsort(member.variables))]
    # Widening the range of one for a finer step in the others costs more than it saves, and the other way round.
    assert relative.max() / relative.min() < 1.05


def test_where_nothing_is_to_be_gained_nothing_is_changed() -> None:
    graph, groups, _, _ = proven("residual")
    evidence = GroupEvidence(
        {
            member.tensor: ChannelEvidence(np.zeros(member.shape), np.ones(member.shape), np.ones(member.shape))
            for group in groups
            for member in group.members
        },
        {},
    )
    assert choose_factors(graph, groups, evidence, FORMAT) == ()


def test_channels_that_were_silent_do_not_upset_the_choice() -> None:
    graph, groups, _, _ = proven("residual")
    evidence = evidence_for(graph, groups)
    for found in evidence.channels.values():
        for values in (found.low, found.high, found.sensitivity):
            values[::2] = 0
    for change in choose_factors(graph, groups, evidence, FORMAT):
        assert np.isfinite(change.factors).all()
        assert min(change.factors) > 0
    silent = GroupEvidence(
        {
            name: ChannelEvidence(0 * found.low, 0 * found.high, found.sensitivity)
            for name, found in evidence.channels.items()
        },
        {},
    )
    assert choose_factors(graph, groups, silent, FORMAT) == ()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_errors_of_weights_cost_the_square_of_their_own_gradients(groups: int, stride: int) -> None:
    """Against torch's gradient by the weight, image by image, where the kernel has one position."""
    g = GraphBuilder(seed=4)
    x = g.relu(g.conv("image", 3, 8))
    y = g.conv(x, 8, 6, kernel=1, stride=stride, group=groups)
    g.pooled_head(g.relu(g.conv(g.relu(y), 6, 6)), 6, 5, (16 // stride) ** 2)
    graph = parse_graph(g.model().SerializeToString(), where="test")
    found = find_groups(graph, place(graph, FORMAT))
    link = next(link for group in found for link in group.links if link.result == y)
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (3, 8, 16, 16)).astype(np.float32)
    gradient = rng.normal(0, 1, (6, 6, 16 // stride, 16 // stride)).astype(np.float32)
    batch = {}
    for name in evidence_tensors(found):
        sizes = graph.shapes[name][1:]
        others = (rng.normal(0, 1, (count, *sizes)).astype(np.float32) for count in (3, 6))
        batch[name] = TensorGradient(*others)
    batch[link.reads] = TensorGradient(values, batch[link.reads].gradient)
    batch[link.result] = TensorGradient(batch[link.result].values, gradient)
    evidence = collect_evidence(graph, found, [batch, batch])
    weight = torch.tensor(graph.constant(link.constant), requires_grad=True)
    expected = np.zeros(weight.shape[:2])
    for number in range(6):
        result = torch.nn.functional.conv2d(
            torch.tensor(values[number % 3][None]), weight, stride=stride, groups=groups
        )
        (slope,) = torch.autograd.grad((result * torch.tensor(gradient[number][None])).sum(), weight)
        expected += slope.numpy()[..., 0, 0].astype(float) ** 2 / 6
    assert np.allclose(evidence.weights[link.constant], expected, rtol=1e-4)


def unequal() -> ExplainedGraph:
    """Depthwise separable layers whose channels reach unequally far, as batch norms leave them."""
    g = GraphBuilder(seed=6)
    x = "image"
    channels = 3
    rng = np.random.default_rng(0)
    for outputs in (16, 24, 24):
        x = g.relu(g.conv(x, channels, outputs, kernel=1))
        x = g.relu(g.conv(x, outputs, outputs, group=outputs))
        channels = outputs
    g.pooled_head(g.relu(g.conv(x, channels, 16, kernel=1)), 16, 5, 256)
    graph = parse_graph(g.model().SerializeToString(), where="test")
    groups = find_groups(graph, place(graph, FORMAT))
    factors = tuple(item for group in groups for item in factors_of(group, np.exp(rng.normal(0, 1.5, group.size))))
    model = apply_adjustments(graph, Adjustments(factors=factors)).model
    return parse_graph(model.SerializeToString(), where="test")


def test_unequal_channels_drift_less_when_they_are_equalised() -> None:
    graph, images = unequal(), random_images(24)
    groups = find_groups(graph, place(graph, FORMAT))
    stream = GradientStream(graph, evidence_tensors(groups), images, 8)
    factors = choose_factors(graph, groups, collect_evidence(graph, groups, stream.run()), FORMAT)
    adjusted = apply_adjustments(graph, Adjustments(factors=factors))
    fresh = random_images(24, seed=8).pixels
    reference = float_answers(graph, fresh)
    assert equal_answers(reference, adjusted, fresh, 1e-4)
    options = CalibrateOptions(method="minmax")
    before, after = (
        drift_of(reference, answers_of(quantise_graph(item, images, FORMAT, options).model, fresh, reference.classes))
        for item in (graph, adjusted)
    )
    assert after.cosine < 0.3 * before.cosine
    assert after.logits < 0.3 * before.logits
