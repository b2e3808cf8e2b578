"""Which module of the torch network each stored weight came from, and the way back into it.

A convolution of the graph holds the product of a module's weights and the batch normalisation behind it. Learned
weights go back as the module's own, and that normalisation becomes the identity with the learned bias.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import WEIGHTED_OPS
from edgekit.compress.training.reproducible import evaluating
from edgekit.export.origin import module_of_node, outputs_of_node

__all__ = ["Owner", "find_owners", "write_back"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Folding is done in float32 by the exporter and in float64 here.
_CLOSE = 1e-5
_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Owner:
    """Where one operation's weights live in the network.

    Attributes:
        module: Name of the convolution or linear layer.
        norm: Name of the batch normalisation folded into it, or None.
        weight: Name of the stored weight.
        bias: Name of the stored bias, or None.
        transposed: The graph stores a linear layer's weight as [inputs, outputs].
    """

    module: str
    norm: str | None
    weight: str
    bias: str | None
    transposed: bool


def find_owners(
    graph: ExplainedGraph, model: nn.Module, images: torch.Tensor
) -> tuple[tuple[Owner, ...], tuple[str, ...]]:
    """The owners of the weights on the way to the logits.

    Only what was seen counts: the module's numbers, folded, are the stored ones, and the answer has a gradient with
    respect to them, which fixed weights have not.

    Args:
        graph: Exported from `model`.
        model: The torch network.
        images: Something it takes, float32 [N, 3, H, W].

    Returns:
        One owner an operation, in graph order; and the stored weights that cannot be led back to a module that holds
        them alone, such as those that the network computes.
    """
    modules = dict(model.named_modules())
    before = _convolutions_before(model, images)
    felt = _felt_parameters(model, images)
    found: list[Owner] = []
    lost: set[str] = set()
    for index in graph.forward:
        if graph.nodes[index].op_type not in WEIGHTED_OPS:
            continue
        weight = graph.nodes[index].input[1]
        if not graph.is_constant(weight) or graph.is_constant(graph.nodes[index].input[0]):
            lost.update(name for name in graph.nodes[index].input if name and graph.is_constant(name))
            continue
        candidates = _candidates(graph, index, modules, before)
        owner = next(
            (item for item in candidates if id(modules[item.module].weight) in felt and _holds(graph, item, modules)),
            None,
        )
        if owner is None:
            lost.update(name for name in graph.nodes[index].input[1:] if name and graph.is_constant(name))
        else:
            found.append(owner)
    lost |= _torn(found)
    kept = tuple(item for item in found if item.weight not in lost and item.bias not in lost)
    lost |= {name for item in found if item not in kept for name in (item.weight, item.bias) if name}
    # A tensor that a kept owner shares with a lost one would move without it.
    kept = tuple(item for item in kept if item.weight not in lost and item.bias not in lost)
    return kept, tuple(sorted(lost))


def _torn(owners: Collection[Owner]) -> set[str]:
    """Tensors of modules that the graph holds in more than one form, as where a module runs twice in two scalings."""
    forms: dict[str, set[Owner]] = {}
    for owner in owners:
        for name in (owner.module, owner.norm):
            if name is not None:
                forms.setdefault(name, set()).add(owner)
    torn = [owner for items in forms.values() if len(items) > 1 for owner in items]
    return {name for owner in torn for name in (owner.weight, owner.bias) if name}


def _convolutions_before(model: nn.Module, images: torch.Tensor) -> Mapping[str, str]:
    """Batch normalisation to the convolution whose output it was given."""
    outputs: list[tuple[str, torch.Tensor]] = []
    before: dict[str, str] = {}

    def of_convolution(name: str) -> Any:
        return lambda _module, _inputs, output: outputs.append((name, output))

    def of_norm(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            for source, output in outputs:
                if inputs[0] is output:
                    before[name] = source

        return hook

    with ExitStack() as stack, evaluating(model), torch.no_grad():
        for name, module in model.named_modules():
            handle = None
            if isinstance(module, _CONVOLUTIONS):
                handle = module.register_forward_hook(of_convolution(name))
            elif isinstance(module, _NORMS):
                handle = module.register_forward_pre_hook(of_norm(name))
            if handle is not None:
                stack.callback(handle.remove)
        model(images)
    return before


def _felt_parameters(model: nn.Module, images: torch.Tensor) -> frozenset[int]:
    """Identities of the parameters that the answer has a gradient with respect to."""
    parameters = dict(model.named_parameters())
    leaves = {name: parameter.detach().clone().requires_grad_() for name, parameter in parameters.items()}
    with evaluating(model):
        answer = torch.func.functional_call(model, leaves, (images,))
    gradients = torch.autograd.grad(answer.sum(), list(leaves.values()), allow_unused=True)
    return frozenset(
        id(parameter)
        for parameter, gradient in zip(parameters.values(), gradients, strict=True)
        if gradient is not None
    )


def _candidates(
    graph: ExplainedGraph, index: int, modules: Mapping[str, nn.Module], before: Mapping[str, str]
) -> Iterator[Owner]:
    node = graph.nodes[index]
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    for name in dict.fromkeys((module_of_node(node), *outputs_of_node(node))):
        module = modules.get(name)
        if isinstance(module, nn.Linear) and node.op_type != "Conv":
            transposed = not (node.op_type == "Gemm" and graph.attribute(index, "transB", 0))
            yield Owner(name, None, node.input[1], bias, transposed)
        elif isinstance(module, _CONVOLUTIONS) and node.op_type == "Conv":
            yield Owner(name, None, node.input[1], bias, transposed=False)
        elif isinstance(module, _NORMS) and name in before and node.op_type == "Conv":
            yield Owner(before[name], name, node.input[1], bias, transposed=False)


def _holds(graph: ExplainedGraph, owner: Owner, modules: Mapping[str, nn.Module]) -> bool:
    weight, bias = _folded(owner, modules)
    if (bias is None) != (owner.bias is None):
        return False
    pairs = [(weight, graph.constant(owner.weight))]
    if bias is not None and owner.bias is not None:
        pairs.append((bias, graph.constant(owner.bias)))
    return all(
        wanted.shape == stored.shape
        and np.abs(wanted - stored).max(initial=0) <= _CLOSE * np.abs(wanted).max(initial=0)
        for wanted, stored in pairs
    )


def _folded(owner: Owner, modules: Mapping[str, nn.Module]) -> tuple[_Array, _Array | None]:
    """What the graph should hold of an owner."""
    module: Any = modules[owner.module]
    weight = _double(module.weight)
    bias = None if module.bias is None else _double(module.bias)
    if owner.norm is not None:
        norm: Any = modules[owner.norm]
        if norm.running_var is None:
            return weight, None
        gain = 1 / np.sqrt(_double(norm.running_var) + norm.eps)
        gain = gain if norm.weight is None else gain * _double(norm.weight)
        shift = 0.0 if norm.bias is None else _double(norm.bias)
        bias = shift + ((0.0 if bias is None else bias) - _double(norm.running_mean)) * gain
        weight = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    return (weight.T if owner.transposed else weight), bias


def _double(tensor: torch.Tensor) -> _Array:
    array: _Array = tensor.detach().cpu().numpy().astype(np.float64)
    return array


def write_back(owners: Collection[Owner], learned: Mapping[str, torch.Tensor], model: nn.Module) -> None:
    """Put learned weights and biases into the modules they came from, in place.

    Args:
        owners: As `find_owners` found them in `model`.
        learned: Stored tensor of the graph to its value now.
        model: The torch network.
    """
    modules = dict(model.named_modules())
    with torch.no_grad():
        for owner in owners:
            module: Any = modules[owner.module]
            weight = learned[owner.weight]
            module.weight.copy_(weight.T if owner.transposed else weight)
            bias = None if owner.bias is None else learned[owner.bias]
            if owner.norm is not None:
                if module.bias is not None:
                    module.bias.zero_()
                _make_identity(modules[owner.norm], bias)
            elif bias is not None:
                module.bias.copy_(bias)


def _make_identity(norm: Any, bias: torch.Tensor | None) -> None:
    """A batch normalisation that adds a bias and does nothing else.

    1 - eps + eps is 1 in float32, and in float64 so near that no product of it with a float32 weight rounds elsewhere.
    """
    norm.running_var.fill_(1 - norm.eps)
    norm.running_mean.zero_()
    if norm.weight is not None:
        norm.weight.fill_(1)
    if bias is None:
        return
    if norm.bias is None:
        norm.running_mean.copy_(-bias)
    else:
        norm.bias.copy_(bias)
