"""Students of another architecture: whose code makes them, that they follow the seed, and what they are refused for."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compress.distillation.student import make_student, with_own_taps
from edgekit.compress.distillation.trust import is_foreign_code, with_named_student
from edgekit.compress.options import CompressOptions, DistilOptions, MatchingOptions
from edgekit.errors import BadInputError, UnavailableError
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.architectures.cifar_resnet import cifar_resnet
from edgekit.teacher.architectures.construct import classes_argument
from edgekit.teacher.architectures.registry import ARCHITECTURES
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

SIDE = 32
CLASSES = ("a", "b", "c", "d")

# Somebody's factories; those of `made` count how often they are called.
FACTORIES = """
import random
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=4, cells=8, half=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.second = nn.Conv2d(6, 5, 1)
        self.fc = nn.Linear(5, classes)
        self.calls = 0

    def forward(self, x):
        return self.fc(self.second(self.pool(self.conv(x).relu())).mean((2, 3)))

_KEPT = {}

def plain(classes, cells=8):
    return Net(classes, cells)

def fixed():
    return Net(3)

def loose(**settings):
    return Net(**settings)

def kept(classes):
    return _KEPT.setdefault(classes, Net(classes))

def by_others(num_classes):
    net = Net(num_classes)
    with torch.no_grad():
        net.fc.bias[0] = random.random()
        net.fc.bias[1] = float(np.random.rand())
    return net

def unseeded(classes):
    net = Net(classes)
    with torch.no_grad():
        net.fc.bias.copy_(torch.from_numpy(np.random.default_rng().standard_normal(classes)))
    return net

def half(classes):
    return Net(classes).half()

def broken(classes):
    net = Net(classes)
    with torch.no_grad():
        net.fc.bias.fill_(float("nan"))
    return net

def nothing(classes):
    return classes

class Pair(Net):
    def forward(self, x):
        return {"logits": super().forward(x), "features": self.conv(x)}

def pair(classes):
    return Pair(classes)
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with the factories above."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "students_of_a_test.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "students_of_a_test", raising=False)
    importlib.invalidate_caches()
    return "students_of_a_test"


def teacher_of(model: nn.Module, **card: Any) -> LoadedModel:
    entries = {"classes": CLASSES, **card}
    return LoadedModel(
        model.eval().requires_grad_(False), ModelCard(InputSpec(SIDE, SIDE), **entries), "x", {}, None, ""
    )


@pytest.fixture(scope="module")
def teacher() -> LoadedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return teacher_of(cifar_resnet(8, classes=len(CLASSES), widths=(6, 8, 10)))


def images() -> torch.Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def made(teacher: LoadedModel, arch: str, arguments: Mapping[str, Any] | None = None, seed: int = 0) -> LoadedModel:
    return make_student(teacher, DistilOptions(student=arch, arguments=arguments or {}), seed=seed)


# Whose code makes it


def options(student: str) -> CompressOptions:
    return CompressOptions(distil=DistilOptions(student=student, arguments={"classes": 4} if student else {}))


@pytest.mark.parametrize("arch", ["", "cifar_resnet", "timm:resnet18", "torchvision:resnet18", "transformers"])
def test_what_is_looked_up_in_a_table_needs_no_trust(arch: str) -> None:
    assert not is_foreign_code(arch)
    assert with_named_student(options(arch), None) == options(arch)


def test_code_of_somebody_is_only_followed_where_the_user_named_the_very_same() -> None:
    asked = options("package.module:factory")
    with pytest.raises(BadInputError, match="code outside edgekit") as caught:
        with_named_student(asked, None)
    assert caught.value.found == "package.module:factory"
    assert "--student-arch package.module:factory" in (caught.value.hint or "")
    with pytest.raises(BadInputError, match="--student-arch differs"):
        with_named_student(asked, "package.module:other")
    with pytest.raises(BadInputError, match="--student-arch differs"):
        with_named_student(asked, "cifar_resnet")
    assert with_named_student(asked, "package.module:factory") == asked


def test_the_user_may_name_a_student_where_the_recipe_does_not() -> None:
    found = with_named_student(CompressOptions(), "package.module:factory")
    assert found.distil == DistilOptions(student="package.module:factory")


def test_an_untrusted_name_is_refused_before_it_is_imported(factories: str) -> None:
    with pytest.raises(BadInputError, match="code outside edgekit"):
        with_named_student(options(f"{factories}:plain"), None)
    assert factories not in sys.modules


