"""Bad input, once for every calibrator there is: either a sentence of ours, or a graph that answers.

What concerns one range only is in the conformance suite, and what no calibrator sees in the stage's tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from explained_graphs import GRAPHS, ArrayImages, GraphBuilder, random_images
from onnx import ModelProto, helper, numpy_helper

from edgekit.calibrate.calibrator import CALIBRATORS
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.probe import Answers, answers_of, float_answers
from edgekit.calibrate.stage import MODEL_NAME, CalibrateRequest, QuantisedGraph, calibrate, quantise_graph
from edgekit.errors import BadInputError

pytestmark = pytest.mark.parametrize("method", CALIBRATORS.names())

FORMAT = number_format("x86-u8s8")


def options(method: str, **changes: Any) -> CalibrateOptions:
    return CalibrateOptions(**{"method": method, "bins": 256, "batch_size": 4, **changes})


def parsed(model: ModelProto) -> ExplainedGraph:
    return parse_graph(model.SerializeToString(), where="test")


def quantised(model: ModelProto, images: ArrayImages, method: str, *, most: int = 256) -> QuantisedGraph:
    return quantise_graph(parsed(model), images, FORMAT, options(method, images=most))


def answers(result: QuantisedGraph, images: npt.NDArray[np.float32]) -> Answers:
    """Answers of the Q/DQ graph by ONNX Runtime; finite, and with scales that are numbers."""
    assert all(np.isfinite(entry.scale) and entry.scale > 0 for entry in result.table.activations.values())
    assert all(np.isfinite(entry.scales).all() and min(entry.scales) > 0 for entry in result.table.weights.values())
    found = answers_of(result.model, images, None, threads=1)
    assert np.isfinite(found.logits).all()
    assert all(np.isfinite(values).all() for values in found.maps)
    return found


def error_of(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# Input that is odd and has an answer


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e-30])
@pytest.mark.parametrize("count", [1, 6])
def test_constant_images(method: str, value: float, count: int) -> None:
    images = ArrayImages(np.full((count, 3, 16, 16), value, dtype=np.float32))
    result = quantised(GRAPHS["residual"](), images, method)
    reference = float_answers(parsed(GRAPHS["residual"]()), images.pixels)
    # Every value of a tensor was seen, and half a step of 255 is all that rounding may cost in each.
    assert error_of(reference.logits, answers(result, images.pixels).logits) < 0.1


@pytest.mark.parametrize("graph", ["residual", "depthwise-relu6", "gated", "gradient-head"])
def test_one_image(method: str, graph: str) -> None:
    images = random_images(1)
    result = quantised(GRAPHS[graph](), images, method)
    reference = float_answers(parsed(GRAPHS[graph]()), images.pixels)
    assert error_of(reference.logits, answers(result, images.pixels).logits) < 0.2
    # And others are answered too: clipped they may be, not finite never.
    answers(result, random_images(8, seed=3).pixels * 10)


def dead_channels() -> ModelProto:
    """A channel of zeros in each convolution: weight and bias, so its weight's scale has nothing to go by."""
    model = GRAPHS["residual"]()
    weights = {node.input[slot] for node in model.graph.node if node.op_type == "Conv" for slot in (1, 2)}
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            values = numpy_helper.to_array(tensor).copy()
            values[1] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def dead_tensor() -> ModelProto:
    """A ReLU that nothing passes: one branch is zero throughout, and a convolution reads it."""
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, 16))
    weight, bias = g.weight(16, 16, 3, 3), g.constant(np.full(16, -1e4))
    dead = g.relu(g.conv(g.relu(g.conv_with(x, weight, bias)), 16, 16))
    g.pooled_head(g.relu(g.op("Add", g.conv(x, 16, 16), dead)), 16, 5, 256)
    return g.model()


def dead_weights() -> ModelProto:
    """A convolution of zeros only."""
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, 16))
    zeros = g.conv_with(x, g.constant(np.zeros((16, 16, 3, 3))), g.constant(np.zeros(16)))
    g.pooled_head(g.relu(g.op("Add", g.conv(x, 16, 16), zeros)), 16, 5, 256)
    return g.model()


@pytest.mark.parametrize("make", [dead_channels, dead_tensor, dead_weights], ids=lambda make: make.__name__)
def test_what_is_dead_stays_dead_and_harms_nothing(method: str, make: Callable[[], ModelProto]) -> None:
    images = random_images(8)
    reference = float_answers(parsed(make()), images.pixels)
    found = answers(quantised(make(), images, method), images.pixels)
    assert error_of(reference.logits, found.logits) < 0.15
    assert (found.classes == reference.classes).mean() >= 0.75


def test_a_map_that_is_zero_everywhere(method: str) -> None:
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, 16))
    weight, bias = g.weight(16, 16, 3, 3), g.constant(np.full(16, -1e4))
    g.pooled_head(g.relu(g.conv_with(x, weight, bias)), 16, 5, 256)
    images = random_images(6)
    found = answers(quantised(g.model(), images, method), images.pixels)
    assert not found.maps[0].any()


@pytest.mark.parametrize("value", [1e6, -1e6])
def test_an_outlier_of_a_million(method: str, value: float) -> None:
    images = random_images(12)
    images.pixels[7, 1, 3, 3] = value
    result = quantised(GRAPHS["residual"](), images, method)
    assert result.table.activations["image"].scale <= 1e6 / 127
    answers(result, images.pixels)
    answers(result, random_images(4, seed=1).pixels)


