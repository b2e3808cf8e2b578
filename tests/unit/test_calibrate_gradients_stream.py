"""Streaming gradients over images: what is handed out, what repeats, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from explained_graphs import GRAPHS, ArrayImages, GraphBuilder, gated, gradient_head, random_images, residual
from onnx import TensorProto, helper

from edgekit.calibrate.gradients import stream as module
from edgekit.calibrate.gradients.cotangents import sample_cotangents
from edgekit.calibrate.gradients.graph import gradient_graph, gradient_parts
from edgekit.calibrate.gradients.stream import GradientStream, TensorGradient
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.observers import ActivationStream
from edgekit.core.progress import NullObserver
from edgekit.errors import BadInputError

Array = npt.NDArray[Any]


def parsed(model: onnx.ModelProto) -> ExplainedGraph:
    return parse_graph(model.SerializeToString(), where="made by hand")


def stream(graph: ExplainedGraph, tensors: tuple[str, ...], **options: Any) -> list[dict[str, TensorGradient]]:
    given = {"images": random_images(6), "batch_size": 4, "threads": 1} | options
    return list(GradientStream(graph, tensors, **given).run())


def joined(batches: list[dict[str, TensorGradient]], name: str) -> Array:
    return np.concatenate([batch[name].gradient for batch in batches])


@pytest.mark.parametrize("name", GRAPHS)
def test_values_are_those_of_the_forward_pass(name: str) -> None:
    graph = parsed(GRAPHS[name]())
    forward = [graph.nodes[index].output[0] for index in graph.forward]
    tensors = ("image", *(tensor for tensor in forward if tensor in graph.shapes))
    images = random_images(5)
    batches = stream(graph, tensors, images=images, batch_size=5)
    (plain,) = list(ActivationStream(graph, tensors, images, 5).run("forward"))
    assert images.passes == 2
    for tensor in tensors:
        found = batches[0][tensor]
        np.testing.assert_allclose(found.values, plain[tensor], rtol=1e-4, atol=1e-4)
        assert found.gradient.shape == found.values.shape
        assert found.gradient.dtype == found.values.dtype == np.float32
        assert np.isfinite(found.gradient).all()
        assert np.any(found.gradient)


def test_batches_are_cut_and_all_images_are_seen() -> None:
    class Watching(NullObserver):
        def __init__(self) -> None:
            self.seen: list[tuple[int, int | None]] = []

        def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
            assert task == "calibrate: gradients"
            self.seen.append((done, total))

    observer = Watching()
    batches = stream(parsed(residual()), ("image",), observer=observer)
    assert [len(batch["image"].values) for batch in batches] == [4, 2]
    assert observer.seen == [(0, 6), (4, 6), (6, 6)]


def test_a_run_that_would_hold_too_much_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = parsed(residual())
    monkeypatch.setattr(module, "_RUN_BYTES", 1)
    assert [len(batch["image"].values) for batch in stream(graph, ("image",))] == [1] * 6
    parts = gradient_parts(graph, ["image"])
    an_image = 3 * 16 * 16 * 4 + 4 * 5 + 4 * 4 * 4
    assert sum(module._bytes_an_image(value) for value in parts.forward.graph.output) > an_image


def test_equal_seeds_give_equal_gradients() -> None:
    graph = parsed(gated())
    first, again, other = (joined(stream(graph, ("image",), seed=seed), "image") for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_projections_lie_one_after_the_other() -> None:
    graph = parsed(gradient_head())
    (once,) = stream(graph, ("image",), batch_size=6)
    (thrice,) = stream(graph, ("image",), batch_size=6, projections=3)
    assert thrice["image"].values.shape == once["image"].values.shape
    assert thrice["image"].gradient.shape == (18, 3, 16, 16)
    np.testing.assert_array_equal(thrice["image"].gradient[:6], once["image"].gradient)
    assert not np.allclose(thrice["image"].gradient[6:12], once["image"].gradient)


def test_logits_can_weigh_nothing() -> None:
    graph = parsed(residual())
    (found,) = stream(graph, ("logits", "attribution"), batch_size=6, logits_weight=0.0)
    assert not np.any(found["logits"].gradient)
    assert np.any(found["attribution"].gradient)


def test_a_fixed_batch_is_filled_up() -> None:
    model = gated()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    batches = stream(parsed(model), ("image", "logits"), batch_size=1)
    assert [len(batch["image"].values) for batch in batches] == [4, 2]
    assert [len(batch["logits"].gradient) for batch in batches] == [4, 2]


def test_what_nothing_depends_on_has_no_gradient() -> None:
    graph = parsed(residual())
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    model.graph.node.append(helper.make_node("Relu", ["logits"], ["unread"]))
    model.graph.node.append(helper.make_node("Sign", ["image"], ["read_by_nothing_smooth"]))
    batches = stream(parsed(model), ("unread", "read_by_nothing_smooth"), batch_size=6)
    assert batches[0]["unread"].gradient.shape == (6, 5)
    assert not np.any(batches[0]["unread"].gradient)
    assert not np.any(batches[0]["read_by_nothing_smooth"].gradient)


# Cotangents


def test_empty_maps_get_no_weight() -> None:
    maps = np.zeros((3, 4, 4), np.float32)
    maps[1] = 1
    drawn = sample_cotangents(np.zeros((3, 2), np.float32), {"attribution": maps}, np.random.default_rng(0))
    assert [bool(np.any(row)) for row in drawn["attribution"]] == [False, True, False]
    assert np.any(drawn["logits"])


def test_an_answer_beyond_doubt_has_no_logit_weight() -> None:
    logits = np.array([[200.0, 0.0, -100.0]], np.float32)
    drawn = sample_cotangents(logits, {}, np.random.default_rng(0))
    np.testing.assert_allclose(drawn["logits"], 0, atol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_finite_are_refused(value: float) -> None:
    maps = np.ones((1, 2, 2), np.float32)
    maps[0, 0, 0] = value
    with pytest.raises(BadInputError, match="not finite") as caught:
        sample_cotangents(np.zeros((1, 2), np.float32), {"attribution": maps}, np.random.default_rng(0))
    assert caught.value.where == "output 'attribution'"


# Bad input


def test_images_that_are_not_finite_are_refused() -> None:
    images = random_images(2)
    images.pixels[1, 0, 0, 0] = np.nan
    with pytest.raises(BadInputError, match="not finite"):
        stream(parsed(residual()), ("image",), images=images)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(BadInputError, match="does not fit"):
        stream(parsed(residual()), ("image",), images=ArrayImages(np.zeros((2, 3, 8, 8), np.float32)))


def test_fewer_images_than_announced_are_refused() -> None:
    class Short(ArrayImages):
        @property
        def digests(self) -> tuple[str, ...]:
            return ("a", "b", "c")

    with pytest.raises(BadInputError, match="another number"):
        stream(parsed(residual()), ("image",), images=Short(random_images(2).pixels))


@pytest.mark.parametrize(
    ("tensor", "message", "found"),
    [
        ("constant_0", "those by activations", "stored"),
        ("nowhere", "those by activations", "not in the graph"),
        ("class_index", "those by activations", "not in the graph"),
        ("less", "Only a tensor of floats", "less"),
    ],
)
def test_tensors_without_gradient_are_refused(tensor: str, message: str, found: str) -> None:
    graph = parsed(residual())
    name = next(node.output[0] for node in graph.nodes if node.op_type == "Less") if tensor == "less" else tensor
    with pytest.raises(BadInputError, match=message) as caught:
        gradient_graph(graph, [name])
    assert found in str(caught.value)


def unusual(op: str, **attributes: Any) -> ExplainedGraph:
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, 16))
    g.pooled_head(g.op(op, x, **attributes), 16, 5, 256)
    return parsed(g.model())


def test_an_operator_without_rule_is_named() -> None:
    graph = unusual("Sin")
    with pytest.raises(BadInputError, match="no rule") as caught:
        gradient_graph(graph, ["image"])
    error = caught.value
    assert error.found == "Sin"
    assert error.where is not None
    assert "node_Sin_2" in error.where
    assert "'sin_2'" in error.where
    assert error.hint is not None
    assert "mse" in error.hint


def test_an_operator_without_rule_does_no_harm_before_the_tensors() -> None:
    graph = unusual("Sin")
    (batch,) = stream(graph, ("sin_2",), batch_size=6)
    assert np.any(batch["sin_2"].gradient)


def test_kernels_that_are_computed_are_refused() -> None:
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, 4))
    kernels = g.op(
        "Reshape", g.op("ReduceMean", x, g.constant([0, 2, 3], np.int64)), g.constant([4, 1, 1, 1], np.int64)
    )
    g.pooled_head(g.op("Conv", x, kernels, group=4), 4, 5, 256)
    with pytest.raises(BadInputError, match="cannot be differentiated in this form") as caught:
        gradient_graph(parsed(g.model()), ["image"])
    assert "stored kernels" in str(caught.value)
    assert "Conv" in caught.value.message


def test_a_graph_that_is_too_old_is_refused() -> None:
    model = residual()
    model.opset_import[0].version = 15
    graph = ExplainedGraph(model, "0" * 64)
    with pytest.raises(BadInputError, match="too old"):
        gradient_graph(graph, ["image"])


def test_a_shape_that_is_not_known_is_refused() -> None:
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, 16))
    # As many axes as there are classes above zero: nobody knows before the graph runs.
    sizes = g.op("Squeeze", g.op("NonZero", "class_index"), g.constant([0], np.int64))
    flat = g.op("Mul", x, g.op("Reshape", x, sizes))
    g.pooled_head(flat, 16, 5, 256)
    model = onnx.ModelProto()
    model.CopyFrom(g_model_unchecked(g))
    with pytest.raises(BadInputError, match="shape is not known"):
        gradient_graph(ExplainedGraph(model, "0" * 64), ["image"])


def g_model_unchecked(g: GraphBuilder) -> onnx.ModelProto:
    """The model without inference over all of it, which is strict about ranks."""
    graph = helper.make_graph(
        g.nodes,
        "unknown",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 16, 16]),
            helper.make_tensor_value_info("class_index", TensorProto.INT32, ["batch"]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", None]),
            helper.make_tensor_value_info("attribution", TensorProto.FLOAT, ["batch", None, None]),
        ],
        [onnx.numpy_helper.from_array(values, name) for name, values in g.initialisers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
