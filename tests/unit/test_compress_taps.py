"""Which modules are matched: what is named, what is found, and what is refused before anything is trained."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from networks import CASES, LAYOUT_CASES, Tokens, made
from torch import nn

from edgekit.compress.matching.taps import MatchedTaps, matched_taps
from edgekit.compress.options import MatchingOptions
from edgekit.errors import BadInputError
from edgekit.teacher.architectures.cifar_resnet import cifar_resnet
from edgekit.teacher.architectures.mobilenet_v1 import mobilenet_v1
from edgekit.teacher.discovery import find_tap
from edgekit.teacher.tap import Tap

PROBE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def resnet(seed: int = 0, **arguments: Any) -> nn.Module:
    return made(lambda: cifar_resnet(8, **{"classes": 3, "widths": (4, 6, 8), **arguments}), seed)


def matched(teacher: nn.Module, student: nn.Module, card: tuple[str, ...] = ("layer3",), **options: Any) -> MatchedTaps:
    return matched_taps(teacher, student, tuple(Tap(name) for name in card), MatchingOptions(**options), PROBE)


def names(found: MatchedTaps) -> tuple[list[str], list[str]]:
    return [tap.name for tap in found.teacher], [tap.name for tap in found.student]


def test_the_cards_taps_in_both_where_nothing_is_named() -> None:
    assert names(matched(resnet(), resnet(1))) == (["layer3"], ["layer3"])
    assert names(matched(resnet(), resnet(1), ("layer3", "layer1"))) == (["layer3", "layer1"], ["layer3", "layer1"])


def test_named_taps_take_the_place_of_the_cards() -> None:
    assert names(matched(resnet(), resnet(1), taps=("layer2", "layer3"))) == (["layer2", "layer3"],) * 2


def test_the_students_may_be_named_apart() -> None:
    found = matched(resnet(), resnet(1), student_taps=("layer3.0.bn2",), weights=(2.0,))
    assert names(found) == (["layer3"], ["layer3.0.bn2"])


def test_the_tap_of_another_architecture_is_found() -> None:
    teacher = resnet(classes=6)
    student = CASES["mobile"].make()
    assert names(matched(teacher, student)) == (["layer3"], ["head"])
    with pytest.raises(BadInputError, match="different sizes") as caught:
        matched(teacher, student, ("layer2",))
    assert caught.value.found == "8 x 8, the student's at 'head'"
    other = nn.Sequential(nn.Conv2d(3, 5, 3, stride=4, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert names(matched(made(lambda: cifar_resnet(8, classes=5)), other)) == (["layer3"], ["1"])


def test_a_map_of_another_size_is_refused_with_the_modules_that_would_do() -> None:
    teacher, student = resnet(), resnet(1, stem_stride=2)
    with pytest.raises(BadInputError, match="different sizes") as caught:
        matched(teacher, student)
    assert caught.value.expected == "8 x 8, the teacher's at 'layer3'"
    assert caught.value.found == "4 x 4, the student's at 'layer3'"
    hint = caught.value.hint or ""
    assert "layer2.0.bn2" in hint
    for name in re.findall(r"layer\S+?(?=,|$)", hint):
        assert names(matched(teacher, student, student_taps=(name,)))[1] == [name]


def test_a_student_without_any_map_of_the_size_is_told_so() -> None:
    student = nn.Sequential(nn.Conv2d(3, 3, 3, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(BadInputError, match="different sizes") as caught:
        matched(resnet(), student)
    assert "no map of 8 x 8" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("options", "message", "where"),
    [
        ({"taps": ("nowhere",)}, "no module 'nowhere'", "compress.matching.taps"),
        ({"student_taps": ("nowhere",)}, "no module 'nowhere'", "compress.matching.student_taps"),
        ({"taps": ("layer3", "layer3")}, "named twice", "compress.matching.taps"),
        ({"taps": ("linear",)}, "cannot be the tap", "compress.matching.taps"),
        ({"student_taps": ("layer2", "layer3")}, "as many taps", "compress.matching.student_taps"),
        ({"weights": (1.0, 2.0)}, "one weight", "compress.matching.weights"),
    ],
)
def test_what_cannot_be_matched_is_named(options: dict[str, Any], message: str, where: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        matched(resnet(), resnet(1), **options)
    assert caught.value.where == where


def test_several_taps_of_another_architecture_must_be_named() -> None:
    with pytest.raises(BadInputError, match="which maps belong together") as caught:
        matched(resnet(), made(lambda: mobilenet_v1(classes=3)), ("layer2", "layer3"))
    assert caught.value.found == "no layer2, layer3"


def test_other_classes_are_refused() -> None:
    with pytest.raises(BadInputError, match="different classes") as caught:
        matched(resnet(), resnet(1, classes=4))
    assert (caught.value.expected, caught.value.found) == ("the teacher's 3 classes", "the student's 4")


@pytest.mark.parametrize("name", LAYOUT_CASES)
def test_layouts_other_than_maps_first(name: str) -> None:
    case = LAYOUT_CASES[name]
    model, probe = case.make(), case.images(2)
    tap = find_tap(model, probe)
    found = matched_taps(model, copy.deepcopy(model), (tap,), MatchingOptions(), probe)
    assert found == MatchedTaps((tap,), (tap,))
    assert tap.layout.kind == case.kind


def test_a_layer_without_second_derivative_is_named_before_training() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.fc = nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # Called below `torch.nn.functional`, so nothing can take its place.
            return self.fc(torch.ops.aten.hardsigmoid(self.features(x)).mean((2, 3)))

    with pytest.raises(BadInputError, match="no second derivative") as caught:
        matched(Strange().eval(), Strange(), ("features",))
    assert "hardsigmoid_backward" in (caught.value.found or "")
    assert names(matched(Strange().eval(), Strange(), ("features",), loss="ewa")) == (["features"], ["features"])


def test_both_networks_are_left_as_they_were() -> None:
    teacher, student = resnet().eval(), resnet(1).train().requires_grad_(True)
    student.layer1.eval()
    modes = [module.training for module in student.modules()]
    before = copy.deepcopy(student.state_dict())
    matched(teacher, student)
    assert [module.training for module in student.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in student.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_a_token_student_is_matched_at_cells_of_the_teachers_grid() -> None:
    """A transformer's 4 x 3 cells against a convolutional map of 4 x 3."""
    probe = torch.rand(2, 3, 16, 12, generator=torch.Generator().manual_seed(0))
    teacher = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    student = made(lambda: Tokens(1))
    found = matched_taps(teacher, student, (Tap("1"),), MatchingOptions(), probe)
    assert found.student[0].name == "blocks.1.norm1"
    assert found.student[0].layout.kind == "tokens"
