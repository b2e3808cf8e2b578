"""The released code's scrambled head, as the paper's benchmark makes it again: it runs, and is wrong."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pruning_networks import SHAPE, ResidualLike, VggLike, images, made
from torch import nn

from edgekit.compress.options import PruneOptions
from edgekit.compress.pruning.equivalence import is_pure_removal, silenced_copy
from edgekit.compress.pruning.structured import Pruned, prune
from edgekit.errors import BadInputError
from edgekit.teacher.surgery import LayerCut, Surgery

SOURCE = Path(__file__).resolve().parents[2] / "benchmarks" / "paper" / "scrambled_head.py"


def loaded() -> Callable[[nn.Module, Surgery, nn.Module], nn.Module]:
    spec = importlib.util.spec_from_file_location("scrambled_head", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.scrambled_head


scrambled_head = loaded()


def pruned_vgg(ignore: tuple[str, ...] = ("classifier.*",)) -> tuple[nn.Module, Pruned]:
    teacher = made(VggLike)
    return teacher, prune(teacher, PruneOptions(rate=0.3, ignore=ignore), SHAPE)


@pytest.mark.parametrize("ignore", [("classifier.*",), ()])
def test_its_columns_are_those_of_the_tiled_mask(ignore: tuple[str, ...]) -> None:
    teacher, pruned = pruned_vgg(ignore)
    before = {key: value.clone() for key, value in pruned.model.state_dict().items()}
    wrong = scrambled_head(teacher, pruned.surgery, pruned.model)
    kept = pruned.surgery.layers["features.2.0"].out_kept
    rows = pruned.surgery.layers["classifier.0"].out_kept or tuple(range(14))
    assert kept is not None
    columns = [cell * 10 + channel for cell in range(36) for channel in range(10) if channel in kept]
    expected = teacher.classifier[0].weight[list(rows)][:, columns]
    assert torch.equal(wrong.get_submodule("classifier.0").weight, expected)
    after = wrong.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items() if key != "classifier.0.weight")
    assert all(torch.equal(value, before[key]) for key, value in pruned.model.state_dict().items())


def test_it_runs_and_fails_the_equivalence_that_ours_passes() -> None:
    teacher, pruned = pruned_vgg()
    wrong = scrambled_head(teacher, pruned.surgery, pruned.model)
    expected = silenced_copy(teacher, pruned.surgery)(images())
    assert wrong(images()).shape == expected.shape
    torch.testing.assert_close(pruned.model(images()), expected, rtol=1e-5, atol=1e-6)
    assert (wrong(images()) - expected).abs().max() > 0.1 * expected.abs().max()
    # The check by which every surgery of ours has to go, given the released code's choice as a surgery.
    kept = pruned.surgery.layers["features.2.0"].out_kept
    assert kept is not None
    tiled = tuple(cell * 10 + channel for cell in range(36) for channel in range(10) if channel in kept)
    faulty = Surgery({**pruned.surgery.layers, "classifier.0": LayerCut(in_kept=tiled)})
    assert is_pure_removal(teacher, pruned.surgery, SHAPE)
    assert not is_pure_removal(teacher, faulty, SHAPE)


def test_a_network_that_pools_its_map_has_no_such_fault() -> None:
    teacher = made(ResidualLike)
    pruned = prune(teacher, PruneOptions(rate=0.3), SHAPE)
    with pytest.raises(BadInputError, match="no analogue"):
        scrambled_head(teacher, pruned.surgery, pruned.model)
