"""The known architectures: name to a factory that returns an untrained `torch.nn.Module`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgekit.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ARCHITECTURES", "CONFIGURED"]

ARCHITECTURES: Registry[Callable[..., nn.Module]] = Registry(
    "architecture",
    {
        "cifar_resnet": "edgekit.teacher.architectures.cifar_resnet:cifar_resnet",
        "mlperf_resnet8": "edgekit.teacher.architectures.mlperf_resnet8:mlperf_resnet8",
        "mobilenet_v1": "edgekit.teacher.architectures.mobilenet_v1:mobilenet_v1",
    },
)

# Families of a library that one configuration document describes: "transformers" with `{"config": {...}}`.
CONFIGURED: Registry[Callable[..., nn.Module]] = Registry(
    "configured architecture",
    {"transformers": "edgekit.teacher.architectures.transformers_classifier:transformers_classifier"},
)
