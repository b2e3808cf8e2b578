"""One model in every format that edgekit reads, made from a tiny network; and hostile things to put in files.

`MAKERS` has an entry for each name in the table of formats; a format without one fails the conformance suite.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import CASES, Residual, made
from safetensors.torch import save_file
from torch import nn

from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.discovery import tap_candidates
from edgekit.teacher.load_options import LoadOptions

CARD = ModelCard(InputSpec(17, 15, mean=(0.1, 0.2, 0.3)), ("a", "b", "c", "d", "e"))
SAID = LoadOptions(card=CARD.to_dict())
BY_NAME = LoadOptions(arch="networks:Residual", card=CARD.to_dict())
CARD_FILE = {"edgekit.card.json": json.dumps(CARD.to_dict())}


@dataclass(frozen=True)
class ModelFile:
    """A model in a file, and the network it was made of.

    Attributes:
        path: File or folder.
        options: How to load it.
        network: What was stored; answers the logits.
        taps: Module of `network`, and the name under which the loaded model has the same value.
        side: Height and width of its input.
    """

    path: Path
    options: LoadOptions
    network: Callable[[torch.Tensor], torch.Tensor]
    module: nn.Module
    taps: tuple[str, str] = ("layer2", "layer2")
    side: tuple[int, int] = (17, 15)

    def images(self, count: int, seed: int = 1) -> torch.Tensor:
        """float32 [count, 3, H, W]."""
        return torch.randn((count, 3, *self.side), generator=torch.Generator().manual_seed(seed))


def residual() -> nn.Module:
    return CASES["residual"].make()


def _file(path: Path, options: LoadOptions = SAID, loaded_tap: str = "layer2") -> ModelFile:
    model = residual()
    return ModelFile(path, options, model, model, ("layer2", loaded_tap))


def exported(model: nn.Module, images: torch.Tensor, *, dynamic: bool = True) -> torch.export.ExportedProgram:
    """A torch.export program with a batch of any size."""
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    return torch.export.export(model, (images,), dynamic_shapes=shapes)


def traced(model: nn.Module, images: torch.Tensor) -> torch.jit.ScriptModule:
    """A traced network. Torch advises against it, which is why people still have such files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, images)  # type: ignore[no-any-return]


def scripted(model: nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(model)  # type: ignore[no-any-return]


def save_script(script: torch.jit.ScriptModule, path: Path, extra: dict[str, str] | None = None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(script, path, _extra_files=extra or {})
    return path


def _checkpoint(folder: Path) -> ModelFile:
    path = folder / "model.pt"
    save_checkpoint(path, LoadedModel(residual(), CARD, "networks:Residual", {}, None, ""))
    return _file(path, LoadOptions(arch="networks:Residual"))


def _state_dict(folder: Path) -> ModelFile:
    path = folder / "model.pt"
    torch.save(residual().state_dict(), path)
    return _file(path, BY_NAME)


def _safetensors(folder: Path) -> ModelFile:
    path = folder / "model.safetensors"
    save_file({name: tensor.clone() for name, tensor in residual().state_dict().items()}, path)
    return _file(path, BY_NAME)


def _pickled(folder: Path) -> ModelFile:
    path = folder / "model.pt"
    torch.save(residual(), path)
    return _file(path, LoadOptions(card=CARD.to_dict(), trust_pickle=True))


def _exported_program(folder: Path) -> ModelFile:
    (folder / "model.pt2").write_bytes(_program())
    return _file(folder / "model.pt2", LoadOptions())


@cache
def _program() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(exported(residual(), torch.rand(2, 3, 17, 15)), buffer, extra_files=dict(CARD_FILE))
    return buffer.getvalue()


def _torchscript(folder: Path) -> ModelFile:
    made_of = _file(folder / "model.pt", LoadOptions(), "relu__4")
    save_script(traced(made_of.module, made_of.images(2)), made_of.path, CARD_FILE)
    return made_of


def _huggingface(folder: Path) -> ModelFile:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed here")
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=6, hidden_sizes=[6, 10], depths=[1, 1], layer_type="basic", id2label=dict(enumerate("abcde"))
    )
    model = ResNetForImageClassification(config).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 1.5)
    path = folder / "model"
    model.save_pretrained(path)
    said = {"size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
    (path / "preprocessor_config.json").write_text(json.dumps(said))
    tap = "resnet.encoder.stages.1"
    return ModelFile(path, LoadOptions(), lambda images: model(images).logits, model, (tap, tap), (32, 32))


MAKERS: dict[str, Callable[[Path], ModelFile]] = {
    "edgekit-checkpoint": _checkpoint,
    "exported-program": _exported_program,
    "huggingface-folder": _huggingface,
    "pickled-module": _pickled,
    "safetensors": _safetensors,
    "state-dict": _state_dict,
    "torchscript": _torchscript,
}


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)

    def torch_bytes(self, around: Callable[[Any], Any] = lambda bomb: bomb) -> bytes:
        """As `torch.save` writes it."""
        buffer = io.BytesIO()
        torch.save(around(self), buffer)
        return buffer.getvalue()


def members(path: Path) -> dict[str, bytes]:
    """Name, with the folder that torch puts everything in, to content."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, changed: dict[str, bytes]) -> None:
    """Replace or add members of a zip; names without torch's own folder."""
    content = members(path)
    root = next(iter(content)).partition("/")[0]
    content |= {f"{root}/{name}": data for name, data in changed.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def plain_state() -> dict[str, torch.Tensor]:
    return dict(made(Residual).state_dict())


def tap_sizes(model: nn.Module, images: torch.Tensor) -> dict[str, tuple[int, int, int]]:
    """What a map could live on: name to channels, height and width, in the order in which modules end."""
    return {item.tap.name: (item.channels, item.height, item.width) for item in tap_candidates(model, images)}
