"""A network's tensors by name: looked at, copied, put back and digested.

Buffers that are kept out of the state dict count as well: training may move them, and a run that goes on from a
checkpoint must find them as they were.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from edgekit.core.canonical import JsonValue, dump_canonical
from edgekit.core.digests import digest_array, digest_bytes

__all__ = ["copied", "digest_weights", "fits", "put", "tensors_of"]


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers as they are, detached but not copied; one that has several names is there once."""
    return {
        name: tensor.detach() for named in (model.named_parameters(), model.named_buffers()) for name, tensor in named
    }


def copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies that no later step moves."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def put(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write `tensors`, which have the names and shapes of `tensors_of(model)`, into the model."""
    with torch.no_grad():
        for name, own in tensors_of(model).items():
            own.copy_(tensors[name])


def fits(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether `put` would find every tensor in its shape and dtype, and none besides."""

    def described(found: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
        return {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()}

    return described(tensors_of(model)) == described(tensors)


def digest_weights(model: nn.Module) -> str:
    """SHA-256 over names and content."""
    named: JsonValue = {name: digest_array(tensor.cpu().numpy()) for name, tensor in tensors_of(model).items()}
    return digest_bytes(dump_canonical(named))
