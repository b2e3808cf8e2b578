"""Is a surgery the removal of channels and nothing else?

A network that lost channels must answer exactly as the whole network does when those channels are silenced: their
producers put out zero and their consumers multiply them by zero. The dependency graph can be wrong without any
layer ceasing to fit, as when a shortcut pads channels and the rest of the network is left one offset further, or when
the columns of a flattened head are kept in the wrong order. Comparing answers finds every such case.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgekit.errors import BadInputError
from edgekit.teacher.surgery import LayerCut, Surgery, apply_surgery, channel_counts

__all__ = ["is_pure_removal", "silenced_copy"]

_SEED = 20_540
_PROBES = 4
# Where few channels are left, random weights may well silence all of them behind their ReLU: then others are drawn.
_DRAWS = 8
# Both networks are the same sums in another order, in float64: what differs beyond this is no rounding.
_TOLERANCE = 1e-7


def is_pure_removal(model: nn.Module, surgery: Surgery, shape: tuple[int, int, int]) -> bool:
    """Whether `surgery` applied to `model` equals `model` with the removed channels silenced.

    Both sides run in float64 on random probes with random weights, so that dead or symmetric weights of the real
    network cannot hide a wrong channel.

    Args:
        model: The whole network; it is not changed.
        surgery: Indices into `model`.
        shape: Channels, height and width of the input.

    Returns:
        False when the answers differ, or when the cut network does not run at all.

    Raises:
        BadInputError: The network answers every probe alike, however it is randomised: nothing could be told.
    """
    for draw in range(_DRAWS):
        whole = _randomised_copy(model, _SEED + draw)
        generator = torch.Generator().manual_seed(_SEED + draw)
        probes = torch.randn(_PROBES, *shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            expected = silenced_copy(whole, surgery)(probes)
        scale = expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
        if (expected - expected[:1]).abs().max() > 1e3 * _TOLERANCE * scale:
            return _answers(whole, surgery, probes, expected, scale)
    raise BadInputError(
        "The pruning cannot be checked: with random weights the network answers every image alike.",
        hint="set compress.prune.rate to 0 for this network",
    )


def _answers(
    whole: nn.Module, surgery: Surgery, probes: torch.Tensor, expected: torch.Tensor, scale: torch.Tensor
) -> bool:
    """Whether `whole` answers the probes as expected once it is cut, which is done to it."""
    try:
        apply_surgery(whole, surgery)
        with torch.no_grad():
            found = whole(probes)
    except (BadInputError, RuntimeError, ValueError, IndexError):
        # Layers that no longer fit are one of the two ways to be wrong.
        return False
    return found.shape == expected.shape and bool(((found - expected).abs() <= _TOLERANCE * scale).all())


def _randomised_copy(model: nn.Module, seed: int) -> nn.Module:
    """A float64 copy in evaluation mode whose layers have random weights of unit gain."""
    generator = torch.Generator().manual_seed(seed)
    result = copy.deepcopy(model).double().cpu().eval().requires_grad_(False)

    def normal(shape: torch.Size, scale: float) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) * scale

    def uniform(shape: torch.Size) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5

    for module in result.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for name, tensor in (("weight", module.weight), ("running_var", module.running_var)):
                if tensor is not None:
                    getattr(module, name).copy_(uniform(tensor.shape))
            for tensor in (module.bias, module.running_mean):
                if tensor is not None:
                    tensor.copy_(normal(tensor.shape, 0.3))
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            # A weight may be a buffer: a fixed placement of channels, cut like any other.
            weight, bias = module.weight, module.bias
            weight.copy_(normal(weight.shape, (2 / weight[0].numel()) ** 0.5))
            if bias is not None:
                bias.copy_(normal(bias.shape, 0.3))
    return result


def silenced_copy(model: nn.Module, surgery: Surgery) -> nn.Module:
    """A copy of `model`, whole in size, in which every channel that `surgery` removes is zero and ignored."""
    result = copy.deepcopy(model)
    with torch.no_grad():
        for name, cut in surgery.layers.items():
            _silence(result.get_submodule(name), cut)
    return result


def _silence(module: nn.Module, cut: LayerCut) -> None:
    counts = channel_counts(module)
    assert counts is not None  # a surgery names no other layers
    gone_out = _complement(cut.out_kept, counts[0])
    gone_in = _complement(cut.in_kept, counts[1])
    for name in ("weight", "bias", "running_mean"):
        tensor = getattr(module, name, None)
        if tensor is None:
            continue
        if name != "weight" or isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            tensor[gone_out] = 0
        elif isinstance(module, nn.ConvTranspose2d):
            _silence_weight(tensor, gone_in, gone_out, module.groups)
        else:
            _silence_weight(tensor, gone_out, gone_in, getattr(module, "groups", 1))


def _silence_weight(weight: torch.Tensor, rows: list[int], columns: list[int], groups: int) -> None:
    weight[rows] = 0
    rows_each, columns_each = len(weight) // groups, weight.shape[1]
    for column in columns:
        group = column // columns_each
        weight[group * rows_each : (group + 1) * rows_each, column % columns_each] = 0


def _complement(kept: tuple[int, ...] | None, count: int) -> list[int]:
    return [] if kept is None else sorted(set(range(count)) - set(kept))
