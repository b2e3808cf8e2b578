"""Folders of transformers, with a stand-in for the package: what is asked of it, and what is never asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from model_files import Bomb
from networks import Residual, made
from safetensors.torch import save_file
from torch import nn

from edgekit.errors import BadInputError, UnavailableError
from edgekit.interface.card import InputSpec
from edgekit.teacher.architectures.transformers_classifier import checked_config
from edgekit.teacher.checkpoint import save_checkpoint
from edgekit.teacher.loading import load_model

CONFIG = {
    "model_type": "tiny",
    "architectures": ["Tiny"],
    "id2label": {"10": "k", **{str(i): c for i, c in enumerate("abcdefghij")}},
}
PREPROCESSOR = {
    "size": {"height": 17, "width": 15},
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.5, 0.5, 0.5],
    "rescale_factor": 0.00392156862745098,
}


class Classifier(nn.Module):
    """Answers as transformers' classifiers do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = made(lambda: Residual(11), seed=5)

    def forward(self, pixel_values: torch.Tensor, labels: Any = None) -> dict[str, Any]:
        return {"loss": labels, "logits": self.net(pixel_values)}


class StandIn:
    def __init__(self) -> None:
        self.configs: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.told: dict[str, list[str]] = {"missing_keys": [], "mismatched_keys": [], "unexpected_keys": []}

    def module(self) -> ModuleType:
        transformers = ModuleType("transformers")

        def for_model(kind: str, **config: Any) -> Any:
            self.configs.append({"model_type": kind, **config})
            return SimpleNamespace(**config)

        def from_config(config: Any, **settings: Any) -> nn.Module:
            self.asked.append(settings)
            return Classifier()

        def from_pretrained(folder: str, **settings: Any) -> tuple[nn.Module, dict[str, list[str]]]:
            self.asked.append(settings)
            model = Classifier()
            if settings["use_safetensors"]:
                from safetensors.torch import load_file

                model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
            else:
                state = torch.load(Path(folder) / "pytorch_model.bin", weights_only=settings["weights_only"])
                model.load_state_dict(state)
            return model, self.told

        transformers.AutoConfig = SimpleNamespace(for_model=for_model)  # type: ignore[attr-defined]
        auto = SimpleNamespace(from_config=from_config, from_pretrained=from_pretrained)
        transformers.AutoModelForImageClassification = auto  # type: ignore[attr-defined]
        logging = SimpleNamespace(disable_progress_bar=lambda: None)
        transformers.utils = SimpleNamespace(logging=logging)  # type: ignore[attr-defined]
        return transformers


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made_up = StandIn()
    monkeypatch.setitem(sys.modules, "transformers", made_up.module())
    return made_up


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    write(path, "config.json", CONFIG)
    write(path, "preprocessor_config.json", PREPROCESSOR)
    save_file({name: tensor.clone() for name, tensor in Classifier().state_dict().items()}, path / "model.safetensors")
    return path


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


def test_a_folder_says_everything(folder: Path, stand_in: StandIn) -> None:
    loaded = load_model(folder)
    assert loaded.format == "Hugging Face folder"
    assert loaded.arch == "transformers"
    assert loaded.arguments["config"]["model_type"] == "tiny"
    assert loaded.card.classes == tuple("abcdefghijk"), "in the order of their numbers"
    assert loaded.card.input == InputSpec(17, 15, "RGB", 255.0, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    images = torch.rand(2, 3, 17, 15)
    assert torch.equal(loaded.model(images), made(lambda: Residual(11), seed=5)(images))
    assert "'logits'" in loaded.notes[0]


def test_nothing_but_the_folder_is_asked_for(folder: Path, stand_in: StandIn) -> None:
    write(folder, "config.json", {**CONFIG, "attn_implementation": "somebody/kernels", "torch_dtype": "float16"})
    load_model(folder)
    (asked,) = stand_in.asked
    assert asked["trust_remote_code"] is False
    assert asked["local_files_only"] is True
    assert asked["weights_only"] is True
    assert asked["use_safetensors"] is True
    assert asked["attn_implementation"] == "eager"
    assert not {"attn_implementation", "torch_dtype"} & set(stand_in.configs[0])


def test_its_checkpoint_needs_no_folder(folder: Path, stand_in: StandIn, tmp_path: Path) -> None:
    loaded = load_model(folder)
    save_checkpoint(tmp_path / "student.pt", loaded)
    again = load_model(tmp_path / "student.pt")
    assert stand_in.configs[0] == stand_in.configs[1]
    assert stand_in.asked[1] == {"attn_implementation": "eager", "trust_remote_code": False}
    images = torch.rand(2, 3, 17, 15)
    assert torch.equal(again.model(images), loaded.model(images))
    assert again.card == loaded.card


@pytest.mark.parametrize(
    "entry",
    [
        {"auto_map": {"AutoModelForImageClassification": "modeling.Evil"}},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"trust_remote_code": True},
        {"backbone_config": {"use_pretrained_backbone": True}},
        {"parts": [{"auto_map": {"x": "y"}}]},
    ],
    ids=str,
)
def test_a_configuration_that_asks_for_other_code(folder: Path, stand_in: StandIn, entry: dict[str, Any]) -> None:
    write(folder, "config.json", {**CONFIG, **entry})
    with pytest.raises(BadInputError, match="not in this folder"):
        load_model(folder)
    assert not stand_in.asked


