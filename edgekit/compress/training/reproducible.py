"""A piece of training that gives the same bytes again, and leaves no trace in the process around it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["channels_last", "evaluating", "generator_states", "reproducible", "restore_generators"]

_CPU = torch.device("cpu")
# Without a fixed workspace cuBLAS may sum in another order from run to run; torch refuses to be deterministic then.
_CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Ranks draw their dropout apart from one another, and seeds next to each other stay apart too.
_APART = 1_000_003


@contextmanager
def reproducible(seed: int, threads: int, device: torch.device = _CPU, rank: int = 0) -> Iterator[torch.Generator]:
    """Fix every source of variation, and restore what was set before.

    On a GPU some operations (the gradients of certain poolings) have no deterministic form; torch warns of them and
    they stay as they are. Nothing here has run on a GPU yet.

    Args:
        seed: Seeds the yielded generator, and torch's global ones, from which dropout draws.
        threads: Torch threads; sums are split among them, so another number gives other last bits. 0 keeps the
            process's setting.
        device: Where the student is.
        rank: Of this process among several; the yielded generator is the same in all of them.
    """
    on_gpu = device.type == "cuda"
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    former_threads = torch.get_num_threads()
    workspace = os.environ.get(_CUBLAS[0])
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        try:
            if on_gpu:
                os.environ.setdefault(*_CUBLAS)
            torch.use_deterministic_algorithms(True, warn_only=on_gpu)
            if threads:
                torch.set_num_threads(threads)
            torch.default_generator.manual_seed(seed + _APART * rank)
            if on_gpu:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed + _APART * rank)
            yield torch.Generator().manual_seed(seed)
        finally:
            torch.set_num_threads(former_threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            if on_gpu and workspace is None:
                os.environ.pop(_CUBLAS[0], None)


def generator_states(generator: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
    """Where all generators stand, uint8: the run's own, torch's, and on a GPU the GPU's."""
    states = {"own": generator.get_state(), "torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_generators(states: Mapping[str, torch.Tensor], generator: torch.Generator, device: torch.device) -> None:
    """Put all generators where `generator_states` found them."""
    generator.set_state(states["own"])
    torch.set_rng_state(states["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


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
