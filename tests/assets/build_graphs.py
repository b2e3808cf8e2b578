"""Writes the small ONNX graphs beside it. Run after changing it: `python tests/assets/build_graphs.py`.

The graphs are stored because tests of the device side run where onnx is not installed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

# Three channels, four classes: small enough that every answer can be worked out on paper.
WEIGHT = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, 2]], dtype=np.float32)
BIAS = np.array([0, 0, 0, 0.25], dtype=np.float32)
SIDE = 4


def _nodes() -> list[NodeProto]:
    return [
        helper.make_node("ReduceMean", ["image"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["pooled", "weight", "bias"], ["logits"], transB=1),
        helper.make_node("ArgMax", ["logits"], ["top"], axis=1, keepdims=0),
        helper.make_node("Cast", ["top"], ["top_int32"], to=TensorProto.INT32),
        helper.make_node("Less", ["class_index", "zero"], ["is_own"]),
        helper.make_node("Where", ["is_own", "top_int32", "class_index"], ["chosen"]),
        # Grad-CAM of a pooled linear head: the channel's weight is its class weight over the number of cells.
        helper.make_node("Gather", ["scaled_weight", "chosen"], ["alpha"], axis=0),
        helper.make_node("Unsqueeze", ["alpha", "cells"], ["alpha_nchw"]),
        helper.make_node("Mul", ["alpha_nchw", "image"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "channel"], ["summed"], keepdims=0),
        helper.make_node("Relu", ["summed"], ["attribution"]),
    ]


def tiny_explained(second_output: str = "attribution") -> ModelProto:
    """The explained graph of global average pooling and one linear layer on a 3 x 4 x 4 image.

    Args:
        second_output: Another name makes a sound ONNX model that is not an explained graph.
    """
    nodes = _nodes()
    nodes[-1].output[0] = second_output
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE]),
            helper.make_tensor_value_info("class_index", TensorProto.INT32, ["batch"]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info(second_output, TensorProto.FLOAT, ["batch", SIDE, SIDE]),
        ],
        [
            numpy_helper.from_array(WEIGHT, "weight"),
            numpy_helper.from_array(WEIGHT / np.float32(SIDE * SIDE), "scaled_weight"),
            numpy_helper.from_array(BIAS, "bias"),
            numpy_helper.from_array(np.array(0, dtype=np.int32), "zero"),
            numpy_helper.from_array(np.array([2, 3], dtype=np.int64), "cells"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "channel"),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="edgekit-tests"
    )
    checker.check_model(model, full_check=True)
    return model


def write_graphs(folder: Path) -> None:
    """Write every graph into `folder`."""
    (folder / "tiny_explained.onnx").write_bytes(tiny_explained().SerializeToString(deterministic=True))
    (folder / "other_signature.onnx").write_bytes(tiny_explained("saliency").SerializeToString(deterministic=True))


if __name__ == "__main__":
    write_graphs(Path(__file__).parent)
