"""Checkpoints: plain tensors in, the same plain tensors out, and nothing in a file is ever run."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import Residual, made
from safetensors.torch import save as safetensors_bytes
from torch import nn

from edgekit.core.digests import digest_file
from edgekit.errors import BadInputError
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.checkpoint import FORMAT, LoadedModel, read_tensor_file, save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.surgery import LayerCut, Surgery, apply_surgery

ARCH = "networks:Residual"
CARD = ModelCard(InputSpec(17, 15, mean=(0.1, 0.2, 0.3)), ("a", "b", "c", "d", "e"), tap="layer2")


def residual(seed: int = 0) -> LoadedModel:
    return LoadedModel(made(Residual, seed), CARD, ARCH, {"classes": 5}, None, "")


def torch_bytes(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def test_round_trip(tmp_path: Path) -> None:
    saved = residual()
    digest = save_checkpoint(tmp_path / "m.pt", saved)
    loaded = load_model(tmp_path / "m.pt", LoadOptions(arch=ARCH))
    assert loaded.digest == digest == digest_file(tmp_path / "m.pt")
    assert (loaded.card, loaded.arch, loaded.arguments, loaded.surgery) == (CARD, ARCH, {"classes": 5}, None)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    for name, tensor in saved.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    images = torch.randn(3, 3, 17, 15, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.model(images), saved.model(images))


def test_the_card_of_the_file_can_be_overridden_key_by_key(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.pt", residual())
    options = LoadOptions(arch=ARCH, card={"tap": "layer1", "input": {"std": [2, 2, 2]}})
    card = load_model(tmp_path / "m.pt", options).card
    assert card == replace(CARD, tap="layer1", input=replace(CARD.input, std=(2.0, 2.0, 2.0)))


def test_recorded_pruning_is_replayed(tmp_path: Path) -> None:
    loaded = residual()
    surgery = Surgery(
        {
            "layer2.conv1": LayerCut(out_kept=(0, 3, 4)),
            "layer2.bn1": LayerCut(out_kept=(0, 3, 4)),
            "layer2.conv2": LayerCut(in_kept=(0, 3, 4)),
        }
    )
    apply_surgery(loaded.model, surgery)
    save_checkpoint(tmp_path / "m.pt", replace(loaded, surgery=surgery))
    again = load_model(tmp_path / "m.pt", LoadOptions(arch=ARCH))
    assert again.surgery == surgery
    assert again.model.get_submodule("layer2.conv1").weight.shape == (3, 6, 3, 3)
    images = torch.randn(2, 3, 17, 15, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.model(images), loaded.model(images))


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    digest = save_checkpoint(tmp_path / "a.pt", residual())
    assert save_checkpoint(tmp_path / "elsewhere" / "b.checkpoint", residual()) == digest
    again = load_model(tmp_path / "a.pt", LoadOptions(arch=ARCH))
    assert save_checkpoint(tmp_path / "c.pt", again) == digest
    assert save_checkpoint(tmp_path / "d.pt", replace(again, digest="anything")) == digest
    assert save_checkpoint(tmp_path / "e.pt", residual(seed=1)) != digest


def test_how_tensors_lie_in_memory_does_not_show(tmp_path: Path) -> None:
    digest = save_checkpoint(tmp_path / "a.pt", residual())
    odd = residual()
    big = torch.zeros(100, 6, 6, 3, 3)
    big[7] = odd.model.layer1.conv1.weight
    odd.model.layer1.conv1.weight.data = big[7]  # a slice of something large
    conv = odd.model.layer1.conv2
    conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    odd.model.requires_grad_(True)
    assert save_checkpoint(tmp_path / "b.pt", odd) == digest


def test_a_checkpoint_holds_no_code(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.pt", residual())
    content = read_tensor_file(tmp_path / "m.pt")
    assert content["format"] == FORMAT
    assert set(content) == {"format", "arch", "arguments", "card", "surgery", "state_dict"}
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        program = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    assert b"networks\n" not in program
    assert b"Conv2d" not in program


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "m.pt", residual())
    before = (tmp_path / "m.pt").read_bytes()
    broken = residual(seed=1)
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError):
        save_checkpoint(tmp_path / "m.pt", broken)
    assert (tmp_path / "m.pt").read_bytes() == before


# What may come under the name model.pt


@pytest.mark.parametrize(
    "text",
    [
        "hello world\n",
        "this is not a model",
        "import torch\n",
        "{}",
        "<html>",
        "I am",
        "\n\n\n",
        "N.",
        "0",
        "(",
        "]q\x00.",
    ],
)
def test_a_text_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.pt").write_text(text)
    with pytest.raises(BadInputError) as caught:
        read_tensor_file(tmp_path / "model.pt")
    assert caught.value.where == str(tmp_path / "model.pt")
    assert "code to be run" not in caught.value.message


def test_a_text_file_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("hello world\nsecond line\n")
    with pytest.raises(BadInputError, match="cannot be read") as caught:
        read_tensor_file(tmp_path / "model.pt")
    assert caught.value.found == "a text file that begins with 'hello world'"


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    with pytest.raises(BadInputError) as caught:
        read_tensor_file(tmp_path / "model.pt")
    assert caught.value.found == "an empty file"


def test_a_pointer_that_was_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n")
    with pytest.raises(BadInputError) as caught:
        read_tensor_file(tmp_path / "model.pt")
    assert "git lfs pull" in (caught.value.hint or "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        read_tensor_file(tmp_path / "model.pt")
    with pytest.raises(BadInputError):
        read_tensor_file(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off(tmp_path: Path, share: float) -> None:
    data = torch_bytes({"a": torch.ones(500)})
    (tmp_path / "model.pt").write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadInputError, match="cannot be read") as caught:
        read_tensor_file(tmp_path / "model.pt")
    assert "zip archive" in (caught.value.found or "")


class Tripwire:
    """Unpickling it runs a command that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["pickle-0", "pickle-2", "pickle-4", "torch", "legacy", "inside"])
