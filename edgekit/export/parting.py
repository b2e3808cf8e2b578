"""The first layer at which an exported graph and its network part."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from edgekit.attribution.spec import OWN_CLASS
from edgekit.export.fake_quantised import frozen_observers
from edgekit.export.origin import MAP, output_tensors

__all__ = ["Parting", "first_parting"]


@dataclass(frozen=True)
class Parting:
    """Where graph and network part.

    Attributes:
        module: The module whose output is the first to differ, or "map" where all modules agree and only the map does
            not.
        tensor: The graph's tensor that is compared.
        error: `max|onnx - torch64| / max|torch64|` there.
    """

    module: str
    tensor: str
    error: float

    def __str__(self) -> str:
        if self.module == MAP:
            return "the gradient of the map: every module's output agrees"
        return f"first at the output of {self.module!r}, in the graph {self.tensor!r}: relative error {self.error:.2e}"


def first_parting(
    model: nn.Module,
    graph: onnx.ModelProto,
    images: npt.NDArray[np.float32],
    tolerance: float,
) -> Parting:
    """Compare the outputs of the network's modules with the tensors of the graph that carry them, first to last.

    Modules that run more than once, and those whose output the graph does not hold as such (a convolution with its
    normalisation folded in), are passed over.

    Args:
        model: The network, compared in float64.
        graph: Its exported graph, with the names of modules in its nodes.
        images: float32 [N, 3, H, W]; N is the graph's batch where that is fixed.
        tolerance: The largest relative error that is no difference.
    """
    expected = _module_outputs(model, images)
    tensors = {name: tensor for name, tensor in output_tensors(graph).items() if name in expected}
    found = _tensors(graph, images, list(dict.fromkeys(tensors.values())))
    for name, tensor in tensors.items():
        truth, value = expected[name], found[tensor]
        if value.shape != truth.shape:
            return Parting(name, tensor, float("inf"))
        scale = np.abs(truth).max(initial=0.0)
        error = float(np.abs(value - truth).max(initial=0.0) / (scale or 1.0))
        if not error <= tolerance:
            return Parting(name, tensor, error)
    return Parting(MAP, "attribution", float("nan"))


def _module_outputs(model: nn.Module, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float64]]:
    """What each module that runs once puts out, before anything changes it in place."""
    double = copy.deepcopy(model).double().eval()
    seen: dict[str, list[torch.Tensor]] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                seen.setdefault(name, []).append(output.detach().clone())

        return hook

    with ExitStack() as stack, torch.no_grad(), frozen_observers(double):
        for name, module in double.named_modules():
            if name:
                stack.callback(module.register_forward_hook(keep(name)).remove)
        double(torch.from_numpy(images).double())
    return {name: outputs[0].numpy() for name, outputs in seen.items() if len(outputs) == 1}


def _tensors(
    graph: onnx.ModelProto, images: npt.NDArray[np.float32], names: list[str]
) -> dict[str, npt.NDArray[np.float32]]:
    import onnxruntime

    tapped = onnx.ModelProto()
    tapped.CopyFrom(graph)
    there = {value.name for value in tapped.graph.output}
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    columns = next(value for value in graph.graph.input if value.name == "class_index").type.tensor_type.shape.dim[1:]
    asked = np.full((len(images), *(dim.dim_value for dim in columns)), OWN_CLASS, dtype=np.int32)
    return dict(zip(names, session.run(names, {"image": images, "class_index": asked}), strict=True))
