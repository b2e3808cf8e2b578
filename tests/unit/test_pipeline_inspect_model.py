"""What `edgekit inspect` says about models of every format, with and without a card."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import pytest
import torch
from model_files import BY_NAME, CARD, MAKERS, exported, residual, save_script, traced

from edgekit import api
from edgekit.cli.registry import COMMANDS
from edgekit.compress.cost import measure_cost
from edgekit.errors import BadInputError
from edgekit.pipeline.inspect import Found
from edgekit.teacher.capabilities import COMPRESS_REMEDY
from edgekit.teacher.formats.registry import FORMATS
from edgekit.teacher.load_options import LoadOptions


def table(found: Found, first: str) -> dict[str, tuple[object, ...]]:
    (chosen,) = [item for item in found.tables if item.header[0] == first]
    return {str(row[0]): tuple(row[1:]) for row in chosen.rows}


@pytest.mark.parametrize("name", FORMATS.names())
def test_every_format_is_told_with_what_can_be_done(tmp_path: Path, name: str) -> None:
    made_of = MAKERS[name](tmp_path)
    found = api.inspect(made_of.path, load=made_of.options)
    assert found.kind == "model"
    assert found.facts["format"] == FORMATS.load(name).name
    cost = measure_cost(made_of.module, (3, *made_of.side)) if made_of.taps[0] == "layer2" else None
    if cost is not None:
        assert (found.facts["parameters"], found.facts["multiply-accumulates"]) == (cost.parameters, cost.macs)
    assert found.facts["tap"] == made_of.taps[1]
    assert found.facts["classes"] == "a, b, c, d, e"
    taps = table(found, "possible tap")
    assert made_of.taps[1] in taps
    abilities = table(found, "what can be done")
    assert list(abilities) == ["explain", "export", "calibrate", "prune", "fine-tune"]
    able = FORMATS.load(name).capabilities
    assert abilities["prune"] == (("yes", "") if able.prune else ("no", COMPRESS_REMEDY))
    assert abilities["explain"] == ("yes", "")


def test_a_program_without_a_card_tells_what_it_knows(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    torch.export.save(exported(residual(), torch.rand(2, 3, 17, 15)), path)
    found = api.inspect(path)
    assert found.facts["input"] == "17x15"
    assert "--mean" in str(found.facts["normalisation"])
    assert "--classes" in str(found.facts["classes"])
    assert str(found.facts["classes"]).startswith("5")
    assert table(found, "possible tap")["layer2"] == ("9x8", 10)


def test_torchscript_without_a_card_needs_the_size_alone(tmp_path: Path) -> None:
    path = save_script(traced(residual(), torch.rand(2, 3, 17, 15)), tmp_path / "m.pt")
    with pytest.raises(BadInputError, match="size of its input"):
        api.inspect(path)
    found = api.inspect(path, load=LoadOptions(card={"input": {"height": 17, "width": 15}}))
    assert table(found, "possible tap")["relu__4"] == ("9x8", 10)


def test_a_state_dict_without_a_card_is_refused_as_before(tmp_path: Path) -> None:
    torch.save(residual().state_dict(), tmp_path / "m.pt")
    with pytest.raises(BadInputError, match="no card"):
        api.inspect(tmp_path / "m.pt", load=LoadOptions(arch=BY_NAME.arch))


def test_a_tap_that_is_none_still_shows_the_others(tmp_path: Path) -> None:
    made_of = MAKERS["exported-program"](tmp_path)
    found = api.inspect(made_of.path, load=LoadOptions(card={**CARD.to_dict(), "tap": "no.such"}))
    assert str(found.facts["tap"]).startswith("none: ")
    assert "layer2" in table(found, "possible tap")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_takes_a_model_can_be_trusted_with_a_pickle(name: str) -> None:
    module_name, _, attribute = COMMANDS[name].target.partition(":")
    command: click.Command = getattr(importlib.import_module(module_name), attribute)
    options = {parameter.name for parameter in command.params}
    assert ("arch" in options) == ("trust_pickle" in options)
