"""Exported graphs against torch in float64, on images and batch sizes that no graph was traced with."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import exported
from networks import CASES, TAPS

from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.export.options import ExportOptions
from edgekit.export.parity import check_parity, measure_parity
from edgekit.teacher.explain import Explainer, explain
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.tap import Tap

TOLERANCE = 2e-5


def opened(name: str, tap: str, folder: Path) -> Runner:
    path = folder / "model.onnx"
    path.write_bytes(exported(name, tap).model.SerializeToString(deterministic=True))
    return REFERENCE.open(path, EngineOptions())


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_answers_and_maps_are_those_of_torch(name: str, tap: str, tmp_path: Path) -> None:
    case = CASES[name]
    double = copy.deepcopy(case.make()).double()
    classes = int(double(case.images(2).double()).shape[1])
    chosen_differ, not_empty = set(), 0
    with opened(name, tap, tmp_path) as runner:
        for batch in (1, 3, 7):
            images = case.images(batch, seed=batch)
            # Every second sample asks for the network's own answer, the others for one class after the other.
            asked = torch.tensor([-1 if place % 2 else place % classes for place in range(batch)], dtype=torch.int32)
            truth = explain(double, tap, GRAD_CAM, images.double(), asked)
            answer = runner.run(images.numpy(), asked.numpy())
            assert answer.logits.dtype == answer.attribution.dtype == np.float32
            for found, expected in (
                (answer.logits, truth.logits.numpy()),
                (answer.attribution, truth.attribution.numpy()),
            ):
                assert found.shape == expected.shape
                assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
            chosen_differ |= set(truth.logits.argmax(dim=1).tolist())
            not_empty += int((truth.attribution.flatten(1).amax(dim=1) > 0).sum())
    assert len(chosen_differ) > 1, "a graph that always explains one class would pass"
    assert not_empty >= 6, "empty maps agree with anything"


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_each_class_has_its_own_map(name: str, tap: str, tmp_path: Path) -> None:
    case = CASES[name]
    double = copy.deepcopy(case.make()).double()
    image = case.images(1, seed=4)
    classes = int(double(image.double()).shape[1])
    every = torch.arange(classes, dtype=torch.int32)
    images = image.repeat(classes, 1, 1, 1)
    truth = explain(double, tap, GRAD_CAM, images.double(), every).attribution.numpy()
    with opened(name, tap, tmp_path) as runner:
        found = runner.run(images.numpy(), every.numpy()).attribution
    assert np.abs(found - truth).max() <= TOLERANCE * np.abs(truth).max()
    assert len({one.tobytes() for one in truth.round(6)}) > 1


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_the_form_of_map_is_the_right_one(name: str, tap: str) -> None:
    explained = exported(name, tap)
    assert explained.form == CASES[name].taps[tap]
    spec = explained.map_spec
    assert (spec.method, spec.tap, spec.nonnegative) == ("grad-cam", tap, True)
    found = explain(CASES[name].make(), tap, GRAD_CAM, CASES[name].images(1), torch.tensor([0], dtype=torch.int32))
    assert (1, spec.height, spec.width) == tuple(found.attribution.shape)


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_the_stages_own_check_agrees(name: str, tap: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(exported(name, tap).model.SerializeToString(deterministic=True))
    case = CASES[name]
    parity = measure_parity(case.make(), Explainer(GRAD_CAM, (Tap(tap),)), path, case.images(20, seed=5).numpy())
    assert (parity.samples, parity.ties) == (20, 0)
    assert 0 < parity.attribution < ExportOptions().parity_tolerance
    check_parity(parity, ExportOptions().parity_tolerance)
