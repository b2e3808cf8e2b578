"""Squared gradients by drawn cotangents are, on average, the drift that a small error causes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from explained_graphs import GRAPHS, random_images
from onnx import TensorProto, helper

from edgekit.calibrate.gradients.cotangents import sample_cotangents
from edgekit.calibrate.gradients.stream import GradientStream
from edgekit.calibrate.graph import LOGITS, parse_graph
from edgekit.calibrate.runtime import open_session, run_session

Array = npt.NDArray[Any]


def divergence(logits: Array, moved: Array) -> Array:
    ours, theirs = (values - np.log(np.exp(values).sum(axis=1, keepdims=True)) for values in (logits, moved))
    result: Array = (np.exp(ours) * (ours - theirs)).sum(axis=1)
    return result


def turned(maps: Array, moved: Array) -> Array:
    """1 - cosine of each sample's map."""
    first, second = maps.reshape(len(maps), -1), moved.reshape(len(moved), -1)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    result: Array = 1 - (first * second).sum(axis=1) / lengths
    return result


@pytest.mark.parametrize(("logits_weight", "columns"), [(1.0, 1), (0.25, 1), (0.0, 2), (4.0, 3)])
def test_the_mean_square_is_the_second_order_of_the_drift(logits_weight: float, columns: int) -> None:
    rng = np.random.default_rng(0)
    draws, step = 40_000, 1e-4
    logits, change = rng.normal(size=(1, 5)), rng.normal(size=(1, 5))
    maps = {
        "attribution": rng.gamma(1.0, size=(1, columns, 4, 3)),
        "attribution_2": rng.gamma(1.0, size=(1, 6, 6)) * 50,
    }
    moves = {name: rng.normal(size=values.shape) * np.abs(values).mean() for name, values in maps.items()}
    views = [(maps["attribution"][:, k], moves["attribution"][:, k]) for k in range(columns)]
    views.append((maps["attribution_2"], moves["attribution_2"]))
    drift = np.mean([turned(values, values + step * move) for values, move in views]) / step**2
    drift += logits_weight * divergence(logits, logits + step * change)[0] / step**2

    drawn = sample_cotangents(
        logits.repeat(draws, axis=0).astype(np.float32),
        {name: values.repeat(draws, axis=0).astype(np.float32) for name, values in maps.items()},
        rng,
        logits_weight,
    )
    assert drawn[LOGITS].dtype == np.float32
    along = (drawn[LOGITS].astype(np.float64) * change).sum(axis=1)
    for name, move in moves.items():
        assert drawn[name].shape == (draws, *maps[name].shape[1:])
        along += (drawn[name].astype(np.float64) * move).reshape(draws, -1).sum(axis=1)
    squares = along**2
    # Four standard errors of the mean.
    assert abs(squares.mean() - drift) < 4 * squares.std() / draws**0.5 + 1e-3 * drift


def test_a_map_that_only_grows_does_not_drift() -> None:
    rng = np.random.default_rng(1)
    maps = rng.gamma(1.0, size=(8, 5, 5)).astype(np.float32)
    drawn = sample_cotangents(np.zeros((8, 3), np.float32), {"attribution": maps}, rng)
    np.testing.assert_allclose((drawn["attribution"] * maps).sum(axis=(1, 2)), 0, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), [("gradient-head", "Conv"), ("gated", "Sigmoid"), ("residual", "Add")])
def test_gradients_of_a_graph_predict_its_drift(name: str, kind: str) -> None:
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where=name)
    tensor = next(node.output[0] for node in graph.nodes if node.op_type == kind)
    images, projections = random_images(4), 3000
    stream = GradientStream(graph, (tensor,), images, batch_size=4, projections=projections, threads=1)
    (batch,) = list(stream.run())
    found = batch[tensor]
    rng = np.random.default_rng(2)
    # So small that no cell of a head's ReLU changes sides: a map that holds the head's gradient jumps there.
    error = (rng.normal(size=found.values.shape) * 2e-4 * found.values.std()).astype(np.float32)
    slopes = (
        (found.gradient.reshape(projections, *error.shape) * error).reshape(projections, len(error), -1).sum(axis=2)
    )
    predicted = (slopes.astype(np.float64) ** 2).mean(axis=0)

    before = answers(graph.model, tensor, images.pixels, np.zeros_like(error))
    after = answers(graph.model, tensor, images.pixels, error)
    seen = turned(before["attribution"], after["attribution"]) + divergence(before[LOGITS], after[LOGITS])
    assert predicted.sum() > 0
    np.testing.assert_allclose(predicted, seen, rtol=0.2)


def answers(model: onnx.ModelProto, tensor: str, images: Array, error: Array) -> dict[str, Array]:
    """The graph's answers, in float64, to images of which one tensor is off by an error."""
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    nodes = list(moved.graph.node)
    del moved.graph.node[:]
    for node in nodes:
        node.input[:] = ["moved" if name == tensor else name for name in node.input]
        moved.graph.node.append(node)
        if tensor in node.output:
            moved.graph.node.append(helper.make_node("Add", [tensor, "error"], ["moved"]))
    moved.graph.input.append(helper.make_tensor_value_info("error", TensorProto.FLOAT, error.shape))
    feeds = {"image": images, "class_index": np.full(len(images), -1, np.int32), "error": error}
    found = run_session(open_session(moved, threads=1), [LOGITS, "attribution"], feeds)
    return {name: values.astype(np.float64) for name, values in found.items()}
