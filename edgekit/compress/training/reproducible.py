"""A piece of training that gives the same bytes again, and leaves no trace in the process around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["channels_last", "evaluating", "reproducible"]


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[torch.Generator]:
    """Fix every source of variation on the CPU, and restore what was set before.

    Args:
        seed: Seeds the yielded generator, and torch's global one, from which dropout draws.
        threads: Torch threads; sums are split among them, so another number gives other last bits. 0 keeps the
            process's setting.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    former_threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.use_deterministic_algorithms(True)
            if threads:
                torch.set_num_threads(threads)
            torch.default_generator.manual_seed(seed)
            yield torch.Generator().manual_seed(seed)
        finally:
            torch.set_num_threads(former_threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@contextmanager
def channels_last(*models: nn.Module) -> Iterator[None]:
    """Keep the models' weights in the layout that CPU convolutions are a quarter faster in; put them back after."""
    try:
        for model in models:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        yield
    finally:
        for model in models:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep `model` in evaluation mode and without parameter gradients; its own modes come back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires in gradients:
            parameter.requires_grad_(requires)
