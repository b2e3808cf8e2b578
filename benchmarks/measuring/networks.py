"""Networks of other people's packages with weights from a seed, made such that their answers depend on the image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from prepare_data import MODELS, card_of
from torch import nn

from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.architectures.construct import construct
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from measuring.images import SHARED

__all__ = ["RandomNetwork", "WeightsMissingError", "loaded_network", "random_network", "real_network"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_BatchNorm = nn.modules.batchnorm._BatchNorm
# What initialisation schemes give a layer that they want to be small but not zero.
_SMALL = 0.02


@dataclass(frozen=True)
class RandomNetwork:
    """A network of a library.

    Attributes:
        arch: "torchvision:NAME" or "timm:NAME".
        arguments: What the library's factory is called with beside the name.
        side: Height and width of its input, pixels.
        seed: Of its weights.
    """

    arch: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    side: int = 224
    seed: int = 0

    @property
    def input(self) -> InputSpec:
        """Its input, with ImageNet's normalisation."""
        return InputSpec(self.side, self.side, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def random_network(network: RandomNetwork, batches: Iterable[npt.NDArray[np.float32]]) -> nn.Module:
    """Make a network whose logits and maps say something, in evaluation mode.

    Parameters that the factory leaves all zero (heads, last batch norms of residual blocks) are drawn from
    N(0, 0.02): behind a head of zeros neither logits nor maps depend on anything. The statistics of batch norms are
    those of `batches` [N, 3, H, W], so that activations neither vanish nor explode with depth.
    """
    torch.manual_seed(network.seed)
    model = construct(network.arch, network.arguments)
    generator = torch.Generator().manual_seed(network.seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, _SMALL, generator=generator)
    _set_batch_statistics(model.eval(), batches)
    return model.requires_grad_(False)


@torch.no_grad()
def _set_batch_statistics(model: nn.Module, batches: Iterable[npt.NDArray[np.float32]]) -> None:
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    if norms:
        for batch in batches:
            model(torch.from_numpy(batch))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def loaded_network(network: RandomNetwork, model: nn.Module, file: Path) -> LoadedModel:
    """Save a network as a checkpoint and load it the way a user does."""
    with torch.no_grad():
        classes = model(torch.zeros(2, 3, network.side, network.side)).shape[1]
    card = ModelCard(network.input, tuple(f"class {index}" for index in range(classes)))
    save_checkpoint(file, LoadedModel(model, card, network.arch, network.arguments, None, ""))
    return load_model(file)


class WeightsMissingError(Exception):
    """Real weights are not part of the repository, and not beside the checkout."""


def real_network(name: str) -> LoadedModel:
    """One of the project's own architectures with its real weights from `shared/data/models`.

    Raises:
        WeightsMissingError: They are not there.
    """
    file = SHARED / "models" / f"{name}.safetensors"
    if not file.is_file():
        raise WeightsMissingError(f"shared/data/models/{file.name} does not lie beside the checkout")
    arch, arguments, _ = MODELS[name]
    # Without the tap that the card names: finding it is part of what is measured.
    card = {**card_of(SHARED, name), "tap": None}
    return load_model(file, LoadOptions(arch=arch, arguments=arguments, card=card))
