"""The part that all methods made of rules share: bounds, the walk, and the collapse over channels."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from edgekit.errors import BadInputError
from edgekit.teacher.relevance.first_layers import image_bounds
from edgekit.teacher.relevance.network import LayeredNetwork, layered
from edgekit.teacher.relevance.propagate import Layer, Sum, propagate
from edgekit.teacher.relevance.protocol import RelevanceOptions

__all__ = ["RuleMethod"]


class RuleMethod(ABC):
    """A `RelevanceMethod` whose rules are its own methods."""

    name: str

    def __init__(self, options: RelevanceOptions) -> None:
        self.options = options

    @abstractmethod
    def start(self, logits: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
        """[N, classes], the relevance of the logits."""

    @abstractmethod
    def through_layer(self, layer: Layer, relevance: torch.Tensor) -> torch.Tensor:
        """See `Rules`."""

    @abstractmethod
    def through_sum(self, total: Sum, relevance: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `Rules`."""

    def __call__(
        self, model: nn.Module | LayeredNetwork, images: torch.Tensor, class_index: torch.Tensor
    ) -> torch.Tensor:
        """Explain one batch; see `RelevanceMethod`."""
        bounds = image_bounds(images, self.options.low, self.options.high)
        network = model if isinstance(model, LayeredNetwork) else layered(model, images, self.options.tap)
        if network.tap_name != self.options.tap:
            raise BadInputError(
                "The network was taken apart for another tap.",
                expected=repr(self.options.tap),
                found=repr(network.tap_name),
            )
        with torch.no_grad():
            values = network.values(images)
            start = self.start(values[network.logits], class_index)
            relevance = propagate(network, values, start, self, bounds)
        return relevance.sum(dim=1)
