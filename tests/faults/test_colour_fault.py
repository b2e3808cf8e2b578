"""Red and blue exchanged, for a network that was trained to tell colours apart.

The demo's network looks at shapes and hardly minds, so that its maps and answers stay: no fault to find. Here the
class is the colour of a disc among squares of other colours.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coloured_discs import CARD, COLOURS, drawn, train
from faulty import FaultyRunner
from torch import nn

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.golden import GoldenSet
from edgekit.core.progress import NULL_OBSERVER
from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.export.explained import explained_onnx
from edgekit.policy.document import load_preset
from edgekit.policy.verdict import judge
from edgekit.teacher.architectures.cifar_resnet import cifar_resnet
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.explain import Explainer
from edgekit.teacher.golden import teacher_answers
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.options import MapOptions
from edgekit.teacher.tap import Tap
from edgekit.verify.answers import answer_golden
from edgekit.verify.diagnose import diagnose
from edgekit.verify.score import score_answers


def trained() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cifar_resnet(8, len(COLOURS), (8, 16, 24), stem_stride=1)
        train(model, CARD, *drawn(960, seed=0)[:2], epochs=5, lr=0.05)
    return model


@pytest.fixture(scope="module")
def teacher() -> LoadedModel:
    return LoadedModel(trained(), CARD, "cifar_resnet", {}, None, "0" * 64)


@pytest.fixture(scope="module")
def golden(teacher: LoadedModel) -> GoldenSet:
    pixels, labels, masks = drawn(96, seed=1)
    logits, (maps,) = teacher_answers(teacher, Explainer(GRAD_CAM, (Tap("layer3"),)), 1, pixels, NULL_OBSERVER)
    names = tuple(str(number) for number in range(96))
    spec = MapSpec("grad-cam", "layer3", *maps.shape[1:])
    return GoldenSet(CARD, spec, pixels, labels, logits, maps, names, masks, teacher.digest)


@pytest.fixture(scope="module")
def engine(teacher: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    path = tmp_path_factory.mktemp("engine") / "model.onnx"
    path.write_bytes(explained_onnx(teacher, MapOptions(), use_closed_form=True, opset=18).model.SerializeToString())
    return REFERENCE.open(path, EngineOptions())


def test_the_network_knows_its_colours(golden: GoldenSet) -> None:
    assert np.mean(golden.teacher_class == golden.labels) > 0.95


def test_a_sound_engine_passes(golden: GoldenSet, engine: Runner) -> None:
    answers = answer_golden(engine, golden)
    table = score_answers(golden, answers)
    assert judge(load_preset("default"), table).outcome == "pass"
    assert diagnose(golden, answers, table, engine) == ()


def test_red_and_blue_exchanged(golden: GoldenSet, engine: Runner) -> None:
    faulty = FaultyRunner(engine, before=lambda images: images[:, ::-1])
    answers = answer_golden(faulty, golden)
    table = score_answers(golden, answers)
    assert judge(load_preset("default"), table).outcome == "fail"
    (first, *_) = diagnose(golden, answers, table, faulty)
    assert first.fault == "input-channel-order"
    assert first.after > 0.99


def test_the_map_lies_on_the_disc(golden: GoldenSet, engine: Runner) -> None:
    """Localisation where there are masks: better than a map that knows only where objects usually are."""
    table = score_answers(golden, answer_golden(engine, golden))
    for metric in ("pixel-auc", "energy-inside"):
        ours, blind = table.localisation[f"engine/{metric}"], table.localisation[f"centre-prior/{metric}"]
        assert np.nanmean(ours) > np.nanmean(blind) + 0.1
        np.testing.assert_allclose(ours, table.localisation[f"teacher/{metric}"], atol=1e-3)
