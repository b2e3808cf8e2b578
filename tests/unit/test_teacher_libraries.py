"""timm and torchvision as architectures and as models, with stand-ins for the packages, which are not required."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from networks import Residual, made
from torch import nn

from edgekit.core.digests import digest_file
from edgekit.errors import BadInputError, UnavailableError
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.architectures.construct import classes_argument, construct
from edgekit.teacher.architectures.libraries import LIBRARIES, split_library_name
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.pretrained import model_file, temporary_model_file

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Library:
    """A stand-in for both packages: one model, `tiny`, and a record of what was asked."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.online, self.trained = True, True

    def create(self, name: str, *, pretrained: bool, classes: int = 1000) -> nn.Module:
        self.calls.append({"name": name, "pretrained": pretrained, "classes": classes})
        if pretrained and not self.online:
            raise OSError("[Errno -2] Name or service not known")
        model = made(lambda: Residual(classes), seed=7 if pretrained else 0)
        model.num_classes = classes
        model.pretrained_cfg = {"input_size": (3, 17, 15), "mean": MEAN, "std": STD, "num_classes": 1000}
        return model


def timm_like(library: Library) -> dict[str, ModuleType]:
    timm, data = ModuleType("timm"), ModuleType("timm.data")

    def create_model(name: str, pretrained: bool = False, num_classes: int = 1000) -> nn.Module:
        return library.create(name, pretrained=pretrained, classes=num_classes)

    class ImageNetInfo:
        def __init__(self, subset: str) -> None:
            assert subset == "imagenet-1k"

        def label_descriptions(self) -> list[str]:
            return ["crane" if index in (134, 517) else f"thing {index}" for index in range(1000)]

    timm.create_model, timm.data = create_model, data  # type: ignore[attr-defined]
    timm.is_model = lambda name: name == "tiny"  # type: ignore[attr-defined]
    timm.get_pretrained_cfg = lambda name: SimpleNamespace(has_weights=library.trained)  # type: ignore[attr-defined]
    data.infer_imagenet_subset = lambda model: "imagenet-1k"  # type: ignore[attr-defined]
    data.ImageNetInfo = ImageNetInfo  # type: ignore[attr-defined]
    return {"timm": timm, "timm.data": data}


def torchvision_like(library: Library) -> dict[str, ModuleType]:
    torchvision, models = ModuleType("torchvision"), ModuleType("torchvision.models")

    def get_model(name: str, weights: str | None = None, num_classes: int = 1000) -> nn.Module:
        return library.create(name, pretrained=weights is not None, classes=num_classes)

    preset = SimpleNamespace(crop_size=[17], mean=list(MEAN), std=list(STD))
    categories = ["crane" if index in (134, 517) else f"thing {index}" for index in range(1000)]
    default = SimpleNamespace(transforms=lambda: preset, meta={"categories": categories})
    models.list_models = lambda module: ["tiny"] if module is models else []  # type: ignore[attr-defined]
    models.get_model = get_model  # type: ignore[attr-defined]
    models.get_model_weights = lambda name: SimpleNamespace(DEFAULT=default)  # type: ignore[attr-defined]
    torchvision.models = models  # type: ignore[attr-defined]
    return {"torchvision": torchvision, "torchvision.models": models}


