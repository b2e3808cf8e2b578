"""The trainable graph: its taps, its constraints, its bounds, and what it refuses."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from explained_graphs import GRAPHS, random_images

from edgekit.calibrate.formats import NUMBER_FORMATS, SMALLEST_SCALE
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.calibrate.stage import quantise_graph
from edgekit.errors import BadInputError, IntegrityError
from edgekit.qat.constraints import HoldScales, KeepZeros
from edgekit.qat.interpreter import Interpreter, dequantised, weight_names
from edgekit.qat.quantiser import Quantiser
from edgekit.teacher.tap import Tap, forward_with_taps


def quantised(name: str, number_format: str = "x86-u8s8") -> tuple[ExplainedGraph, ScaleTable]:
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where=name)
    fmt = NUMBER_FORMATS[number_format]
    return graph, quantise_graph(graph, random_images(), fmt, CalibrateOptions(method="minmax")).table


def trainable(name: str, *tapped: str, learned: bool = True) -> Interpreter:
    graph, table = quantised(name)
    return Interpreter(graph, weight_names(graph), Quantiser(graph, table, learned=learned), tapped)


def pixels(count: int = 6) -> torch.Tensor:
    return torch.from_numpy(random_images().pixels[:count])


def test_scales_alone_can_lower_the_loss() -> None:
    """Ranges eight times too wide: with weights untouched, learned scales come nearer to the float network."""
    graph, table = quantised("residual")
    coarse = replace(
        table,
        activations={
            name: replace(entry, low=8 * entry.low, high=8 * entry.high, scale=8 * entry.scale)
            for name, entry in table.activations.items()
        },
    )
    network = Interpreter(graph, weight_names(graph), Quantiser(graph, coarse))
    with torch.no_grad():
        wanted = Interpreter(graph, ())(pixels(24))
    drifts = [parameter for name, parameter in network.named_parameters() if "drift" in name]
    losses = []
    optimiser = torch.optim.Adam(drifts, lr=0.05)
    for _ in range(25):
        loss = ((network(pixels(24)) - wanted) ** 2).mean()
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        HoldScales().apply(network)
    assert min(losses[-5:]) < 0.5 * losses[0], losses
    assert network.quantiser is not None
    scales = network.quantiser.table(network.stored).activations
    assert np.mean([scales[name].scale < coarse.activations[name].scale for name in scales]) > 0.5


def test_ranges_follow_their_scales_and_zero_points_stay() -> None:
    network = trainable("residual")
    assert network.quantiser is not None
    before = network.quantiser.table(network.stored)
    with torch.no_grad():
        network.quantiser.drift.fill_(np.log(1.25))
    after = network.quantiser.table(network.stored)
    for name, entry in after.activations.items():
        old = before.activations[name]
        assert entry.zero_point == old.zero_point
        assert entry.scale == pytest.approx(1.25 * old.scale, rel=1e-6)
        assert (entry.low, entry.high) == pytest.approx((1.25 * old.low, 1.25 * old.high), rel=1e-6)
    assert ScaleTable.from_dict(after.to_dict(), where="table") == after


def test_a_scale_stays_where_the_runtime_can_drop_the_clip() -> None:
    graph, table = quantised("depthwise-relu6")
    network = Interpreter(graph, weight_names(graph), Quantiser(graph, table))
    quantiser = network.quantiser
    assert quantiser is not None
    behind = [
        name
        for name in table.activations
        if name in graph.producer and graph.nodes[graph.producer[name]].op_type == "Clip"
    ]
    assert behind
    with torch.no_grad():
        quantiser.drift.fill_(5.0)
        for drift in quantiser.weight_drift:
            drift.fill_(-100.0)
    HoldScales().apply(network)
    found = quantiser.table(network.stored)
    for name in behind:
        assert np.float32(255) * np.float32(found.activations[name].scale) <= np.float32(6)
    assert all(scale >= SMALLEST_SCALE for entry in found.weights.values() for scale in entry.scales)
    write_qdq(graph, found)


def test_a_bias_always_fits() -> None:
    """As batch-norm folding leaves channels: weights of almost nothing beside their bias."""
    network = trainable("residual")
    assert network.quantiser is not None
    with torch.no_grad():
        for weight in network.trainable.values():
            if weight.dim() > 1:
                weight.mul_(1e-9)
        for drift in network.quantiser.weight_drift:
            drift.fill_(-25.0)
    table = network.quantiser.table(network.stored)
    graph, _ = quantised("residual")
    write_qdq(graph, table)  # raises where one does not fit


def test_zeros_stay_and_the_rest_is_free() -> None:
    network = trainable("residual")
    with torch.no_grad():
        for weight in network.trainable.values():
            if weight.dim() > 1:
                weight.view(-1)[::3] = 0
    constraint = KeepZeros(network)
    with torch.no_grad():
        for parameter in network.trainable.values():
            parameter.add_(1.0)
        constraint.apply(network)
    held = 0
    for weight in network.trainable.values():
        zeros = weight.detach() == 0
        if weight.dim() > 1:
            assert bool(zeros.view(-1)[::3].all())
            held += int(zeros.sum())
        else:
            assert not bool(zeros.any())
    assert held == constraint.zeros


@pytest.mark.parametrize("learned", [True, False])
def test_drifts_are_parameters_only_where_they_are_learned(learned: bool) -> None:
    network = trainable("residual", learned=learned)
    names = {name for name, _ in network.named_parameters() if "drift" in name}
    assert bool(names) == learned
    assert network.quantiser is not None
    assert names == {f"quantiser.{name}" for name in network.quantiser.undecayed}


def test_a_tap_sees_what_the_rest_computes_from() -> None:
    """Replacing what the tap answers replaces it for all that follows, rounded or not."""
    graph, _ = quantised("residual")
    last = [graph.nodes[index].output[0] for index in graph.forward if graph.nodes[index].op_type == "Relu"][-2]
    network = trainable("residual", last).eval()
    seen = forward_with_taps(network, (Tap("taps.0"),), pixels())
    values = network.values(pixels())
    rounded = dequantised(last)
    torch.testing.assert_close(seen.activation, values[rounded if rounded in values else last])
    (gradient,) = torch.autograd.grad(seen.logits[:, 0].sum(), seen.activation, create_graph=True)
    assert bool((gradient != 0).any())
    gradient.pow(2).sum().backward()
    behind = [parameter.grad for parameter in network.trainable.values() if parameter.grad is not None]
    assert behind, "the gradient of the map reaches the weights behind it"


def test_a_copy_computes_the_same_and_shares_nothing() -> None:
    """The trainer keeps copies: averages of the weights, the best epoch."""
    network = trainable("residual").eval()
    network(pixels())
    copied = copy.deepcopy(network)
    with torch.no_grad():
        torch.testing.assert_close(copied(pixels()), network(pixels()))
        for parameter in copied.parameters():
            parameter.zero_()
        assert not torch.equal(copied(pixels()), network(pixels()))


def test_what_cannot_be_trained_is_named_before_training() -> None:
    model = GRAPHS["residual"]()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Celu"
    graph = parse_graph(model.SerializeToString(), where="celu")
    with pytest.raises(BadInputError, match="not known here") as caught:
        Interpreter(graph, ())
    assert caught.value.found == "Celu"


def test_a_graph_of_one_batch_is_refused() -> None:
    model = GRAPHS["residual"]()
    for value in (*model.graph.input, *model.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.ClearField("dim_param")
        dim.dim_value = 1
    graph = parse_graph(model.SerializeToString(), where="fixed")
    with pytest.raises(BadInputError, match="one size alone"):
        Interpreter(graph, ())


def test_the_wrong_table_and_the_wrong_tap_are_refused() -> None:
    graph, table = quantised("residual")
    other = replace(table, provenance=replace(table.provenance, graph="0" * 64))
    with pytest.raises(IntegrityError, match="another graph"):
        Quantiser(graph, other)
    with pytest.raises(BadInputError, match="tapped tensor"):
        Interpreter(graph, (), None, ("nothing",))