@pytest.mark.parametrize("config", [[], {}, {"model_type": 3}, "text"])
def test_what_is_no_configuration(config: Any) -> None:
    with pytest.raises(BadInputError, match="model type"):
        checked_config(config, "config.json")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1, "a": 2}', ""])
def test_a_damaged_configuration(folder: Path, stand_in: StandIn, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(BadInputError):
        load_model(folder)


@pytest.mark.parametrize("kind", ["missing_keys", "mismatched_keys", "unexpected_keys"])
def test_weights_are_never_filled_in_at_random(folder: Path, stand_in: StandIn, kind: str) -> None:
    stand_in.told[kind] = [f"layer.{index}" for index in range(7)]
    with pytest.raises(BadInputError, match="do not belong") as caught:
        load_model(folder)
    assert "layer.0" in (caught.value.found or "")
    assert "random" in (caught.value.hint or "")


def test_pickled_weights_are_read_with_care(folder: Path, stand_in: StandIn, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(Classifier().state_dict(), folder / "pytorch_model.bin")
    load_model(folder)
    mark = tmp_path / "it-ran"
    (folder / "pytorch_model.bin").write_bytes(Bomb(mark).torch_bytes())
    with pytest.raises(BadInputError, match="cannot load"):
        load_model(folder)
    assert not mark.exists()


def test_an_index_that_points_outside(folder: Path, stand_in: StandIn) -> None:
    write(folder, "model.safetensors.index.json", {"weight_map": {"a": "../../elsewhere.safetensors"}})
    with pytest.raises(BadInputError, match="outside"):
        load_model(folder)


def test_an_adapter_refers_to_other_weights(folder: Path, stand_in: StandIn) -> None:
    write(folder, "adapter_config.json", {"base_model_name_or_path": "somebody/model"})
    with pytest.raises(BadInputError, match="elsewhere"):
        load_model(folder)


def test_without_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UnavailableError) as caught:
        load_model(folder)
    assert caught.value.hint == 'pip install "edgekit[transformers]"'


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInputError, match="no model"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"size": 17}, {"height": 17, "width": 17}),
        ({"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": 17}, {"height": 17, "width": 17}),
        ({"size": {"shortest_edge": 17}, "crop_pct": 0.9}, {"height": 17, "width": 17}),
        ({"do_rescale": False}, {"divisor": 1.0}),
        ({"rescale_factor": 1 / 127.5}, {"divisor": 127.5}),
        ({"do_normalize": False}, {"mean": (0, 0, 0), "std": (1, 1, 1)}),
        ({"do_flip_channel_order": True}, {"channel_order": "BGR"}),
    ],
    ids=str,
)
def test_how_the_preprocessor_feeds_it(
    folder: Path, stand_in: StandIn, said: dict[str, Any], expected: dict[str, Any]
) -> None:
    write(folder, "preprocessor_config.json", {**PREPROCESSOR, **said})
    spec = load_model(folder).card.input
    for name, value in expected.items():
        assert getattr(spec, name) == pytest.approx(value) if name == "divisor" else getattr(spec, name) == value


def test_an_impossible_rescaling(folder: Path, stand_in: StandIn) -> None:
    write(folder, "preprocessor_config.json", {**PREPROCESSOR, "rescale_factor": 0})
    with pytest.raises(BadInputError, match="rescale_factor"):
        load_model(folder)
