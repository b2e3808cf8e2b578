"""The control "random-weights": the teacher's architecture without what it learnt, and the teacher as it was after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.golden import GoldenSet
from edgekit.core.progress import NULL_OBSERVER
from edgekit.demo.images import draw_image
from edgekit.demo.run import teacher_path
from edgekit.engines.ort_cpu import ENGINE
from edgekit.export.explained import explained_onnx
from edgekit.policy.document import load_preset, preset_names
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.explain import Explainer
from edgekit.teacher.golden import teacher_answers
from edgekit.teacher.loading import load_model
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.options import MapOptions
from edgekit.teacher.random_weights import random_answers, shuffled_weights
from edgekit.teacher.tap import Tap
from edgekit.verify.controls import CONTROLS, judge_controls
from edgekit.verify.stage import VerifyRequest, verify_engine

SAMPLES = 128


def golden_of(teacher: LoadedModel, explainer: Explainer, pixels: np.ndarray) -> GoldenSet:
    logits, (maps,) = teacher_answers(teacher, explainer, 1, pixels, NULL_OBSERVER)
    return GoldenSet(
        card=teacher.card,
        map_spec=MapSpec(GRAD_CAM.name, explainer.taps[0].name, *maps.shape[1:]),
        pixels=pixels,
        labels=logits.argmax(axis=1).astype(np.int64),
        logits=logits,
        maps=maps,
        names=tuple(f"{index}.png" for index in range(len(pixels))),
        masks=None,
        teacher=teacher.digest,
    )


@pytest.fixture(scope="module")
def demo() -> tuple[LoadedModel, Explainer, GoldenSet]:
    teacher = load_model(teacher_path())
    assert teacher.card.tap is not None
    explainer = Explainer(GRAD_CAM, (Tap(teacher.card.tap),))
    pixels = np.stack([draw_image(1, "val", index).pixels for index in range(SAMPLES)])
    return teacher, explainer, golden_of(teacher, explainer, pixels)


def test_the_answers_are_reproducible_and_the_teacher_is_left_as_it_was(
    demo: tuple[LoadedModel, Explainer, GoldenSet],
) -> None:
    teacher, explainer, golden = demo
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    first, why = random_answers(teacher, explainer, golden)
    again, _ = random_answers(teacher, explainer, golden)
    assert first is not None
    assert again is not None
    assert why == ""
    assert "PCG64" in first.recipe
    np.testing.assert_array_equal(first.classes, again.classes)
    np.testing.assert_array_equal(first.maps[0], again.maps[0])
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert first.maps[0].shape == (2, *golden.maps.shape)
    assert first.maps[0].dtype == np.float16
    assert np.abs(first.maps[0]).max() <= 1
    assert float(np.mean(first.classes == golden.teacher_class)) < 0.6


def test_the_presets_fail_all_three_controls_on_the_demo(
    demo: tuple[LoadedModel, Explainer, GoldenSet], tmp_path: Path
) -> None:
    teacher, explainer, golden = demo
    random, _ = random_answers(teacher, explainer, golden)
    graph = tmp_path / "model.onnx"
    explained = explained_onnx(teacher, MapOptions(), use_closed_form=True, opset=18)
    graph.write_bytes(explained.model.SerializeToString(deterministic=True))
    request = VerifyRequest(ENGINE.name, graph, tmp_path, load_preset("default"))
    done = verify_engine(request, replace(golden, random=random))
    assert done.verdict.outcome == "pass"
    for preset in preset_names():
        results = judge_controls(load_preset(preset), done.controls)
        assert {result.name: result.verdict.outcome for result in results} == dict.fromkeys(CONTROLS, "fail"), preset


def test_weights_come_back_though_something_goes_wrong() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    model(torch.zeros(2, 3, 6, 6))
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def stopped() -> None:
        with shuffled_weights(model, 0) as changed:
            assert changed > 0
            for parameter, kept in zip(model.parameters(), before, strict=True):
                assert torch.equal(parameter.flatten().sort().values, kept.flatten().sort().values)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert all(torch.equal(now, kept) for now, kept in zip(model.parameters(), before, strict=True))


class _Fixed(nn.Module):
    """A network whose numbers are no parameters, as in a frozen graph."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = [model]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self._model[0](images)
        return answer


def test_a_network_without_parameters_has_no_such_control(demo: tuple[LoadedModel, Explainer, GoldenSet]) -> None:
    teacher, explainer, golden = demo
    found, why = random_answers(replace(teacher, model=_Fixed(teacher.model), format="frozen"), explainer, golden)
    assert found is None
    assert "no parameters" in why
    assert "frozen" in why


def test_answers_that_are_not_finite_are_no_control(demo: tuple[LoadedModel, Explainer, GoldenSet]) -> None:
    teacher, explainer, golden = demo

    class Broken(Explainer):
        def __call__(self, *arguments: torch.Tensor) -> object:  # type: ignore[override]
            explained = super().__call__(*arguments)  # type: ignore[arg-type]
            return replace(explained, logits=explained.logits * float("nan"))

    found, why = random_answers(teacher, Broken(explainer.method, explainer.taps), golden)
    assert found is None
    assert "not finite" in why
