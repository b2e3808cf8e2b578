"""Whole pickled modules: never without the user's word, and never in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_files import CARD, Bomb, residual
from torch import nn

from edgekit.cli.main import run
from edgekit.errors import BadInputError, ExitCode
from edgekit.teacher.formats.pickled_module import TRUST_WARNING
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

CARELESS = LoadOptions(card=CARD.to_dict(), trust_pickle=True)
CAREFUL = LoadOptions(card=CARD.to_dict())


@pytest.mark.parametrize("legacy", [False, True])
def test_it_takes_the_users_word(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "m.pt"
    torch.save(residual(), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BadInputError, match="code to be run") as caught:
        load_model(path, CAREFUL)
    assert "--trust-pickle" in (caught.value.hint or "")
    assert "with your rights" in (caught.value.hint or "")
    loaded = load_model(path, CARELESS)
    assert any(TRUST_WARNING in note for note in loaded.notes)
    images = torch.rand(2, 3, 17, 15)
    assert torch.equal(loaded.model(images), residual()(images))


def test_the_word_decides_whether_code_runs(tmp_path: Path) -> None:
    path, mark = tmp_path / "m.pt", tmp_path / "it-ran"
    path.write_bytes(Bomb(mark).torch_bytes(lambda bomb: {"model": residual(), "also": bomb}))
    with pytest.raises(BadInputError):
        load_model(path, CAREFUL)
    assert not mark.exists()
    with pytest.raises(BadInputError, match="other than a network") as caught:
        load_model(path, CARELESS)
    assert caught.value.found == "dict"
    assert mark.exists(), "that is what the flag means"


def test_classes_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(residual(), path)
    data = path.read_bytes().replace(b"networks\n", b"networkz\n")
    path.write_bytes(data)
    with pytest.raises(BadInputError, match="cannot be loaded") as caught:
        load_model(path, CARELESS)
    assert "importable" in (caught.value.hint or "")


def test_a_module_in_training_and_in_half(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(residual().half().train(), path)
    loaded = load_model(path, CARELESS)
    assert not loaded.model.training
    assert any("float16" in note for note in loaded.notes)
    assert loaded.model.get_parameter("fc.weight").dtype == torch.float32


def test_complex_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(nn.Conv2d(3, 5, 1, dtype=torch.complex64), path)
    with pytest.raises(BadInputError, match="complex"):
        load_model(path, CARELESS)


def test_the_flag_does_not_change_what_other_files_do(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(residual().state_dict(), path)
    loaded = load_model(path, LoadOptions("networks:Residual", card=CARD.to_dict(), trust_pickle=True))
    assert (loaded.format, loaded.notes) == ("state dict", ())


def test_the_flag_is_part_of_a_stages_key() -> None:
    assert CARELESS.to_dict() != CAREFUL.to_dict()
    assert "trust_pickle" not in CAREFUL.to_dict(), "earlier work keeps its key"


def test_the_command_warns_before_it_runs_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.pt"
    torch.save(residual(), path)
    size = ["--input-size", "17x15", "--classes", "a,b,c,d,e"]
    assert run(["inspect", str(path), *size]) == ExitCode.BAD_INPUT
    assert "warning:" not in capsys.readouterr().err
    assert run(["inspect", str(path), *size, "--trust-pickle"]) == ExitCode.OK
    told = capsys.readouterr()
    assert "warning: --trust-pickle runs whatever code" in told.err
    assert "pickled module" in told.out
