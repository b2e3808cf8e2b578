"""Maps that jump where rounding decides: excused where the truth itself is no firmer, and only there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import OPSET
from networks import CASES, made
from onnx import numpy_helper
from torch import nn

from edgekit.export.explained import cleaned_onnx, explained_onnx
from edgekit.export.parity import Parity, compare, holds
from edgekit.export.truth import Truth, truth_of
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.explain import Explainer
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.options import MapOptions
from edgekit.teacher.tap import Tap

SIDE, SAMPLES, KINKED = 4, 16, 5
IMAGES = torch.rand((SAMPLES, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(3))


class Threshold(nn.Module):
    """A ReLU behind the tap. One product a cell and no sum, so every float32 runtime rounds it alike."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 3, 1, bias=False)
        self.features.weight.data = 0.1 * torch.eye(3)[:, :, None, None]
        self.register_buffer("threshold", torch.zeros(()))
        self.fc = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.features(x) - self.threshold).mean((2, 3)))


def kinked() -> nn.Module:
    """The threshold is what float32 makes of one cell of one image, and a little less than what float64 does."""
    model = made(Threshold)
    rounded = model.features(IMAGES[KINKED : KINKED + 1])
    exact = rounded.double().clone()
    exact.copy_(IMAGES[KINKED].double() * model.features.weight[0, 0, 0, 0].double())
    below = torch.nonzero((exact > rounded.double()) & (exact < exact.median()))
    model.threshold.copy_(rounded[tuple(below[0])])
    return model


def graph_of(model: nn.Module) -> onnx.ModelProto:
    card = ModelCard(InputSpec(SIDE, SIDE), tuple("abcd"), tap="features")
    raw = explained_onnx(
        LoadedModel(model, card, "x:y", {}, None, ""), MapOptions(), use_closed_form=False, opset=OPSET
    )
    return cleaned_onnx(raw, lambda _model: None)[0].model


def truth(model: nn.Module) -> Truth:
    return truth_of(model, Explainer(GRAD_CAM, (Tap("features"),)), IMAGES.numpy())


def parity(expected: Truth, graph: onnx.ModelProto, folder: Path) -> Parity:
    file = folder / "m.onnx"
    file.write_bytes(graph.SerializeToString())
    return compare(expected, file)


def test_a_map_at_a_kink_is_excused_and_counted(tmp_path: Path) -> None:
    model = kinked()
    found = parity(truth(model), graph_of(model), tmp_path)
    assert found.kinks == 1
    assert holds(found, 1e-4)
    assert found.attribution > 0

    def firm(self: Truth, sample: int) -> np.ndarray:
        return np.zeros(1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Truth, "unsteadiness", firm)
        strict = parity(truth(model), graph_of(model), tmp_path)
    assert (strict.kinks, strict.worst) == (0, KINKED)
    assert strict.attribution > 1e-2, "otherwise there was nothing to excuse"


def test_a_graph_that_is_wrong_is_not_excused(tmp_path: Path) -> None:
    model = kinked()
    graph = graph_of(model)
    weight = next(item for item in graph.graph.initializer if list(item.dims) == [3, 3, 1, 1])
    weight.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(weight) * 1.001).astype(np.float32), weight.name))
    found = parity(truth(model), graph, tmp_path)
    assert not holds(found, 1e-4)


def test_one_image_in_eight_at_most_is_excused(tmp_path: Path) -> None:
    model = kinked()
    expected = truth(model)
    few = slice(KINKED - 3, KINKED + 4)
    part = replace(
        expected,
        images=expected.images[few],
        logits=expected.logits[few],
        views=tuple(view[few] for view in expected.views),
        chosen=expected.chosen[few],
        margin=expected.margin[few],
    )
    found = parity(part, graph_of(model), tmp_path)
    assert found.kinks == 0
    assert not holds(found, 1e-4)


@pytest.mark.parametrize("name", ["vgg", "mobile", "dense"])
def test_rounding_hardly_moves_the_maps_of_firm_images(name: str) -> None:
    case = CASES[name]
    tap = next(iter(case.taps))
    images = case.images(4).numpy()
    expected = truth_of(case.make(), Explainer(GRAD_CAM, (Tap(tap),)), images)
    for sample in range(4):
        (moved,) = expected.unsteadiness(sample)
        assert moved < 1e-4 * expected.views[0].max()
