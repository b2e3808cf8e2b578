"""The libraries that maps are compared with work here, and what stands in for their requirements cannot be mistaken."""

from __future__ import annotations

import copy
import sys
from importlib.util import find_spec

import pytest
import torch
from networks import CASES, TAPS
from second_libraries import GradCAM, raw_maps, zennit
from torchvision_stub import STUBBED, stubs

from edgekit.teacher.explain import explain
from edgekit.teacher.methods.grad_cam import GRAD_CAM


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_grad_cam_is_that_of_pytorch_grad_cam(name: str, tap: str) -> None:
    model, images = copy.deepcopy(CASES[name].make()).double(), CASES[name].images(3).double()
    classes = [0, 2, 1]
    expected = raw_maps(GradCAM, model, tap, images, classes)
    found = explain(model, tap, GRAD_CAM, images, torch.tensor(classes, dtype=torch.int32)).attribution
    assert float(expected.max()) > 0
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_comparison_sees_another_class() -> None:
    model, images = CASES["residual"].make(), CASES["residual"].images(2)
    found = explain(model, "layer2", GRAD_CAM, images, torch.tensor([0, 1], dtype=torch.int32)).attribution
    assert not torch.allclose(found, raw_maps(GradCAM, model, "layer2", images, [1, 0]), rtol=0.1)


def test_zennit_propagates() -> None:
    # y = 2 a - b at (3, 1): the alpha-1 beta-0 rule gives all of the score 5 to a.
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[2.0, -1.0]])
    composite = zennit.composites.LayerMapComposite([(torch.nn.Linear, zennit.rules.AlphaBeta(1.0, 0.0))])
    with zennit.attribution.Gradient(layer, composite) as attributor:
        score, relevance = attributor(torch.tensor([[3.0, 1.0]]), torch.tensor([[5.0]]))
    assert score.tolist() == [[5.0]]
    assert relevance.tolist()[0] == pytest.approx([5.0, 0.0], abs=1e-5)


class TestStandIns:
    def test_they_are_gone_after_the_import(self) -> None:
        missing = {name for name in STUBBED if find_spec(name.partition(".")[0]) is None}
        assert not missing & set(sys.modules)

    def test_they_can_be_named_but_not_used(self) -> None:
        if find_spec("cv2") is not None:
            pytest.skip("OpenCV is installed, so nothing stands in for it")
        with stubs():
            import cv2

        assert cv2.COLORMAP_JET is not None
        with pytest.raises(NotImplementedError, match=r"cv2\.resize"):
            cv2.resize(None, (2, 2))