# That it is made, and made again


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_every_built_in_architecture_is_told_the_classes(name: str, teacher: LoadedModel) -> None:
    student = made(teacher, name)
    assert student.arguments == {"classes": len(CLASSES)}
    assert student.model(images()).shape == (2, len(CLASSES))
    assert student.card == teacher.card
    assert not student.model.training
    assert not any(parameter.requires_grad for parameter in student.model.parameters())


@pytest.mark.parametrize(
    ("factory", "argument"), [("plain", "classes"), ("by_others", "num_classes"), ("fixed", None), ("loose", None)]
)
def test_a_users_factory_is_told_the_classes_where_it_takes_them(
    factories: str, factory: str, argument: str | None
) -> None:
    assert classes_argument(f"{factories}:{factory}") == argument


@pytest.mark.parametrize("name", ["cifar_resnet", "mlperf_resnet8"])
def test_weights_follow_the_seed_and_nothing_else(name: str, teacher: LoadedModel) -> None:
    torch.manual_seed(1)
    first = made(teacher, name).model.state_dict()
    torch.rand(7)
    again, other = made(teacher, name).model.state_dict(), made(teacher, name, seed=1).model.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert any(not torch.equal(value, other[key]) for key, value in first.items())


def test_generators_of_the_process_are_seeded_and_put_back(factories: str, teacher: LoadedModel) -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    first = made(teacher, f"{factories}:by_others").model.state_dict()
    after = random.random(), float(np.random.rand()), float(torch.rand(()))
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    assert after == (random.random(), float(np.random.rand()), float(torch.rand(())))
    second = made(teacher, f"{factories}:by_others").model.state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_student_in_half_precision_is_trained_in_single(factories: str, teacher: LoadedModel) -> None:
    student = made(teacher, f"{factories}:half").model
    assert {value.dtype for value in student.state_dict().values()} == {torch.float32}


def test_one_of_several_outputs_is_taken_and_said(factories: str, teacher: LoadedModel, tmp_path: Path) -> None:
    student = made(teacher, f"{factories}:pair")
    assert student.model(images()).shape == (2, len(CLASSES))
    assert any("'logits'" in note for note in student.notes)
    save_checkpoint(tmp_path / "s.pt", student)
    again = load_model(tmp_path / "s.pt", LoadOptions(arch=f"{factories}:pair"))
    assert torch.equal(again.model(images()), student.model(images()))


# What it is refused for


