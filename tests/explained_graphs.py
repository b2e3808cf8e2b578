"""Explained FP32 graphs made by hand: what the export writes, without torch, in milliseconds.

Each has inputs image [N, 3, S, S] and class_index [N], outputs logits and attribution, and random weights from a seed.
`GRAPHS` lists one for each wiring that quantisation has to cope with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from edgekit.core.digests import digest_array

OPSET = 18
IR_VERSION = 10


class GraphBuilder:
    """Writes nodes one after the other; every method takes tensor names and returns the name of its result."""

    def __init__(self, side: int = 16, seed: int = 0) -> None:
        self.side = side
        self.rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.initialisers: dict[str, npt.NDArray[Any]] = {}

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        index = len(self.nodes)
        names = [f"{op_type.lower()}_{index}" + (f"_{position}" if position else "") for position in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=f"node_{op_type}_{index}", **attributes))
        return names[0]

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"constant_{len(self.initialisers)}"
        self.initialisers[name] = np.asarray(values, dtype=dtype)
        return name

    def weight(self, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:]))
        return self.constant(self.rng.normal(0, (2 / fan_in) ** 0.5, shape))

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, group: int = 1) -> str:
        weight = self.weight(outputs, inputs // group, kernel, kernel)
        bias = self.constant(self.rng.normal(0, 0.2, outputs))
        return self.conv_with(x, weight, bias, stride, group)

    def conv_with(self, x: str, weight: str, bias: str, stride: int = 1, group: int = 1) -> str:
        kernel = self.initialisers[weight].shape[-1]
        pads = [kernel // 2] * 4
        return self.op(
            "Conv", x, weight, bias, kernel_shape=[kernel, kernel], pads=pads, strides=[stride, stride], group=group
        )

    def relu(self, x: str) -> str:
        return self.op("Relu", x)

    def relu6(self, x: str) -> str:
        return self.op("Clip", x, self.constant(0.0), self.constant(6.0))

    def mean(self, x: str, keepdims: int = 1) -> str:
        return self.op("ReduceMean", x, self.constant([2, 3], np.int64), keepdims=keepdims)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        weight = self.weight(outputs, inputs)
        return self.op("Gemm", x, weight, self.constant(self.rng.normal(0, 0.1, outputs)), transB=1)

    def one_hot(self, logits: str, classes: int) -> str:
        """One row a sample: 1 at the class asked for, or at the graph's own top-1."""
        own = self.op("Cast", self.op("ArgMax", logits, axis=1, keepdims=0), to=TensorProto.INT32)
        asked = self.op("Less", "class_index", self.constant(0, np.int32))
        chosen = self.op("Unsqueeze", self.op("Where", asked, own, "class_index"), self.constant([1], np.int64))
        wanted = self.op("Equal", self.constant(np.arange(classes)[None], np.int32), chosen)
        return self.op("Cast", wanted, to=TensorProto.FLOAT)

    def pooled_head(self, tap: str, channels: int, classes: int, cells: int) -> None:
        """Pool, classify, and the closed form of Grad-CAM: logits and attribution."""
        flat = self.op("Reshape", self.mean(tap), self.constant([-1, channels], np.int64))
        weight, bias = self.weight(channels, classes), self.constant(self.rng.normal(0, 0.1, classes))
        logits = self.op("Gemm", flat, weight, bias)
        transposed = self.constant(self.initialisers[weight].T.copy())
        gradient = self.op("MatMul", self.one_hot(logits, classes), transposed)
        gradient = self.op("Unsqueeze", gradient, self.constant([2, 3], np.int64))
        self.finish(logits, self.weighted_sum(self.op("Div", gradient, self.constant(float(cells))), tap))

    def weighted_sum(self, weights: str, tap: str) -> str:
        product = self.op("Mul", weights, tap)
        return self.op("Relu", self.op("ReduceSum", product, self.constant([1], np.int64), keepdims=0))

    def finish(self, logits: str, attribution: str) -> None:
        for node in self.nodes:
            for names in (node.input, node.output):
                for slot, name in enumerate(names):
                    names[slot] = {logits: "logits", attribution: "attribution"}.get(name, name)

    def model(self, opset: int = OPSET) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "explained",
            [
                helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, self.side, self.side]),
                helper.make_tensor_value_info("class_index", TensorProto.INT32, ["batch"]),
            ],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", None]),
                helper.make_tensor_value_info("attribution", TensorProto.FLOAT, ["batch", None, None]),
            ],
            [numpy_helper.from_array(values, name) for name, values in self.initialisers.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
        checker.check_model(model, full_check=True)
        return model


def residual(seed: int = 0) -> ModelProto:
    """Stem with max-pool, an identity block and a block with a projection on its shortcut."""
    g = GraphBuilder(seed=seed)
    x = g.op("MaxPool", g.relu(g.conv("image", 3, 16)), kernel_shape=[2, 2], strides=[2, 2])
    x = g.relu(g.op("Add", g.conv(g.relu(g.conv(x, 16, 16)), 16, 16), x))
    inner = g.conv(g.relu(g.conv(x, 16, 32, stride=2)), 32, 32)
    x = g.relu(g.op("Add", inner, g.conv(x, 16, 32, kernel=1, stride=2)))
    x = g.relu(g.op("Add", g.conv(g.relu(g.conv(x, 32, 32)), 32, 32), x))
    g.pooled_head(x, 32, 5, 16)
    return g.model()


def padded_shortcut(seed: int = 0) -> ModelProto:
    """CIFAR ResNets of the paper: where channels grow, the shortcut is sliced and padded with zeros."""
    g = GraphBuilder(seed=seed)
    x = g.relu(g.conv("image", 3, 16))
    ints = [g.constant(values, np.int64) for values in ([0, 0], [99, 99], [2, 3], [2, 2])]
    shortcut = g.op("Pad", g.op("Slice", x, *ints), g.constant([0, 8, 0, 0, 0, 8, 0, 0], np.int64))
    x = g.relu(g.op("Add", g.conv(g.relu(g.conv(x, 16, 32, stride=2)), 32, 32), shortcut))
    x = g.relu(g.conv(x, 32, 32))
    g.pooled_head(x, 32, 5, 64)
    return g.model()


def depthwise_relu6(seed: int = 0) -> ModelProto:
    """Inverted residuals: expansion, depthwise, linear projection, ReLU6, addition of two linear results."""
    g = GraphBuilder(seed=seed)
    x = g.relu6(g.conv("image", 3, 16, stride=2))
    x = g.conv(g.relu6(g.conv(x, 16, 16, group=16)), 16, 16, kernel=1)
    y = g.relu6(g.conv(x, 16, 48, kernel=1))
    y = g.conv(g.relu6(g.conv(y, 48, 48, group=48)), 48, 16, kernel=1)
    x = g.relu6(g.conv(g.op("Add", x, y), 16, 32, kernel=1))
    g.pooled_head(x, 32, 5, 64)
    return g.model()


def dense_concat(seed: int = 0) -> ModelProto:
    """Branches of different ranges concatenated, and a transition with average pooling."""
    g = GraphBuilder(seed=seed)
    x = g.relu(g.conv("image", 3, 16))
    y = g.op("Concat", x, g.relu(g.conv(x, 16, 16)), axis=1)
    y = g.op("AveragePool", g.relu(g.conv(y, 32, 16, kernel=1)), kernel_shape=[2, 2], strides=[2, 2])
    y = g.op("Concat", y, g.relu(g.conv(y, 16, 16)), axis=1)
    x = g.relu(g.conv(y, 32, 24))
    g.pooled_head(x, 24, 5, 64)
    return g.model()


def gated(seed: int = 0) -> ModelProto:
    """Squeeze and excite on integers, hard-swish in parts, SiLU: activations that stay in float."""
    g = GraphBuilder(seed=seed)
    x = g.conv("image", 3, 16, stride=2)
    gate = g.op("Clip", g.op("Add", x, g.constant(3.0)), g.constant(0.0), g.constant(6.0))
    x = g.op("Div", g.op("Mul", x, gate), g.constant(6.0))
    x = g.relu(g.conv(x, 16, 16))
    squeezed = g.conv(g.relu(g.conv(g.mean(x), 16, 8, kernel=1)), 8, 16, kernel=1)
    x = g.op("Mul", x, g.op("Sigmoid", squeezed))
    x = g.conv(x, 16, 24)
    x = g.op("Mul", x, g.op("Sigmoid", x))
    x = g.relu(g.conv(x, 24, 24))
    g.pooled_head(x, 24, 5, 64)
    return g.model()


def hard_swish(seed: int = 0) -> ModelProto:
    """MobileNetV3's pieces as the exporter writes them: HardSwish, and a gate through HardSigmoid."""
    g = GraphBuilder(seed=seed)
    x = g.op("HardSwish", g.conv("image", 3, 16, stride=2))
    x = g.op("HardSwish", g.conv(x, 16, 16, group=16))
    squeezed = g.conv(g.relu(g.conv(g.mean(x), 16, 8, kernel=1)), 8, 16, kernel=1)
    x = g.op("Mul", x, g.op("HardSigmoid", squeezed, alpha=1 / 6, beta=0.5))
    x = g.conv(x, 16, 24, kernel=1)
    x = g.op("Add", g.conv(g.op("HardSwish", g.conv(x, 24, 24)), 24, 24), x)
    x = g.relu(g.conv(x, 24, 24))
    g.pooled_head(x, 24, 5, 64)
    return g.model()


def slopes_and_products(seed: int = 0) -> ModelProto:
    """Learned slopes, two results multiplied, a gate before what it gates, and a stored factor for each channel."""
    g = GraphBuilder(seed=seed)
    x = g.op("PRelu", g.conv("image", 3, 16, stride=2), g.constant(g.rng.uniform(0.1, 0.4, (16, 1, 1))))
    y = g.op("Mul", g.conv(x, 16, 16), g.relu(g.conv(x, 16, 16)))
    squeezed = g.conv(g.relu(g.conv(g.mean(y), 16, 8, kernel=1)), 8, 16, kernel=1)
    x = g.conv(g.op("Mul", g.op("Sigmoid", squeezed), y), 16, 24)
    x = g.op("Mul", g.op("PRelu", x, g.constant([0.25])), g.constant(g.rng.uniform(0.5, 1.5, (24, 1, 1))))
    x = g.relu(g.conv(x, 24, 24))
    g.pooled_head(x, 24, 5, 64)
    return g.model()


def shuffled(seed: int = 0) -> ModelProto:
    """Split, transposed channels and reshapes between convolutions."""
    g = GraphBuilder(seed=seed)
    x = g.relu(g.conv("image", 3, 16, stride=2))
    left = g.op("Split", x, g.constant([8, 8], np.int64), outputs=2, axis=1)
    y = g.op("Concat", left, g.relu(g.conv(f"{left}_1", 8, 8)), axis=1)
    y = g.op("Reshape", y, g.constant([0, 2, 8, 8, 8], np.int64))
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3, 4]), g.constant([0, 16, 8, 8], np.int64))
    x = g.relu(g.conv(y, 16, 16))
    g.pooled_head(x, 16, 5, 64)
    return g.model()