def test_no_code_of_a_file_is_run(tmp_path: Path, form: str) -> None:
    mark = tmp_path / "it-ran"
    evil = Tripwire(mark)
    data = {
        "pickle-0": lambda: pickle.dumps(evil, 0),
        "pickle-2": lambda: pickle.dumps(evil, 2),
        "pickle-4": lambda: pickle.dumps(evil, 4),
        "torch": lambda: torch_bytes(evil),
        "legacy": lambda: torch_bytes(evil, _use_new_zipfile_serialization=False),
        "inside": lambda: torch_bytes({"format": FORMAT, "state_dict": {"a": torch.ones(2)}, "arch": evil}),
    }[form]()
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(BadInputError, match="code to be run, which edgekit does not do") as caught:
        read_tensor_file(tmp_path / "model.pt")
    assert "state_dict()" in (caught.value.hint or "")
    assert "--arch" in (caught.value.hint or "")
    assert not mark.exists()
    pickle.loads(pickle.dumps(evil))
    assert mark.exists(), "the tripwire itself works"


@pytest.mark.parametrize("legacy", [False, True])
def test_a_whole_pickled_module_is_refused_with_the_way_out(tmp_path: Path, legacy: bool) -> None:
    data = torch_bytes(nn.Sequential(nn.Conv2d(3, 4, 3)), _use_new_zipfile_serialization=not legacy)
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(BadInputError, match="code to be run") as caught:
        read_tensor_file(tmp_path / "model.pt")
    assert caught.value.found == "it asks for torch.nn.modules.container.Sequential"
    assert caught.value.hint == "save model.state_dict() instead of the model and pass --arch package.module:factory"


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), {1: torch.ones(2)}, "text", 7])
def test_other_things_saved_by_torch(tmp_path: Path, content: Any) -> None:
    (tmp_path / "model.pt").write_bytes(torch_bytes(content))
    with pytest.raises(BadInputError, match="something other than"):
        read_tensor_file(tmp_path / "model.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_bytes_end_in_an_error_of_ours_or_in_tensors(tmp_path: Path, legacy: bool) -> None:
    whole = torch_bytes({"a": torch.ones(50), "b": torch.zeros(3)}, _use_new_zipfile_serialization=not legacy)
    chance = random.Random(0)
    path, refused = tmp_path / "model.pt", 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.randrange(1, len(data))] if chance.random() < 0.3 else data)
        try:
            assert isinstance(read_tensor_file(path), dict)
        except BadInputError:
            refused += 1
    assert refused > 100


def test_files_of_older_torch_are_read(tmp_path: Path) -> None:
    (tmp_path / "model.th").write_bytes(torch_bytes({"a": torch.arange(4.0)}, _use_new_zipfile_serialization=False))
    assert read_tensor_file(tmp_path / "model.th")["a"].tolist() == [0, 1, 2, 3]


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"a": torch.arange(4.0)}))
    assert read_tensor_file(path)["a"].tolist() == [0, 1, 2, 3]
    for data in (b"", b"hello", path.read_bytes()[:-3], b"\xff" * 64, b"\x02" + b"\x00" * 7 + b"{}junk"):
        path.write_bytes(data)
        with pytest.raises(BadInputError, match="safetensors file cannot be read"):
            read_tensor_file(path)
