"""What every attribution method owes: the class it was asked about, per sample, traceable, unscaled."""

from __future__ import annotations

import pytest
import torch
from networks import CASES

from edgekit.attribution.spec import NO_CLASS
from edgekit.errors import BadInputError
from edgekit.export.trace import trace
from edgekit.teacher.class_choice import chosen_classes, one_hot
from edgekit.teacher.explain import explain
from edgekit.teacher.methods.registry import METHODS

CASE, TAP = CASES["inverted"], "last"
LOGITS = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 2.0], [-5.0, -6.0, -4.0]])


def test_a_negative_index_means_the_own_top_one() -> None:
    asked = torch.tensor([[-1], [-1], [-1]], dtype=torch.int32)
    chosen = chosen_classes(LOGITS, asked)
    assert chosen.dtype == torch.int32
    # Of equal logits the first is the answer, as for numpy and ONNX.
    assert chosen.tolist() == [[1], [0], [2]]
    assert chosen_classes(LOGITS, torch.tensor([[2], [-1], [0]], dtype=torch.int32)).tolist() == [[2], [0], [0]]


def test_one_hot_selects_the_chosen_logit() -> None:
    selected = one_hot(LOGITS.double(), torch.tensor([0, NO_CLASS, 1], dtype=torch.int32))
    assert selected.dtype == torch.float64
    assert selected.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("name", METHODS.names())
class TestEveryMethod:
    def test_it_is_called_what_it_is_registered_as(self, name: str) -> None:
        assert METHODS.load(name).name == name

    def test_one_map_a_sample_of_the_taps_size(self, name: str) -> None:
        images = CASE.images(5)
        explained = explain(CASE.make(), TAP, METHODS.load(name), images, torch.full((5,), -1, dtype=torch.int32))
        side = 8 if METHODS.load(name).domain == "tap" else 16
        assert explained.attribution.shape == (5, side, side)
        assert torch.equal(explained.logits, CASE.make()(images))
        assert explained.attribution.isfinite().all()
        assert (explained.attribution >= 0).all() or not METHODS.load(name).nonnegative

    def test_minus_one_is_the_top_one(self, name: str) -> None:
        images, model, method = CASE.images(6), CASE.make(), METHODS.load(name)
        top = model(images).argmax(dim=1).to(torch.int32)
        own = explain(model, TAP, method, images, torch.full((6,), -1, dtype=torch.int32))
        assert torch.equal(own.attribution, explain(model, TAP, method, images, top).attribution)

    def test_each_sample_is_explained_on_its_own(self, name: str) -> None:
        images, model, method = CASE.images(4).double(), CASE.make().double(), METHODS.load(name)
        asked = torch.tensor([0, 1, 2, -1], dtype=torch.int32)
        together = explain(model, TAP, method, images, asked).attribution
        turned = explain(model, TAP, method, images.flip(0), asked.flip(0)).attribution
        assert torch.allclose(together, turned.flip(0), rtol=1e-10, atol=1e-14)

    def test_maps_are_raw(self, name: str) -> None:
        """Logits twice as steep give maps twice as strong: nothing is stretched to a fixed range."""
        if name == "grad-cam++":
            pytest.skip("its weights are quotients of powers of the gradient, which do not scale with it")
        images, model, method = CASE.images(3), CASE.make(), METHODS.load(name)
        asked = torch.zeros(3, dtype=torch.int32)
        before = explain(model, TAP, method, images, asked).attribution
        model.classifier[1].weight *= 2
        after = explain(model, TAP, method, images, asked).attribution
        assert before.max() > 0
        assert torch.allclose(after, 2 * before, rtol=1e-5)

    def test_it_can_be_traced_for_any_batch(self, name: str) -> None:
        model, method = CASE.make(), METHODS.load(name)

        def answer(image: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
            return explain(model, TAP, method, image, class_index).attribution

        graph = trace(answer, (CASE.images(2), torch.tensor([-1, 0], dtype=torch.int32)))
        for batch in (1, 5):
            images, asked = CASE.images(batch, seed=batch), torch.full((batch,), -1, dtype=torch.int32)
            assert torch.allclose(graph(images, asked), answer(images, asked), rtol=1e-5, atol=1e-7)


def test_unknown_methods_list_the_known() -> None:
    with pytest.raises(BadInputError) as caught:
        METHODS.load("gradcam")
    assert "grad-cam" in (caught.value.expected or "")