def gradient_head(seed: int = 0) -> ModelProto:
    """A tap in the middle: the map branch holds the head's backward pass, sharing its weights and its ReLU6's mask."""
    g = GraphBuilder(seed=seed)
    tap = g.relu(g.conv("image", 3, 16, stride=2))
    weight, bias = g.weight(24, 16, 3, 3), g.constant(g.rng.normal(0, 0.2, 24))
    before = g.conv_with(tap, weight, bias)
    flat = g.op("Reshape", g.mean(g.relu6(before)), g.constant([-1, 24], np.int64))
    fc = g.weight(5, 24)
    logits = g.op("Gemm", flat, fc, g.constant(g.rng.normal(0, 0.1, 5)), transB=1)
    gradient = g.op("MatMul", g.one_hot(logits, 5), fc)
    gradient = g.op("Unsqueeze", gradient, g.constant([2, 3], np.int64))
    inside = g.op("And", g.op("Greater", before, g.constant(0.0)), g.op("Less", before, g.constant(6.0)))
    gradient = g.op("Mul", g.op("Cast", inside, to=TensorProto.FLOAT), gradient)
    gradient = g.op("ConvTranspose", gradient, weight, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    g.finish(logits, g.weighted_sum(g.mean(gradient), tap))
    return g.model()


def float_tap(seed: int = 0) -> ModelProto:
    """A tap behind an activation that stays in float, read by integers and by the map."""
    g = GraphBuilder(seed=seed)
    x = g.conv("image", 3, 16, stride=2)
    tap = g.op("Mul", x, g.op("Sigmoid", x))
    logits = g.linear(g.mean(g.relu(g.conv(tap, 16, 16)), keepdims=0), 16, 5)
    weights = g.op("MatMul", g.one_hot(logits, 5), g.weight(5, 16))
    g.finish(logits, g.weighted_sum(g.op("Unsqueeze", weights, g.constant([2, 3], np.int64)), tap))
    return g.model()


def flattened(seed: int = 0) -> ModelProto:
    """No pooling before the classifier: two linear layers on flattened integers, and a map of a pooled gradient."""
    g = GraphBuilder(seed=seed)
    x = g.relu(g.conv("image", 3, 16, stride=2))
    tap = g.relu(g.conv(x, 16, 16, stride=2))
    hidden = g.relu(g.linear(g.op("Flatten", g.op("MaxPool", tap, kernel_shape=[2, 2], strides=[2, 2])), 64, 32))
    logits = g.linear(hidden, 32, 5)
    weights = g.op("MatMul", g.one_hot(logits, 5), g.weight(5, 16))
    g.finish(logits, g.weighted_sum(g.op("Unsqueeze", weights, g.constant([2, 3], np.int64)), tap))
    return g.model()


GRAPHS: Mapping[str, Callable[..., ModelProto]] = {
    "residual": residual,
    "padded-shortcut": padded_shortcut,
    "depthwise-relu6": depthwise_relu6,
    "dense-concat": dense_concat,
    "gated": gated,
    "hard-swish": hard_swish,
    "slopes-and-products": slopes_and_products,
    "shuffled": shuffled,
    "gradient-head": gradient_head,
    "float-tap": float_tap,
    "flattened": flattened,
}


@dataclass
class ArrayImages:
    """Calibration images from one array, counting the passes."""

    pixels: npt.NDArray[np.float32]
    passes: int = field(default=0, init=False)

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(digest_array(image) for image in self.pixels)

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        self.passes += 1
        for start in range(0, len(self.pixels), batch_size):
            yield self.pixels[start : start + batch_size]


def random_images(count: int = 12, side: int = 16, seed: int = 7) -> ArrayImages:
    """Smooth random images, as natural ones are, around zero."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1, (count, 3, side // 4, side // 4)).repeat(4, axis=2).repeat(4, axis=3)
    return ArrayImages((coarse + rng.normal(0, 0.2, coarse.shape)).astype(np.float32))
