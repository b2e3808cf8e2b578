"""Whether a layer's channel count has to be a multiple of something to be fast: the reason for `channel_multiple`.

    python benchmarks/channel_multiple.py [--runs N]

Six 3x3 convolutions of C channels on 28x28, FP32 and INT8 (uint8 activations, int8 weights per channel, explicit Q/DQ),
ONNX Runtime on one thread. All networks are run in turn and the fastest run of each counts, since everything else the
machine does only adds. Writes `benchmarks/results/channel_multiple.json`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.canonical import write_json
from edgekit.core.environment import environment_print

RESULTS = Path(__file__).resolve().parent / "results"
CHANNELS = (32, 33, 34, 36, 40, 44, 45, 46, 47, 48, 52, 56, 60, 61, 62, 63, 64)
SIDE = 28
DEPTH = 6


class Graph:
    """Nodes and constants of a chain of convolutions."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant; return its name."""
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node; return its output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def quantised(self, source: str) -> str:
        """Add a Q/DQ pair behind `source`."""
        held = self.node("QuantizeLinear", [source, "scale", "zero"], f"{source}_q")
        return self.node("DequantizeLinear", [held, "scale", "zero"], f"{source}_dq")

    def weight(self, name: str, value: np.ndarray, quantise: bool) -> str:
        """Add a weight [out, in, 3, 3], in INT8 per channel where asked for."""
        if not quantise:
            return self.constant(name, value)
        scale = (np.abs(value).max(axis=(1, 2, 3)) / 127).astype(np.float32)
        integers = np.clip(np.round(value / scale[:, None, None, None]), -127, 127).astype(np.int8)
        inputs = [
            self.constant(f"{name}_q", integers),
            self.constant(f"{name}_scale", scale),
            self.constant(f"{name}_zero", np.zeros(len(value), np.int8)),
        ]
        return self.node("DequantizeLinear", inputs, name, axis=0)


def network(channels: int, quantise: bool) -> bytes:
    """A chain of convolutions as a serialised ONNX model."""
    rng = np.random.default_rng(0)
    graph = Graph()
    graph.constant("scale", np.array(0.02, np.float32))
    graph.constant("zero", np.array(0, np.uint8))
    value = "image"
    for layer in range(DEPTH):
        spread = np.float32(1 / np.sqrt(9 * channels))
        weight = rng.normal(size=(channels, channels, 3, 3)).astype(np.float32) * spread
        value = graph.quantised(value) if quantise else value
        inputs = [value, graph.weight(f"weight{layer}", weight, quantise)]
        convolved = graph.node("Conv", inputs, f"convolved{layer}", pads=[1, 1, 1, 1])
        value = graph.node("Relu", [convolved], f"value{layer}")
    value = graph.quantised(value) if quantise else value
    graph.node("Identity", [value], "answer")
    shape = [1, channels, SIDE, SIDE]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "answer")]
    body = helper.make_graph(graph.nodes, "chain", ends[:1], ends[1:], graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    serialised: bytes = model.SerializeToString()
    return serialised


def session(channels: int, quantise: bool) -> ort.InferenceSession:
    """The network on one thread of the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(network(channels, quantise), options, providers=["CPUExecutionProvider"])


@click.command()
@click.option("--runs", default=200, show_default=True, help="Timed runs of each network.")
def main(runs: int) -> None:
    """Measure and write down what a channel costs at each channel count."""
    rng = np.random.default_rng(1)
    cases = [
        (channels, quantise, session(channels, quantise), rng.random((1, channels, SIDE, SIDE), np.float32))
        for channels in CHANNELS
        for quantise in (True, False)
    ]
    best = {(channels, quantise): float("inf") for channels, quantise, _, _ in cases}
    for _ in range(runs):
        for channels, quantise, runner, image in cases:
            begun = time.perf_counter()
            runner.run(None, {"image": image})
            taken = time.perf_counter() - begun
            best[channels, quantise] = min(best[channels, quantise], taken)
    rows = [
        {
            "channels": channels,
            "int8_ms": round(best[channels, True] * 1e3, 3),
            "fp32_ms": round(best[channels, False] * 1e3, 3),
        }
        for channels in CHANNELS
    ]
    write_json(
        RESULTS / "channel_multiple.json",
        {"environment": environment_print(), "runs": runs, "side": SIDE, "layers": DEPTH, "rows": rows},
    )
    for row in rows:
        click.echo(f"{row['channels']:4d} channels: INT8 {row['int8_ms']:6.3f} ms, FP32 {row['fp32_ms']:6.3f} ms")


if __name__ == "__main__":
    main()
