"""A graph from the taps on and none before them, where all the work is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from edgekit.teacher.tap import Tap, find_module

__all__ = ["graph_from"]


@contextmanager
def graph_from(model: nn.Module, taps: Sequence[Tap], *, begin: bool = True) -> Iterator[None]:
    """Let a network without gradients have a graph from each tap on; with `begin` False, none at all."""

    def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        # A clone, since what follows the tap may work in place, which a leaf does not allow. An output that has a
        # graph lies behind another tap, whose gradient goes through it.
        return output if output.requires_grad else output.detach().requires_grad_(begin).clone()

    with ExitStack() as hooks:
        for tap in taps:
            handle = find_module(model, tap.name).register_forward_hook(hook)
            hooks.callback(handle.remove)
        yield
