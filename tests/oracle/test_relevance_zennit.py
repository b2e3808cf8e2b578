"""LRP against zennit: its AlphaBeta and ZBox rules, its canonizers for batch norms and residual sums."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from networks import Residual
from relevance_networks import HIGH, LOW, WIRINGS, FullyConvolutional, Network
from second_libraries import zennit
from torch import nn
from torch.nn import functional

from edgekit.teacher.relevance.lrp import LrpAlpha1Beta0
from edgekit.teacher.relevance.protocol import RelevanceOptions

BOUNDS = RelevanceOptions(LOW, HIGH)


class ModuleVgg(nn.Module):
    """VGG in small: every operation a module, which zennit's hooks need."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in (6, 8):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            inputs = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(nn.Linear(32, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


class Smooth(nn.Module):
    """Activations below zero, so that both signs of input meet both signs of weight; grouped, dilated, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Hardswish()),
            *(nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3), nn.SiLU(), nn.AvgPool2d(2)),
            *(nn.Conv2d(6, 5, 1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def exact(value: torch.Tensor) -> torch.Tensor:
    """In place of zennit's small constant in denominators: none, and an empty one divides nothing."""
    return value + (value == 0)


def sums(signed: bool) -> zennit.core.BasicHook:
    """Its `Norm` rule, for signed contributions or for their positive parts."""
    if signed:
        return zennit.rules.Norm(stabilizer=exact)
    return zennit.core.BasicHook(
        input_modifiers=[lambda value: value.clamp(min=0)],
        param_modifiers=[zennit.rules.NoMod(param_keys=[])],
        output_modifiers=[lambda value: value],
        gradient_mapper=lambda relevance, outputs: relevance / exact(outputs[0]),
        reducer=lambda inputs, gradients: inputs[0] * gradients[0],
    )


def canonizers() -> list[zennit.canonizers.Canonizer]:
    """Batch norms merged; residual blocks of ours, named as torchvision's, given a module for their sum."""
    block = type(Residual().layer1)
    forward = zennit.torchvision.ResNetBasicBlockCanonizer.forward

    def attributes(_name: str, module: nn.Module) -> dict[str, object] | None:
        if not isinstance(module, block):
            return None
        return {"forward": forward.__get__(module), "canonizer_sum": zennit.layer.Sum()}

    return [zennit.canonizers.SequentialMergeBatchNorm(), zennit.canonizers.AttributeCanonizer(attributes)]


def zennit_maps(model: nn.Module, images: torch.Tensor, classes: list[int], signed: bool) -> torch.Tensor:
    low, high = (images.new_tensor(bound)[None, :, None, None] for bound in (LOW, HIGH))
    linear, averaging, summing = zennit.types.Linear, zennit.types.AvgPool, zennit.layer.Sum
    composite = zennit.composites.SpecialFirstLayerMapComposite(
        layer_map=[
            (zennit.types.Activation, zennit.rules.Pass()),
            ((averaging, summing), sums(signed)),
            (linear, zennit.rules.AlphaBeta(1.0, 0.0, stabilizer=exact)),
        ],
        first_map=[(linear, zennit.rules.ZBox(low, high, stabilizer=exact))],
        canonizers=canonizers(),
    )
    logits = model(images).detach()
    start = logits * functional.one_hot(torch.tensor(classes), logits.shape[1])
    with zennit.attribution.Gradient(copy.deepcopy(model), composite) as attributor:
        relevance = attributor(images.clone().requires_grad_(True), start)[1]
    return relevance.detach().sum(dim=1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg": lambda: Network("vgg", ModuleVgg).make(),
    "resnet": lambda: Network("resnet", Residual).make(),
    "smooth": lambda: Network("smooth", Smooth).make(),
}


@pytest.mark.parametrize("signed", [False, True], ids=["positive", "signed"])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_lrp_is_that_of_zennit(name: str, signed: bool) -> None:
    images = Network("any", FullyConvolutional, (17, 15)).images(4)
    classes = [0, 1, 2, 3]
    # Terms of a signed sum cancel, which enlarges what rounding there is.
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4 if signed else 1e-5)):
        model = copy.deepcopy(NETWORKS[name]()).to(dtype)
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # zennit keeps inputs by reference
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0  # zennit leaves a batch norm behind that divides by sqrt(1 + eps)
        model.requires_grad_(True)
        pixels = images.to(dtype)
        expected = zennit_maps(model, pixels, classes, signed)
        asked = torch.tensor(classes, dtype=torch.int32)
        found = LrpAlpha1Beta0(BOUNDS, signed_sums=signed)(model, pixels, asked)
        for one, other in zip(found, expected, strict=True):
            assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())
        assert sum(bool(other.any()) for other in expected) >= 3, "too many empty maps to say anything"


def test_the_two_ways_to_share_a_sum_differ() -> None:
    network = WIRINGS["residual"]
    model, images = network.make().double(), network.images(2).double()
    asked = torch.tensor([-1, -1], dtype=torch.int32)
    positive, signed = (LrpAlpha1Beta0(BOUNDS, signed_sums=way)(model, images, asked) for way in (False, True))
    assert not torch.allclose(positive, signed, rtol=1e-3)
    assert (positive >= 0).all()
