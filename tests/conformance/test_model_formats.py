"""Every model format: the same network comes out as went in, damaged files are refused, and no file runs code."""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from model_files import MAKERS, Bomb, ModelFile, rewrite, tap_sizes
from torch import nn

from edgekit.compress.options import CompressOptions, DistilOptions, FinetuneOptions, PruneOptions, SparsifyOptions
from edgekit.compress.pruning.structured import prune
from edgekit.compress.stage import STUDENT_NAME, CompressRequest, compress, student_load
from edgekit.core.digests import digest_array, digest_path
from edgekit.errors import BadInputError, EdgekitError
from edgekit.teacher.checkpoint import save_checkpoint
from edgekit.teacher.discovery import find_tap
from edgekit.teacher.formats.model_path import ModelPath
from edgekit.teacher.formats.registry import FORMATS, recognise
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

pytestmark = pytest.mark.parametrize("name", FORMATS.names())


@pytest.fixture
def made_of(name: str, tmp_path: Path) -> ModelFile:
    return MAKERS[name](tmp_path)


def grad_cam(network: Callable[[torch.Tensor], torch.Tensor], point: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Grad-CAM by hooks and autograd, written from its definition (Selvaraju et al. 2017, eq. 1 and 2)."""
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_())
        # A copy goes on, because a network may change it in place.
        return kept[-1].clone()

    handle = point.register_forward_hook(keep)
    try:
        logits = network(images)
    finally:
        handle.remove()
    (activation,) = kept
    (gradient,) = torch.autograd.grad(logits.max(dim=1).values.sum(), activation)
    return (gradient.mean((2, 3), keepdim=True) * activation).sum(1).relu().detach()


def test_its_own_format_recognises_it_and_no_other(name: str, made_of: ModelFile) -> None:
    found = ModelPath(made_of.path)
    assert [other for other in FORMATS if FORMATS.load(other).recognises(found)] == [name]
    assert recognise(found) is FORMATS.load(name)


def test_the_same_logits(name: str, made_of: ModelFile) -> None:
    loaded = load_model(made_of.path, made_of.options)
    images = made_of.images(5)
    assert (loaded.model(images) - made_of.network(images)).abs().max() < 1e-5
    assert made_of.network(images).std() > 1e-3, "the answers say something"
    assert loaded.card.classes == ("a", "b", "c", "d", "e")
    assert loaded.card.input.mean == (0.1, 0.2, 0.3)
    assert loaded.format == FORMATS.load(name).name
    assert loaded.digest == digest_path(made_of.path)


def test_it_is_ready_to_be_asked(name: str, made_of: ModelFile) -> None:
    model = load_model(made_of.path, made_of.options).model
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(value.dtype == torch.float32 for value in model.state_dict().values() if value.is_floating_point())
    assert not model.training


def test_the_same_map_at_the_same_tap(name: str, made_of: ModelFile) -> None:
    model = load_model(made_of.path, made_of.options).model
    images = made_of.images(4)
    there, here = made_of.taps
    expected = grad_cam(made_of.network, made_of.module.get_submodule(there), images)
    found = grad_cam(model, model.get_submodule(here), images)
    assert expected.abs().max() > 1e-3, "the map says something"
    assert (found - expected).abs().max() < 1e-5


def test_taps_are_found(name: str, made_of: ModelFile) -> None:
    model = load_model(made_of.path, made_of.options).model
    assert find_tap(model, made_of.images(2)).name == made_of.taps[1]
    sizes = list(tap_sizes(made_of.module, made_of.images(2)).values())
    # A graph may have more points, for values that no module returned; never fewer kinds.
    assert set(sizes) <= set(tap_sizes(model, made_of.images(2)).values())


def test_the_batch_stays_free(name: str, made_of: ModelFile) -> None:
    model = load_model(made_of.path, made_of.options).model
    images = made_of.images(7)
    together = model(images)
    for count in (1, 2, 3):
        assert torch.allclose(model(images[:count]), together[:count], atol=1e-5)


@pytest.mark.parametrize("suffix", ["", ".bin", ".safetensors", ".pt2", ".jpg"])
def test_a_wrong_suffix_does_not_matter(name: str, made_of: ModelFile, suffix: str) -> None:
    other = made_of.path.with_name(f"renamed{suffix}")
    made_of.path.rename(other)
    loaded = load_model(other, made_of.options)
    assert loaded.format == FORMATS.load(name).name


def _weights(path: Path) -> Path:
    return path / "model.safetensors" if path.is_dir() else path


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97])
def test_cut_off(name: str, made_of: ModelFile, share: float) -> None:
    path = _weights(made_of.path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadInputError) as caught:
        load_model(made_of.path, made_of.options)
    assert caught.value.where


def test_another_header(name: str, made_of: ModelFile) -> None:
    path = _weights(made_of.path)
    data = path.read_bytes()
    path.write_bytes(bytes(byte ^ 0xFF for byte in data[:16]) + data[16:])
    with pytest.raises(BadInputError):
        load_model(made_of.path, made_of.options)


def test_damaged_bytes_end_in_an_error_of_ours_or_in_a_classifier(name: str, made_of: ModelFile) -> None:
    if name == "pickled-module":
        pytest.skip("a pickle is code; damaged code may do anything, which is why it needs --trust-pickle")
    path, chance, refused = _weights(made_of.path), random.Random(0), 0
    whole = path.read_bytes()
    for _ in range(25):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            assert load_model(made_of.path, made_of.options).model(made_of.images(2)).isfinite().all()
        except EdgekitError:
            refused += 1
    # Safetensors has no checksums: a changed weight is another weight.
    assert name in ("safetensors", "huggingface-folder") or refused > 10


def test_a_bomb_in_its_place_does_not_go_off(name: str, made_of: ModelFile, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    bomb = Bomb(mark)
    if made_of.path.is_dir():
        (made_of.path / "model.safetensors").unlink()
        (made_of.path / "pytorch_model.bin").write_bytes(bomb.torch_bytes())
    elif FORMATS.load(name).recognises(ModelPath(made_of.path)) and ModelPath(made_of.path).members:
        # Wherever torch's own writers put pickles.
        rewrite(
            made_of.path,
            dict.fromkeys(
                ("data.pkl", "constants.pkl", "data/sample_inputs/model.pt", "data/weights/model.pt"),
                bomb.torch_bytes(),
            ),
        )
    else:
        made_of.path.write_bytes(bomb.torch_bytes())
    careful = LoadOptions(arch=made_of.options.arch, card=made_of.options.card)
    with contextlib.suppress(EdgekitError):
        load_model(made_of.path, careful)
    assert not mark.exists()


@dataclass(frozen=True)
class _Images:
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(digest_array(image) for image in self.pixels)


def _training(side: tuple[int, int]) -> _Images:
    source = np.random.default_rng(0)
    return _Images(source.integers(0, 256, (8, *side, 3)).astype(np.uint8), source.integers(0, 5, 8))


@pytest.mark.parametrize(("rate", "epochs", "sparsity"), [(0.4, 0, 0.0), (0.0, 1, 0.0), (0.0, 0, 0.5)])
def test_what_it_says_it_cannot_do_is_refused_and_what_it_can_is_done(
    name: str, made_of: ModelFile, tmp_path: Path, rate: float, epochs: int, sparsity: float
) -> None:
    able = FORMATS.load(name).capabilities
    options = CompressOptions(
        PruneOptions(rate=rate),
        FinetuneOptions(epochs=epochs, batch_size=8),
        sparsify=SparsifyOptions(sparsity=sparsity, step=0.5),
    )
    request = CompressRequest(made_of.path, made_of.options, _training(made_of.side), options, threads=1)
    if (rate > 0 and not able.prune) or (max(epochs, sparsity) > 0 and not able.finetune):
        with pytest.raises(BadInputError) as caught:
            compress(request, tmp_path / "student")
        assert "quantise-only" in (caught.value.hint or "")
        assert "--arch" in (caught.value.hint or "")
        assert not (tmp_path / "student").exists()
        return
    compress(request, tmp_path / "student")
    teacher = load_model(made_of.path, made_of.options)
    student = load_model(tmp_path / "student" / STUDENT_NAME, student_load(teacher, made_of.options))
    assert student.format == "edgekit checkpoint"
    differs = (student.model(made_of.images(2)) - teacher.model(made_of.images(2))).abs().max()
    assert differs > 1e-4, "something was done"
    if rate > 0:
        assert student.surgery is not None
        again = prune(teacher.model, options.prune, teacher.card.input.shape)
        assert torch.allclose(again.model(made_of.images(2)), student.model(made_of.images(2)), atol=1e-5)


STUDENT = """
from torch import nn

class Student(nn.Module):
    def __init__(self, classes, height, width):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d((height, width)))
        self.fc = nn.Linear(4, classes)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))