@pytest.fixture(params=["timm", "torchvision"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def library(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    made_up = Library()
    for module, stand_in in {"timm": timm_like, "torchvision": torchvision_like}[name](made_up).items():
        monkeypatch.setitem(sys.modules, module, stand_in)
    return made_up


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(made(lambda: Residual(1000), seed=3).state_dict(), tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_a_state_dict_of_a_library_needs_nothing_but_its_name(name: str, library: Library, weights: Path) -> None:
    loaded = load_model(weights, LoadOptions(arch=f"{name}:tiny"))
    assert library.calls == [{"name": "tiny", "pretrained": False, "classes": 1000}]
    assert (loaded.card.input.mean, loaded.card.input.std) == (MEAN, STD)
    assert loaded.card.input.height == 17
    assert len(loaded.card.classes) == 1000
    assert (loaded.card.classes[134], loaded.card.classes[517]) == ("crane (134)", "crane (517)")
    images = torch.rand(2, 3, *loaded.card.input.shape[1:])
    assert torch.equal(loaded.model(images), made(lambda: Residual(1000), seed=3)(images))


def test_what_the_user_says_wins(name: str, library: Library, weights: Path) -> None:
    said = {"input": {"mean": [0.1, 0.1, 0.1]}, "classes": [f"c{index}" for index in range(1000)]}
    card = load_model(weights, LoadOptions(arch=f"{name}:tiny", card=said)).card
    assert card.input.mean == (0.1, 0.1, 0.1)
    assert card.input.std == STD
    assert card.classes[0] == "c0"


def test_other_classes_must_be_named(name: str, library: Library, tmp_path: Path) -> None:
    torch.save(made(lambda: Residual(4)).state_dict(), tmp_path / "w.pt")
    options = LoadOptions(arch=f"{name}:tiny", arguments={"num_classes": 4})
    with pytest.raises(BadInputError, match="no card"):
        load_model(tmp_path / "w.pt", options)
    named = LoadOptions(options.arch, options.arguments, {"classes": list("abcd")})
    loaded = load_model(tmp_path / "w.pt", named)
    assert loaded.card.input.mean == MEAN
    save_checkpoint(tmp_path / "c.pt", loaded)
    again = load_model(tmp_path / "c.pt")
    assert (again.arch, dict(again.arguments), again.card) == (f"{name}:tiny", {"num_classes": 4}, loaded.card)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("timm", "pretrained"),
        ("timm", "pretrained_cfg"),
        ("timm", "checkpoint_path"),
        ("timm", "cache_dir"),
        ("torchvision", "pretrained"),
        ("torchvision", "weights"),
        ("torchvision", "weights_backbone"),
    ],
)
def test_a_constructor_is_not_told_to_load(name: str, library: Library, argument: str, tmp_path: Path) -> None:
    card = ModelCard(InputSpec(17, 15), ("a", "b"))
    arch = f"{name}:tiny"
    save_checkpoint(tmp_path / "m.pt", LoadedModel(made(Residual), card, arch, {argument: "/x"}, None, ""))
    with pytest.raises(BadInputError, match="without weights") as caught:
        load_model(tmp_path / "m.pt")
    assert caught.value.found == argument
    assert not library.calls


def test_a_package_that_is_not_installed(
    name: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (name, f"{name}.models"):
        monkeypatch.setitem(sys.modules, module, None)
    for attempt in (
        lambda: load_model(weights, LoadOptions(arch=f"{name}:tiny")),
        lambda: model_file(Path(f"{name}:tiny"), LoadOptions(), tmp_path),
    ):
        with pytest.raises(UnavailableError) as caught:
            attempt()
        assert caught.value.hint == f'pip install "edgekit[{name}]"'


def test_it_is_told_how_many_classes_there_are(name: str, library: Library) -> None:
    argument = classes_argument(f"{name}:tiny")
    assert argument is not None
    assert construct(f"{name}:tiny", {argument: 6})(torch.rand(1, 3, 17, 15)).shape == (1, 6)
    assert library.calls == [{"name": "tiny", "pretrained": False, "classes": 6}]


def test_an_unknown_model(name: str, library: Library) -> None:
    with pytest.raises(BadInputError, match="no_such"):
        construct(f"{name}:no_such", {})


@pytest.mark.parametrize("text", ["hf-hub:a/b", "local-dir:/tmp", "../x", "a b", "", "-x"])
def test_names_that_are_places(name: str, text: str) -> None:
    with pytest.raises(BadInputError, match="is no name"):
        split_library_name(f"{name}:{text}")


@pytest.mark.parametrize("text", ["timm", "package.module:factory", "cifar_resnet", "/a/timm:b", "C:model.pt", ""])
def test_names_that_are_no_librarys(text: str) -> None:
    assert split_library_name(text) is None


# Models with the library's own weights


def test_pretrained_weights_are_stored_once(name: str, library: Library, tmp_path: Path) -> None:
    path = model_file(Path(f"{name}:tiny"), LoadOptions(), tmp_path / "out")
    assert path == tmp_path / "out" / f"{name}-tiny.pt"
    assert [call["pretrained"] for call in library.calls] == [True]
    loaded = load_model(path)
    assert loaded.arch == f"{name}:tiny"
    images = torch.rand(2, *loaded.card.input.shape)
    assert torch.equal(loaded.model(images), made(lambda: Residual(1000), seed=7)(images))
    library.online = False
    assert model_file(Path(f"{name}:tiny"), LoadOptions(), tmp_path / "out") == path
    assert [call["pretrained"] for call in library.calls] == [True, False]  # the second is the architecture's


def test_equal_weights_give_equal_files(name: str, library: Library, tmp_path: Path) -> None:
    kept = digest_file(model_file(Path(f"{name}:tiny"), LoadOptions(), tmp_path))
    with temporary_model_file(Path(f"{name}:tiny"), LoadOptions()) as path:
        assert digest_file(path) == kept
    assert not path.exists()


def test_weights_that_cannot_be_had_are_never_random(name: str, library: Library, tmp_path: Path) -> None:
    library.online = False
    with pytest.raises(UnavailableError, match="cannot be downloaded") as caught:
        model_file(Path(f"{name}:tiny"), LoadOptions(), tmp_path)
    assert "state_dict()" in (caught.value.hint or "")
    assert f"--arch {name}:tiny" in (caught.value.hint or "")
    assert "Name or service" in (caught.value.found or "")
    assert not list(tmp_path.iterdir())


def test_a_model_that_nobody_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = Library()
    library.trained = False
    for module, stand_in in timm_like(library).items():
        monkeypatch.setitem(sys.modules, module, stand_in)
    with pytest.raises(UnavailableError, match="no pretrained weights"):
        model_file(Path("timm:tiny"), LoadOptions(), tmp_path)
    assert not library.calls


def test_a_pretrained_model_has_its_own_architecture(name: str, library: Library, tmp_path: Path) -> None:
    for options in (LoadOptions(arch="cifar_resnet"), LoadOptions(arguments={"num_classes": 3})):
        with pytest.raises(BadInputError, match="its own architecture"):
            model_file(Path(f"{name}:tiny"), options, tmp_path)


def test_a_file_of_that_name_is_a_file(
    name: str, library: Library, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights.rename(f"{name}:tiny")
    assert model_file(Path(f"{name}:tiny"), LoadOptions(), tmp_path / "out") == Path(f"{name}:tiny")
    assert not library.calls


def test_every_library_has_what_the_protocol_asks_for() -> None:
    for name in LIBRARIES:
        for method in ("construct", "pretrained", "card"):
            assert callable(getattr(LIBRARIES.load(name), method))
