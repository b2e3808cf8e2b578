"""The network that is trained is the graph that ships: compared with ONNX Runtime, tensor by tensor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from explained_graphs import GRAPHS, random_images
from networks import CASES
from qat_networks import NETWORKS, QUANTISED, for_graph, graph_of, images, rounded, run, table_of, with_weights
from torch.nn import functional

from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.calibrate.graph import LOGITS, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.stage import quantise_graph
from edgekit.errors import BadInputError
from edgekit.qat.interpreter import Interpreter, dequantised, weight_names
from edgekit.qat.quantiser import Quantiser


@pytest.mark.parametrize("name", NETWORKS)
def test_in_float_it_is_the_exported_graph(name: str) -> None:
    network = Interpreter(graph_of(name), weight_names(graph_of(name))).eval()
    pixels = images(name)
    with torch.no_grad():
        found = network(pixels).numpy()
    (wanted,) = run(graph_of(name).model, pixels.numpy(), [LOGITS], optimised=True)
    # Random networks answer near zero here and there; what counts is the error beside the largest answer. The logits
    # of "mobile" are all under 0.002, and float32 itself is 1.4e-5 of them away from float64, the runtime's and ours.
    tolerance = 2e-5 if name == "mobile" else 1e-5
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name)
def test_every_wiring_that_calibration_knows_is_rounded_alike(name: str, fmt) -> None:
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where=name)
    calibration = random_images()
    try:
        quantised = quantise_graph(graph, calibration, fmt, CalibrateOptions(method="minmax"))
    except BadInputError as cause:
        # The same refusal that the calibrate stage gives, long before any training.
        assert "Nothing in the graph can be quantised" in str(cause)  # noqa: PT017
        return
    network = Interpreter(graph, weight_names(graph), Quantiser(graph, quantised.table)).eval()
    check_one_quantum(network, quantised.model, quantised.table, calibration.pixels)


def check_one_quantum(network: Interpreter, model: onnx.ModelProto, table, pixels: np.ndarray) -> None:
    """Each rounded tensor and the logits, with the graph's own arithmetic; the logits also as the engine runs it."""
    with torch.no_grad():
        values = network.values(torch.from_numpy(pixels))
    made = {name for node in model.graph.node for name in node.output}
    pairs = [name for name in table.activations if dequantised(name) in made]
    assert pairs, "the graph has no pair"
    logits, *found = run(model, pixels, [LOGITS, *map(dequantised, pairs)], optimised=False)
    for name, tensor in zip(pairs, found, strict=True):
        off = np.abs(tensor - values[dequantised(name)].numpy()).max() / table.activations[name].scale
        assert off <= 1.01, f"{name} is off by {off} quanta"
    quantum = np.abs(logits).max() / 127
    (shipped,) = run(model, pixels, [LOGITS], optimised=True)
    for way, answer in (("plain", logits), ("optimised", shipped)):
        off = np.abs(answer - values[LOGITS].numpy()).max() / quantum
        assert off <= 1.01, f"logits are off by {off} quanta in the {way} graph"


@pytest.mark.parametrize(("name", "number_format"), QUANTISED)
def test_before_training_it_is_the_calibrated_graph(name: str, number_format: str) -> None:
    network = rounded(name, number_format).eval()
    table = table_of(name, number_format)
    assert network.quantiser is not None
    assert network.quantiser.table(network.stored) == table
    check_one_quantum(network, write_qdq(graph_of(name), table), table, images(name).numpy())


@pytest.mark.parametrize(("name", "number_format"), QUANTISED)
def test_after_training_it_is_the_graph_that_its_table_writes(name: str, number_format: str) -> None:
    network = rounded(name, number_format)
    assert network.quantiser is not None
    before = network.quantiser.table(network.stored)
    train_a_little(network, images(name))
    graph = with_weights(graph_of(name), network)
    table = for_graph(network.quantiser.table(network.stored), graph)
    moved = [name for name, entry in table.activations.items() if entry.scale != before.activations[name].scale]
    assert moved, "no scale was learned"
    check_one_quantum(network.eval(), write_qdq(graph, table), table, images(name).numpy())


def train_a_little(network: Interpreter, pixels: torch.Tensor) -> None:
    """A few large steps: weights leave their grid and scales move by percents."""
    drifts = [parameter for name, parameter in network.named_parameters() if "drift" in name]
    weights = list(network.trainable.values())
    for _ in range(3):
        logits = network(pixels)
        loss = functional.cross_entropy(logits, torch.arange(len(pixels)) % logits.shape[1])
        sizes = [0.02 * float(weight.detach().abs().max()) for weight in weights] + [0.01] * len(drifts)
        gradients = torch.autograd.grad(loss, [*weights, *drifts], allow_unused=True)
        with torch.no_grad():
            for learned, gradient, size in zip([*weights, *drifts], gradients, sizes, strict=True):
                if gradient is not None:
                    learned.sub_(size * gradient / gradient.abs().max().clamp(min=1e-20))
        assert network.quantiser is not None
        network.quantiser.hold()


def test_most_shared_networks_are_covered() -> None:
    """So that a renamed case cannot empty the tests above."""
    assert set(CASES) <= {name for name, number_format in QUANTISED if number_format == "x86-u8s8"}
    for name in NETWORKS:
        quantised = table_of(name, "trt-s8s8") is not None
        assert quantised == ((name, "trt-s8s8") in QUANTISED)


@pytest.mark.parametrize("fault", ["activation scale", "zero point", "weight scale", "rounded read"])
def test_a_rounding_that_differs_a_little_is_caught(fault: str) -> None:
    """So that agreement to a quantum is no matter of tolerance."""
    graph, table = graph_of("residual"), table_of("residual", "x86-u8s8")
    assert table is not None
    wrong, name = table, next(name for name in table.activations if name != "image")
    entry, weight = table.activations[name], next(iter(table.weights))
    if fault == "activation scale":
        # A share that moves the largest value by some steps.
        wrong = replace(table, activations={**table.activations, name: replace(entry, scale=1.03 * entry.scale)})
    elif fault == "zero point":
        wrong = replace(table, activations={**table.activations, name: replace(entry, zero_point=entry.zero_point + 3)})
    elif fault == "weight scale":
        scales = tuple(1.5 * scale for scale in table.weights[weight].scales)
        wrong = replace(table, weights={**table.weights, weight: replace(table.weights[weight], scales=scales)})
    network = Interpreter(graph, weight_names(graph), Quantiser(graph, wrong)).eval()
    assert network.quantiser is not None
    if fault == "rounded read":
        network.quantiser.reads = {**network.quantiser.reads, name: frozenset()}
    with pytest.raises(AssertionError, match="quanta"):
        check_one_quantum(network, write_qdq(graph, table), table, images("residual").numpy())
