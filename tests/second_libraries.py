"""Implementations by other people that ours are compared with: pytorch-grad-cam and zennit.

`make install` installs both without their own requirements (tests/second_libraries.txt says why).
"""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torchvision_stub import stubs

with stubs(), warnings.catch_warnings():
    # What they import warns of deprecations that are not ours to mend.
    warnings.simplefilter("ignore")
    import pytorch_grad_cam
    import zennit.attribution
    import zennit.canonizers
    import zennit.composites
    import zennit.core
    import zennit.layer
    import zennit.rules
    import zennit.torchvision
    import zennit.types
    from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
    from pytorch_grad_cam.base_cam import BaseCAM

__all__ = [
    "GradCAM",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "XGradCAM",
    "pytorch_grad_cam",
    "raw_maps",
    "zennit",
]


def raw_maps(
    method: type[BaseCAM], model: nn.Module, tap: str, images: torch.Tensor, classes: list[int], *, relu: bool = True
) -> torch.Tensor:
    """The maps of pytorch-grad-cam before it scales them to the image and to 0..1: [N, h, w].

    Args:
        method: One of its classes.
        model: In evaluation mode; parameters need no gradients.
        tap: Name of the module whose output the map lives on.
        images: [N, 3, H, W].
        classes: The class to explain, one an image.
        relu: Cut below zero, as the library does for every method when it is called.
    """
    layer = model.get_submodule(tap)
    cam = method(model, [layer])
    # The library keeps the module's own output, which an operation in place behind it would change: give that a copy.
    copying = layer.register_forward_hook(lambda _module, _inputs, output: output.clone())
    pixels = images.detach().clone().requires_grad_(True)
    recorder = cam.activations_and_grads
    logits = recorder(pixels)
    logits[torch.arange(len(classes)), classes].sum().backward()
    (activation,), (gradient,) = recorder.activations, recorder.gradients
    found = cam.get_cam_image(pixels, layer, classes, activation.numpy(), gradient.numpy(), False)
    copying.remove()
    recorder.release()
    maps = torch.as_tensor(found)
    return maps.clamp(min=0) if relu else maps