def test_images_of_a_million(method: str) -> None:
    images = random_images(6)
    images.pixels *= 1e6
    result = quantised(GRAPHS["residual"](), images, method)
    reference = float_answers(parsed(GRAPHS["residual"]()), images.pixels)
    assert error_of(reference.logits, answers(result, images.pixels).logits) < 0.2


def test_one_image_many_times(method: str) -> None:
    images = ArrayImages(np.repeat(random_images(1).pixels, 9, axis=0))
    reference = float_answers(parsed(GRAPHS["residual"]()), images.pixels)
    found = answers(quantised(GRAPHS["residual"](), images, method), images.pixels)
    assert error_of(reference.logits, found.logits) < 0.2


def test_a_graph_of_one_batch_size_that_does_not_divide_the_images(method: str) -> None:
    model = GRAPHS["residual"]()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    images = random_images(7)
    reference = float_answers(parsed(GRAPHS["residual"]()), images.pixels)
    found = answers(quantised(model, images, method), images.pixels)
    assert error_of(reference.logits, found.logits) < 0.2


# Input that is refused


@dataclass
class Parts(ArrayImages):
    """A set whose batches are what a test says, under the digests of `pixels`."""

    parts: tuple[npt.NDArray[Any], ...] = ()

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[Any]]:
        yield from self.parts


def spoilt(value: float) -> Callable[[], ArrayImages]:
    def make() -> ArrayImages:
        images = random_images(12)
        # In the last batch: whoever looks at the first one only would miss it.
        images.pixels[11, 2, 15, 15] = value
        return images

    return make


def in_parts(*change: Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]) -> Callable[[], ArrayImages]:
    """Eight images in batches of four, each changed in its own way."""

    def make() -> ArrayImages:
        pixels = random_images(8).pixels
        parts = tuple(alter(pixels[4 * place : 4 * place + 4]) for place, alter in enumerate(change))
        return Parts(pixels, parts)

    return make


def same(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return batch


REFUSED: dict[str, tuple[Callable[[], ArrayImages], str]] = {
    "NaN": (spoilt(np.nan), "not finite"),
    "infinite": (spoilt(np.inf), "not finite"),
    "minus infinite": (spoilt(-np.inf), "not finite"),
    "no images": (lambda: ArrayImages(random_images().pixels[:0]), "no calibration images"),
    "another height": (lambda: ArrayImages(random_images(4, side=20).pixels), "does not fit"),
    "another size later": (in_parts(same, lambda batch: batch[..., :12]), "does not fit"),
    "grey": (in_parts(*[lambda batch: batch[:, :1]] * 2), "does not fit"),
    "channels last": (in_parts(*[lambda batch: batch.transpose(0, 2, 3, 1)] * 2), "does not fit"),
    "one image without an axis": (in_parts(*[lambda batch: batch[0]] * 2), "does not fit"),
    "float64": (in_parts(*[lambda batch: batch.astype(np.float64)] * 2), "does not fit"),
    "float16": (in_parts(*[lambda batch: batch.astype(np.float16)] * 2), "does not fit"),
    "bytes": (in_parts(*[lambda batch: batch.astype(np.uint8)] * 2), "does not fit"),
    "an empty batch": (in_parts(same, lambda batch: batch[:0]), "does not fit"),
    "fewer than said": (in_parts(same), "another number"),
    "more than said": (in_parts(same, same, lambda _: random_images(4).pixels), "another number"),
    "too many": (lambda: random_images(13), "more calibration images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_images_that_cannot_be_used(method: str, case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(BadInputError) as raised:
        quantised(GRAPHS["residual"](), make(), method, most=12)
    assert message in str(raised.value)


def test_activations_that_overflow(method: str) -> None:
    model = GRAPHS["residual"]()
    stem = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    stem.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stem) * np.float32(1e38), stem.name))
    with pytest.raises(BadInputError) as raised:
        quantised(model, random_images(), method)
    assert "not finite" in str(raised.value)
    assert raised.value.where is not None


def old_opset(_: Path) -> ModelProto:
    model = GRAPHS["flattened"]()
    del model.graph.node[:], model.graph.initializer[:]
    for op_type, inputs, output in (
        ("GlobalAveragePool", ["image"], "pooled"),
        ("Flatten", ["pooled"], "logits"),
        ("GlobalMaxPool", ["image"], "peak"),
        ("Squeeze", ["peak"], "attribution"),
    ):
        model.graph.node.append(helper.make_node(op_type, inputs, [output]))
    model.opset_import[0].version = 11
    return model


def quantised_already(folder: Path) -> bytes:
    graph = folder / "first.onnx"
    graph.write_bytes(GRAPHS["residual"]().SerializeToString())
    calibrate(CalibrateRequest(graph, random_images(), FORMAT.name, options("minmax")), folder / "first")
    return (folder / "first" / MODEL_NAME).read_bytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: old_opset(folder).SerializeToString(), "opset is too old"),
        (quantised_already, "quantised already"),
    ],
    ids=["old opset", "quantised already"],
)
def test_graphs_that_cannot_be_used(method: str, make: Callable[[Path], bytes], message: str, tmp_path: Path) -> None:
    graph = tmp_path / "fp32.onnx"
    graph.write_bytes(make(tmp_path))
    with pytest.raises(BadInputError, match=message):
        calibrate(CalibrateRequest(graph, random_images(), FORMAT.name, options(method)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
