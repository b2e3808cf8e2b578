"""TorchScript files: traced and scripted, without module names, and never with effects outside the program."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import CARD, SAID, residual, rewrite, save_script, scripted, tap_sizes, traced
from networks import CASES, Inverted, Norms, made
from torch import nn

from edgekit.compress.cost import measure_cost
from edgekit.errors import BadInputError
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.tap import forward_with_tap


def refusal(path: Path, options: LoadOptions = SAID) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        load_model(path, options)
    return caught.value


def said(classes: int, side: tuple[int, int]) -> LoadOptions:
    card = {"input": {"height": side[0], "width": side[1]}, "classes": [str(index) for index in range(classes)]}
    return LoadOptions(card=card)


@pytest.mark.parametrize("form", ["traced", "scripted"])
@pytest.mark.parametrize("name", [name for name in CASES if name != "norms"])
def test_every_network_answers_as_before(tmp_path: Path, name: str, form: str) -> None:
    case = CASES[name]
    model = case.make()
    script = traced(model, case.images(2)) if form == "traced" else scripted(model)
    images = case.images(5, seed=3)
    loaded = load_model(save_script(script, tmp_path / "m"), said(model(images).shape[1], case.side)).model
    assert torch.allclose(loaded(images), model(images), atol=1e-5)
    assert measure_cost(loaded, (3, *case.side)) == measure_cost(model, (3, *case.side))
    # Modules with parameters keep their names; those without have the names of their operations.
    there, here = tap_sizes(model, images), tap_sizes(loaded, images)
    weighted = [tap for tap in there if list(model.get_submodule(tap).parameters(recurse=False))]
    assert weighted
    for tap in weighted:
        expected = forward_with_tap(model, tap, images).activation
        assert torch.allclose(forward_with_tap(loaded, tap, images).activation, expected, atol=1e-5), tap
    assert set(there.values()) <= set(here.values())


def test_control_flow_that_cannot_be_turned_into_a_graph(tmp_path: Path) -> None:
    error = refusal(save_script(scripted(made(Norms)), tmp_path / "m"), said(4, (14, 14)))
    assert "cannot be turned into a graph" in error.message
    assert "torch.export" in (error.hint or "")


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        if bool(x.mean() > 0):
            x = x * 2
        return self.fc(x.mean((2, 3)))


def test_a_branch_on_data_is_not_lost_in_silence(tmp_path: Path) -> None:
    assert refusal(save_script(scripted(Branches().eval()), tmp_path / "m")).hint


def test_a_network_traced_in_training_mode(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(Inverted().train(), torch.rand(2, 3, 17, 15), check_trace=False)
    assert "training mode" in refusal(save_script(script, tmp_path / "m"), said(4, (17, 15))).message


def test_a_scripted_network_left_in_training_mode_is_put_in_evaluation(tmp_path: Path) -> None:
    model = made(Inverted)
    loaded = load_model(save_script(scripted(model.train()), tmp_path / "m"), said(4, (17, 15)))
    images = torch.rand(3, 3, 17, 15)
    assert torch.allclose(loaded.model(images), model.eval()(images), atol=1e-5)


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).reshape(2, 4, -1).mean(2))


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    assert refusal(save_script(scripted(FixedBatch().eval()), tmp_path / "m")).hint


def test_the_size_must_be_said(tmp_path: Path) -> None:
    path = save_script(traced(residual(), torch.rand(2, 3, 17, 15)), tmp_path / "m")
    assert "size of its input" in refusal(path, LoadOptions()).message
    assert "no card" in refusal(path, LoadOptions(card={"input": {"height": 17, "width": 15}})).message


def test_the_card_in_the_file(tmp_path: Path) -> None:
    script = traced(residual(), torch.rand(2, 3, 17, 15))
    path = save_script(script, tmp_path / "m", {"edgekit.card.json": json.dumps(CARD.to_dict())})
    assert load_model(path).card == CARD


def test_half_precision_is_raised_and_said(tmp_path: Path) -> None:
    lowered = residual().half()
    path = save_script(scripted(lowered), tmp_path / "m")
    loaded = load_model(path, SAID)
    assert "float16" in "".join(loaded.notes)
    images = torch.rand(2, 3, 17, 15)
    assert torch.allclose(loaded.model(images), lowered.float()(images), atol=1e-5)


class Writes(Branches):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "it-ran")
        return self.fc(self.features(x).mean((2, 3)))


class Reads(Branches):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).mean((2, 3))) + torch.from_file("it-ran", True, 5)


@pytest.mark.parametrize(("factory", "word"), [(Writes, "save"), (Reads, "from_file")])
def test_effects_outside_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: Any, word: str) -> None:
    monkeypatch.chdir(tmp_path)
    script = scripted(factory().eval())
    path = save_script(script, tmp_path / "m")
    assert refusal(path).found == word
    assert not (tmp_path / "it-ran").exists()
    script(torch.rand(2, 3, 8, 8))
    assert (tmp_path / "it-ran").exists(), "TorchScript can do that"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (b'  _0 = "save"  # load', None),
        (b"  x : __torch__.torchvision.ops.misc.load.Bar", None),
        (b"  y = torch.relu(x)", None),
        (b"  x : __torch__.torch.classes.foo.Bar", "classes"),
        (b"  y = ops.mine.run(x)", "ops.mine"),
        (b"  y = x.save('file')", "save"),
        (b"  y = (x.save # text\n  ('file'))", "save"),
        (b"  y = (x . save \\\n  ('file'))", "save"),
        (b"  __torch__ = x\n  __torch__.save('file')", "save"),
        (b"  x__torch__.save('file')", "save"),
        (b"  y = 'a\\\nb' + torch.save(x, 'file')", "save"),
        (b"  y = rpc_async('w', f)", "rpc_async"),
    ],
)
def test_the_source_is_searched(tmp_path: Path, code: bytes, found: str | None) -> None:
    path = save_script(traced(residual(), torch.rand(2, 3, 17, 15)), tmp_path / "m")
    # Torch reads the source of a class only where the model has one; ours is never run.
    rewrite(path, {"code/__torch__/note.py": code})
    if found is None:
        load_model(path, SAID)
    else:
        assert refusal(path).found == found
