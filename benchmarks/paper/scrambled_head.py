"""A fault of the released code of Park et al. 2020, made again: the classifier behind a pruned, flattened map.

A map of C channels and P cells is flattened channel by channel, so that column c * P + p of the first linear layer
belongs to channel c. The released code keeps the columns of `mask.repeat(P)`, as if they were ordered cell by cell:
the layer has the right size and the network runs, but nearly every column meets a channel and a cell that it was not
learned for. What is measured with it says how much of the published gap is this fault rather than pruning.

It needs a network whose head flattens a map of more than one cell, as VGG does. Behind global average pooling each
channel is one column, both orders are the same, and the fault has no analogue.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from edgekit.errors import BadInputError
from edgekit.teacher.surgery import LayerCut, Surgery, channel_counts

__all__ = ["scrambled_head"]


def scrambled_head(teacher: nn.Module, surgery: Surgery, student: nn.Module) -> nn.Module:
    """A copy of `student` whose first linear layer has the teacher's columns that the released code would choose.

    Args:
        teacher: The whole network.
        surgery: What was cut from it, relative to it.
        student: `teacher` after `surgery` and before any training; it is not changed.

    Raises:
        BadInputError: No linear layer follows a pruned and flattened map of several cells.
    """
    name, cut, kept, channels = _flattened_head(teacher, surgery)
    original = teacher.get_submodule(name)
    mask = torch.zeros(channels, dtype=torch.bool)
    mask[list(kept)] = True
    columns = mask.repeat(original.in_features // channels).nonzero().flatten()
    weight = original.weight.detach().index_select(1, columns.to(original.weight.device))
    if cut.out_kept is not None:
        weight = weight[list(cut.out_kept)]
    scrambled = copy.deepcopy(student)
    with torch.no_grad():
        scrambled.get_submodule(name).weight.copy_(weight)
    return scrambled


def _flattened_head(teacher: nn.Module, surgery: Surgery) -> tuple[str, LayerCut, tuple[int, ...], int]:
    """The linear layer's name and cut, the channels left of the map in front of it, and how many there were."""
    for name, module in teacher.named_modules():
        cut = surgery.layers.get(name)
        if not isinstance(module, nn.Linear) or cut is None or cut.in_kept is None:
            continue
        for kept, channels in _cut_maps(teacher, surgery):
            cells = module.in_features // channels
            aligned = tuple(channel * cells + cell for channel in kept for cell in range(cells))
            if cells > 1 and cells * channels == module.in_features and aligned == cut.in_kept:
                return name, cut, kept, channels
    raise BadInputError(
        "The released code's fault has no analogue in this network.",
        expected="a linear layer behind a pruned, flattened map of several cells, as in VGG",
        found="no such layer among those that were cut",
        hint="choose a network that flattens its last map instead of pooling it",
    )


def _cut_maps(teacher: nn.Module, surgery: Surgery) -> Iterator[tuple[tuple[int, ...], int]]:
    """Kept channels and channel count of every convolution that lost outputs, last first."""
    for name, module in reversed(list(teacher.named_modules())):
        cut = surgery.layers.get(name)
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and cut is not None and cut.out_kept is not None:
            counts = channel_counts(module)
            assert counts is not None  # a convolution has them
            yield cut.out_kept, counts[0]