"""


def test_a_model_of_any_format_teaches_a_student_of_another_architecture(
    name: str, made_of: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "student_of_a_format.py").write_text(STUDENT)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "student_of_a_format", raising=False)
    arch = "student_of_a_format:Student"
    teacher = load_model(made_of.path, made_of.options)
    _, height, width = tap_sizes(made_of.module, made_of.images(2))[made_of.taps[0]]
    options = CompressOptions(
        PruneOptions(rate=0),
        FinetuneOptions(epochs=1, batch_size=8),
        distil=DistilOptions(student=arch, arguments={"height": height, "width": width}, weight=0.5),
    )
    request = CompressRequest(
        made_of.path, made_of.options, _training(made_of.side), options, student_code=arch, threads=1
    )
    record = compress(request, tmp_path / "student")
    assert record.facts["last_epoch"]["distillation"] > 0
    assert record.facts["last_epoch"]["teacher_zero"] < 8
    student = load_model(tmp_path / "student" / STUDENT_NAME, student_load(teacher, made_of.options, arch))
    assert student.arch == arch
    assert student.card.classes == teacher.card.classes
    assert student.model(made_of.images(2)).shape == (2, 5)


def test_without_compression_the_student_is_the_teacher(name: str, made_of: ModelFile, tmp_path: Path) -> None:
    record = compress(CompressRequest(made_of.path, made_of.options), tmp_path / "student")
    assert record.facts["skipped"]
    teacher = load_model(made_of.path, made_of.options)
    path = tmp_path / "student" / STUDENT_NAME
    student = load_model(path, student_load(teacher, made_of.options))
    images = made_of.images(3)
    assert torch.equal(student.model(images), teacher.model(images))
    assert student.card == teacher.card
    if not teacher.storable:
        assert path.read_bytes() == made_of.path.read_bytes()


def test_a_checkpoint_of_it_can_be_had_where_it_can_be_compressed(
    name: str, made_of: ModelFile, tmp_path: Path
) -> None:
    loaded = load_model(made_of.path, made_of.options)
    assert loaded.storable == loaded.capabilities.prune == loaded.capabilities.finetune
    if loaded.storable:
        save_checkpoint(tmp_path / "again.pt", loaded)
        again = load_model(tmp_path / "again.pt", student_load(loaded, made_of.options))
        assert torch.equal(again.model(made_of.images(2)), loaded.model(made_of.images(2)))


def test_a_copy_elsewhere_is_the_same_model(name: str, made_of: ModelFile, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "copy"
    other.parent.mkdir()
    (shutil.copytree if made_of.path.is_dir() else shutil.copy)(made_of.path, other)
    assert load_model(other, made_of.options).digest == load_model(made_of.path, made_of.options).digest
