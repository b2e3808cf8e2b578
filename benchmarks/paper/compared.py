"""A network as the evaluation sees it: something that answers, explains a class, and can be taken apart into layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess
from edgekit.teacher.explain import explain
from edgekit.teacher.methods.registry import METHODS
from edgekit.teacher.relevance.network import layered
from edgekit.teacher.relevance.protocol import RelevanceOptions
from edgekit.teacher.relevance.registry import RELEVANCE
from edgekit.teacher.tap import Tap
from paper.masked_images import chunks

__all__ = ["RELEVANCE_METHODS", "Compared", "grad_cam", "prepared", "torch_compared"]

_BATCH = 64
# The paper's three, under its names.
RELEVANCE_METHODS = {"lrp": "lrp-alpha1beta0", "ebp": "excitation-backprop", "rap": "rap"}

_Maps = npt.NDArray[np.float32]
_Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Compared:
    """One network.

    Attributes:
        answering: Prepared images to logits; what is deployed.
        explaining: Prepared images and a class of each to Grad-CAM maps [N, h, w]; of what is deployed.
        layers: The network with float weights, for the relevance methods.
    """

    answering: nn.Module
    explaining: Callable[[torch.Tensor, _Classes], _Maps]
    layers: nn.Module

    def logits(self, images: torch.Tensor) -> npt.NDArray[np.float32]:
        """[N, K]."""
        with torch.no_grad():
            return torch.cat([self.answering(part) for part in images.split(_BATCH)]).cpu().numpy()

    def maps(self, images: torch.Tensor, classes: _Classes) -> _Maps:
        """Grad-CAM maps [N, h, w]."""
        return np.concatenate([self.explaining(images[part], classes[part]) for part in chunks(len(images), _BATCH)])

    def relevance(self, images: torch.Tensor, classes: _Classes, spec: InputSpec, tap: str) -> dict[str, _Maps]:
        """Maps of LRP and RAP at the pixels, of excitation backprop at the tap, as the released code scores them.

        The sign is turned where the logit is negative; what is negative then becomes zero.
        """
        # Taken apart once; where the walk ends is all that differs.
        at_tap = layered(self.layers, images[:2], tap)
        at_pixels = replace(at_tap, tap_name=None, tap=at_tap.images)
        index = torch.from_numpy(classes.astype(np.int32)).to(images.device)
        with torch.no_grad():
            sign = self.layers(images).gather(1, index.long()[:, None]).sign()[:, :, None]
        found = {}
        for name, registered in RELEVANCE_METHODS.items():
            where = tap if name == "ebp" else None
            method = RELEVANCE.load(registered)(RelevanceOptions.from_input(spec, where))
            network = at_pixels if where is None else at_tap
            maps = torch.cat([method(network, images[p], index[p]) for p in chunks(len(images), _BATCH)])
            signed = maps if name == "ebp" else maps * sign
            found[name] = signed.clamp(min=0).cpu().numpy()
        return found


def grad_cam(model: nn.Module, tap: Tap) -> Callable[[torch.Tensor, _Classes], _Maps]:
    """Grad-CAM of a torch network at a tap."""
    method = METHODS.load("grad-cam")

    def explaining(images: torch.Tensor, classes: _Classes) -> _Maps:
        index = torch.from_numpy(classes.astype(np.int32)).to(images.device)
        return explain(model, tap, method, images, index).attribution.detach().cpu().numpy()

    return explaining


def torch_compared(model: nn.Module, tap: Tap) -> Compared:
    """A torch network that is deployed as it is."""
    model.eval().requires_grad_(False)
    return Compared(model, grad_cam(model, tap), model)


def prepared(pixels: npt.NDArray[np.uint8], spec: InputSpec, device: str) -> torch.Tensor:
    """Decoded images [N, H, W, 3] as network input [N, 3, H, W]."""
    return torch.from_numpy(preprocess(pixels, spec)).to(device)