@pytest.mark.parametrize(
    ("arch", "arguments", "message"),
    [
        ("no_such", {}, "no architecture called 'no_such'"),
        ("cifar_resnet", {"depht": 20}, "does not accept its arguments"),
        ("cifar_resnet", {"depth": 21}, "cannot be built"),
        ("cifar_resnet", {"classes": 5}, "card's classes"),
        ("{module}:plain", {"classes": "four"}, "does not accept its arguments"),
        ("{module}:fixed", {}, "card's classes"),
        ("{module}:fixed", {"classes": 4}, "does not accept its arguments"),
        ("{module}:no_such", {}, "cannot be imported"),
        ("no_such_package_anywhere:factory", {}, "cannot be imported"),
        ("{module}:nothing", {}, "did not return a network"),
        ("{module}:kept", {}, "in use already"),
        ("{module}:unseeded", {}, "do not follow the seed"),
        ("{module}:broken", {}, "not finite"),
    ],
)
def test_what_cannot_be_a_student_is_refused_by_name(
    factories: str, teacher: LoadedModel, arch: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        made(teacher, arch.format(module=factories), arguments)
    assert caught.value.hint


def test_a_factory_that_returns_the_teacher_itself_is_refused(factories: str) -> None:
    net = importlib.import_module(factories).kept(len(CLASSES))
    with pytest.raises(BadInputError, match="in use already") as caught:
        made(teacher_of(net), f"{factories}:kept")
    assert "conv.weight" in (caught.value.found or "")
    assert caught.value.where == f"{factories}:kept"


def test_a_library_that_is_not_installed_is_said(teacher: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UnavailableError, match="timm"):
        made(teacher, "timm:resnet18")


# Where its maps live


def own_taps(teacher: LoadedModel, student: LoadedModel, **matching: Any) -> tuple[str | None, ...]:
    card = with_own_taps(student, teacher, MatchingOptions(**matching), images()).card
    assert card.classes == teacher.card.classes
    return (card.tap, *card.further_taps)


@pytest.mark.parametrize(
    ("arch", "arguments", "matching", "card_taps", "expected"),
    [
        # Named by the recipe, for the card's taps or for those that are matched.
        ("mlperf_resnet8", {}, {"student_taps": ("s3b",)}, ("layer3",), ("s3b",)),
        ("mlperf_resnet8", {}, {"taps": ("layer3",), "student_taps": ("s3b",)}, (), ("s3b",)),
        ("mlperf_resnet8", {}, {"taps": ("layer2",), "student_taps": ("s2b",)}, ("layer3",), ("stage3",)),
        ("mlperf_resnet8", {}, {"student_taps": ("stage3", "s2b")}, ("layer3", "layer2"), ("stage3", "s2b")),
        ("mlperf_resnet8", {}, {"taps": ("layer2", "layer3"), "student_taps": ("s2b", "s3b")}, ("layer3",), ("s3b",)),
        # The same name.
        ("cifar_resnet", {"depth": 14}, {}, ("layer3",), ("layer3",)),
        ("cifar_resnet", {"depth": 14}, {}, ("layer3", "layer1"), ("layer3", "layer1")),
        # Found.
        ("mlperf_resnet8", {}, {}, ("layer3",), ("stage3",)),
        ("mlperf_resnet8", {}, {}, (), ("stage3",)),
    ],
)
def test_it_has_taps_of_its_own(
    teacher: LoadedModel,
    arch: str,
    arguments: dict[str, Any],
    matching: dict[str, Any],
    card_taps: tuple[str, ...],
    expected: tuple[str, ...],
) -> None:
    first, further = (card_taps[0], card_taps[1:]) if card_taps else (None, ())
    asked = teacher_of(teacher.model, tap=first, further_taps=further)
    assert own_taps(asked, made(asked, arch, arguments), **matching) == expected


@pytest.mark.parametrize(
    ("arguments", "matching", "card_taps", "message"),
    [
        ({"arch": "mlperf_resnet8"}, {"student_taps": ("s3b", "s2b")}, ("layer3",), "at as many taps"),
        ({"arch": "mlperf_resnet8"}, {"student_taps": ("s3x",)}, ("layer3",), "no module"),
        ({"arch": "mlperf_resnet8"}, {"student_taps": ("fc",)}, ("layer3",), "cannot be the tap|do not depend"),
        ({"arch": "mlperf_resnet8"}, {}, ("layer3", "layer2"), "lacks modules"),
        ({"arch": "mlperf_resnet8"}, {"student_taps": ("stage3", "stage3")}, ("layer3", "layer3.0"), "named twice"),
        ({"arch": "mlperf_resnet8"}, {"student_taps": ("s2b",)}, ("layer3",), "different sizes"),
        ({"arch": "mobilenet_v1"}, {}, ("layer3",), "different sizes"),
        ({"arch": "cifar_resnet", "stem_stride": 2}, {}, ("layer3",), "different sizes"),
    ],
)
def test_taps_that_do_not_fit_are_refused(
    teacher: LoadedModel,
    arguments: dict[str, Any],
    matching: dict[str, Any],
    card_taps: tuple[str, ...],
    message: str,
) -> None:
    asked = teacher_of(teacher.model, tap=card_taps[0], further_taps=card_taps[1:])
    arch = arguments["arch"]
    student = made(asked, arch, {key: value for key, value in arguments.items() if key != "arch"})
    with pytest.raises(BadInputError, match=message):
        own_taps(asked, student, **matching)


def test_sizes_that_differ_are_said_with_the_modules_that_fit(teacher: LoadedModel, factories: str) -> None:
    asked = teacher_of(teacher.model, tap="layer3")
    with pytest.raises(BadInputError, match="different sizes") as caught:
        own_taps(asked, made(asked, "cifar_resnet", {"stem_stride": 2}))
    assert "8 x 8" in (caught.value.expected or "")
    assert "4 x 4" in (caught.value.found or "")
    hint = caught.value.hint or ""
    assert "compress.matching.student_taps" in hint
    assert "layer2" in hint
    with pytest.raises(BadInputError, match="different sizes") as caught:
        own_taps(asked, made(asked, f"{factories}:plain", {"cells": 5}))
    assert "no map of 8 x 8" in (caught.value.hint or "")
