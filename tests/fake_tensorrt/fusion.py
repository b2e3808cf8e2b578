"""From the layers of a network to the layers of an engine: what fuses, in which precision it runs, what is reformatted.

A caricature of the real builder with its outward shape: quantisation disappears into what it quantises, activations
into the layer before, and a layer between two precisions is a reformat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fake_tensorrt.config import BuilderConfig
from fake_tensorrt.network import Layer, Network

__all__ = ["EngineLayer", "engine_layers"]

WEIGHTED = {
    "CONVOLUTION": "CaskConvolution",
    "DECONVOLUTION": "CaskDeconvolutionV2",
    "MATRIX_MULTIPLY": "MatrixMultiply",
}
KINDS = {
    **WEIGHTED,
    "ACTIVATION": "PointWiseV2",
    "ELEMENTWISE": "PointWiseV2",
    "POOLING": "CaskPooling",
    "REDUCE": "Reduce",
    "SHUFFLE": "Shuffle",
    "SOFTMAX": "SoftMaxV2",
    "CONCATENATION": "Concat",
    "SLICE": "Slice",
    "GATHER": "Gather",
}


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine.

    Attributes:
        name: Names of the layers in it, joined by " + ".
        kind: The engine's own type of layer.
        precision: "INT8", "FP16", "FP32" or "INT32".
        inputs: Names of tensors.
        outputs: Names of tensors.
        metadata: Where it comes from, in the parser's notation.
    """

    name: str
    kind: str
    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: str


def engine_layers(network: Network, config: BuilderConfig) -> tuple[EngineLayer, ...]:
    """The engine's layers in order of execution."""
    through = _through_quantisation(network)
    quantised_inputs = {
        name
        for layer in network.layers
        if layer.node.op_type == "DequantizeLinear"
        for name in (output.name for output in layer.outputs)
    }
    made: list[EngineLayer] = []
    for layer in network.layers:
        if layer.node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        inputs = tuple(through.get(each.name, each.name) for each in layer.inputs if each is not None)
        outputs = tuple(each.name for each in layer.outputs)
        precision = _precision(layer, config, quantised_inputs, network)
        if (
            made
            and layer.type.name == "ACTIVATION"
            and inputs == made[-1].outputs
            and made[-1].kind in WEIGHTED.values()
        ):
            last = made[-1]
            made[-1] = replace(
                last,
                name=f"{last.name} + {layer.name}",
                outputs=outputs,
                metadata=last.metadata + "\x1e" + _metadata(layer),
            )
            continue
        kind = KINDS.get(layer.type.name, "ForeignNode")
        made.append(EngineLayer(layer.name, kind, precision, inputs, outputs, _metadata(layer)))
    return tuple(_with_reformats(made, network))


def _metadata(layer: Layer) -> str:
    return str(layer.metadata)


def _through_quantisation(network: Network) -> dict[str, str]:
    through: dict[str, str] = {}
    for layer in network.layers:
        if (
            layer.node.op_type in ("QuantizeLinear", "DequantizeLinear")
            and layer.inputs
            and layer.inputs[0] is not None
        ):
            source = layer.inputs[0].name
            through[layer.outputs[0].name] = through.get(source, source)
    return through


def _precision(layer: Layer, config: BuilderConfig, quantised: set[str], network: Network) -> str:
    dtype = layer.outputs[0].dtype.name
    if dtype in ("INT32", "INT64", "BOOL"):
        return "INT32"
    if any(part in layer.name for part in config.api.machine.faults.fallback_layers):
        return "FP32"
    data = [each for each in layer.inputs[:1] if each is not None]
    if data and all(each.name in quantised for each in data):
        return "INT8"
    implicit = config.asks_for("INT8") and not network.quantised
    if implicit and layer.type.name in WEIGHTED:
        return "INT8"
    if network.strongly_typed:
        return {"HALF": "FP16", "BF16": "BF16"}.get(dtype, "FP32")
    return "FP16" if config.asks_for("FP16") else "FP32"


def _with_reformats(layers: Sequence[EngineLayer], network: Network) -> list[EngineLayer]:
    produced = {tensor.name: "FP32" for tensor in network.inputs}
    out: list[EngineLayer] = []
    for layer in layers:
        for position, name in enumerate(layer.inputs):
            before = produced.get(name)
            if before is not None and before != layer.precision and "INT32" not in (before, layer.precision):
                title = f"Reformatting CopyNode for Input Tensor {position} to {layer.name}"
                out.append(
                    EngineLayer(title, "Reformat", layer.precision, (name,), (f"Reformatted {name}",), layer.metadata)
                )
        out.append(layer)
        produced |= dict.fromkeys(layer.outputs, layer.precision)
    return out
