"""Recorded structured pruning: which channels of the original network are left, layer by layer.

A pruned network is stored as its architecture's name, this record and its weights, never as a pickled module. Applied
to a fresh instance of the architecture the record gives the pruned architecture, ready for `load_state_dict`; applied
to the teacher itself it gives the pruned network before fine-tuning, so a surgery can be replayed and checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from edgekit.errors import BadInputError

__all__ = ["LayerCut", "Surgery", "apply_surgery", "channel_counts"]

_FORMAT = "edgekit.surgery/1"
_SUPPORTED = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.Linear)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class LayerCut:
    """What is left of one layer, as indices into the original network.

    Attributes:
        out_kept: Kept output channels, strictly increasing; None keeps all. Batch normalisation has only these.
        in_kept: Kept input channels (input features of a linear layer); None keeps all.
    """

    out_kept: tuple[int, ...] | None = None
    in_kept: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Surgery:
    """Every layer that was cut, by module name. Layers that are not named are whole."""

    layers: Mapping[str, LayerCut]

    def to_dict(self) -> dict[str, Any]:
        """Form of plain lists and text, for JSON and for checkpoints read with `weights_only`."""
        layers = {
            name: {
                "out": None if cut.out_kept is None else list(cut.out_kept),
                "in": None if cut.in_kept is None else list(cut.in_kept),
            }
            for name, cut in sorted(self.layers.items())
        }
        return {"format": _FORMAT, "layers": layers}

    @classmethod
    def from_dict(cls, raw: object, *, where: str) -> Surgery:
        """Check and build a surgery from untrusted data.

        Raises:
            BadInputError: A key is missing or unknown, or indices are not whole numbers in increasing order.
        """
        if not isinstance(raw, Mapping) or set(raw) != {"format", "layers"} or raw["format"] != _FORMAT:
            raise BadInputError(
                "A recorded pruning has an unknown form.", where=where, expected=f"format {_FORMAT!r} and layers"
            )
        if not isinstance(raw["layers"], Mapping):
            raise BadInputError("A recorded pruning is malformed.", where=where, expected="a mapping of layers")
        layers: dict[str, LayerCut] = {}
        for name, cut in raw["layers"].items():
            if not isinstance(name, str) or not isinstance(cut, Mapping) or set(cut) != {"out", "in"}:
                raise BadInputError(
                    "A recorded pruning is malformed.", where=f"{where}: {name!r}", expected="entries 'out' and 'in'"
                )
            layers[name] = LayerCut(
                out_kept=_checked_indices(cut["out"], f"{where}: {name}.out"),
                in_kept=_checked_indices(cut["in"], f"{where}: {name}.in"),
            )
        return cls(layers)

    def after(self, earlier: Surgery) -> Surgery:
        """The one surgery that equals `earlier` followed by this one, which was recorded on the network it left.

        Raises:
            BadInputError: An index of this surgery is not there any more after `earlier`.
        """
        layers = dict(earlier.layers)
        for name, cut in self.layers.items():
            first = earlier.layers.get(name, LayerCut())
            layers[name] = LayerCut(
                out_kept=_composed(first.out_kept, cut.out_kept, f"{name}.out"),
                in_kept=_composed(first.in_kept, cut.in_kept, f"{name}.in"),
            )
        return Surgery(layers)


def _checked_indices(raw: object, where: str) -> tuple[int, ...] | None:
    if raw is None:
        return None
    if not isinstance(raw, (list, tuple)) or not raw or not all(type(index) is int for index in raw):
        raise BadInputError(
            "A recorded pruning holds unusable channel indices.",
            where=where,
            expected="a non-empty list of whole numbers, or nothing",
            found=str(raw)[:80],
        )
    indices = tuple(raw)
    if indices[0] < 0 or any(later <= earlier for earlier, later in pairwise(indices)):
        raise BadInputError(
            "A recorded pruning holds unusable channel indices.",
            where=where,
            expected="indices from 0 in strictly increasing order",
            found=str(list(indices))[:80],
        )
    return indices


def _composed(first: tuple[int, ...] | None, then: tuple[int, ...] | None, where: str) -> tuple[int, ...] | None:
    if first is None or then is None:
        return then if first is None else first
    if then and then[-1] >= len(first):
        raise BadInputError(
            "Two recorded prunings do not follow each other.",
            where=where,
            expected=f"indices below {len(first)}",
            found=str(then[-1]),
        )
    return tuple(first[index] for index in then)


def channel_counts(module: nn.Module) -> tuple[int, int] | None:
    """Output and input channels of a layer a surgery can cut, None for any other module."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        return module.out_channels, module.in_channels
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, _BATCH_NORMS):
        return module.num_features, module.num_features
    return None


def apply_surgery(model: nn.Module, surgery: Surgery) -> None:
    """Cut the layers of `model`, an instance of the original architecture, in place.

    Parameters and buffers are sliced and the layers' own counts corrected. Whether neighbouring layers still fit
    each other shows in a forward pass, not here.

    Raises:
        BadInputError: A layer does not exist or cannot be cut, an index is out of range, or a grouped convolution
            would be left with groups of different sizes. Nothing is changed then.
    """
    planned = [(name, _module(model, name), cut) for name, cut in surgery.layers.items()]
    for name, module, cut in planned:
        _check_cut(name, module, cut)
    for _, module, cut in planned:
        _cut(module, cut)


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        module = model.get_submodule(name)
    except AttributeError as cause:
        raise BadInputError("A recorded pruning names a layer the network does not have.", where=name) from cause
    if channel_counts(module) is None:
        raise BadInputError(
            "A recorded pruning names a layer that cannot be cut.",
            where=name,
            expected="one of " + ", ".join(kind.__name__ for kind in _SUPPORTED),
            found=type(module).__name__,
        )
    return module


def _check_cut(name: str, module: nn.Module, cut: LayerCut) -> None:
    counts = channel_counts(module)
    assert counts is not None  # _module lets nothing else through
    for side, kept, count in (("out", cut.out_kept, counts[0]), ("in", cut.in_kept, counts[1])):
        if kept is not None and not (kept and kept[-1] < count):
            raise BadInputError(
                "A recorded pruning does not fit the network.",
                where=f"{name}.{side}",
                expected=f"at least one channel index, all below {count}",
                found=str(kept[-1:]),
            )
    if isinstance(module, _BATCH_NORMS) and cut.in_kept is not None:
        raise BadInputError("Batch normalisation is cut by its output channels only.", where=f"{name}.in")
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.groups > 1:
        _grouped_indices(name, module, cut)


def _cut(module: nn.Module, cut: LayerCut) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        _cut_convolution(module, cut)
    elif isinstance(module, nn.Linear):
        _keep(module, "weight", 0, cut.out_kept)
        _keep(module, "bias", 0, cut.out_kept)
        _keep(module, "weight", 1, cut.in_kept)
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _BATCH_NORMS):
        for name in ("weight", "bias", "running_mean", "running_var"):
            _keep(module, name, 0, cut.out_kept)
        module.num_features = module.num_features if cut.out_kept is None else len(cut.out_kept)


def _cut_convolution(module: nn.Conv2d | nn.ConvTranspose2d, cut: LayerCut) -> None:
    out_channels = module.out_channels if cut.out_kept is None else len(cut.out_kept)
    in_channels = module.in_channels if cut.in_kept is None else len(cut.in_kept)
    if module.groups > 1:
        # Read before anything changes: the indices refer to the original layer.
        parts = _grouped_indices("", module, cut)
        weight = torch.cat([module.weight.detach()[list(rows)][:, list(columns)] for rows, columns in parts])
        _replace(module, "weight", weight)
        module.groups = len(parts)
    else:
        # A transposed convolution stores [in, out, ...], an ordinary one [out, in, ...].
        axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0
        _keep(module, "weight", axis, cut.out_kept)
        _keep(module, "weight", 1 - axis, cut.in_kept)
    _keep(module, "bias", 0, cut.out_kept)
    module.out_channels, module.in_channels = out_channels, in_channels


def _grouped_indices(
    name: str, module: nn.Conv2d | nn.ConvTranspose2d, cut: LayerCut
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """For every surviving group: its rows of the weight, and its columns counted within the group.

    A group that keeps neither inputs nor outputs disappears, which is how a depthwise convolution is cut.
    """
    out_kept = cut.out_kept if cut.out_kept is not None else tuple(range(module.out_channels))
    in_kept = cut.in_kept if cut.in_kept is not None else tuple(range(module.in_channels))
    transposed = isinstance(module, nn.ConvTranspose2d)
    rows, columns = (in_kept, out_kept) if transposed else (out_kept, in_kept)
    rows_each = module.weight.shape[0] // module.groups
    columns_each = module.weight.shape[1]
    rows_of = _by_group(rows, rows_each)
    columns_of = _by_group(columns, columns_each)
    sizes = {(len(rows_of.get(group, ())), len(columns_of.get(group, ()))) for group in {*rows_of, *columns_of}}
    if len(sizes) != 1 or 0 in next(iter(sizes)):
        raise BadInputError(
            "A recorded pruning would leave a grouped convolution with unequal groups.",
            where=name,
            expected="as many outputs and as many inputs left in every group that is left",
            found="(rows, columns) per group: " + ", ".join(map(str, sorted(sizes)[:4])),
        )
    return [
        (tuple(rows_of[group]), tuple(index - group * columns_each for index in columns_of[group]))
        for group in sorted(rows_of)
    ]


def _by_group(indices: Sequence[int], each: int) -> dict[int, list[int]]:
    result: dict[int, list[int]] = {}
    for index in indices:
        result.setdefault(index // each, []).append(index)
    return result


def _keep(module: nn.Module, name: str, axis: int, kept: tuple[int, ...] | None) -> None:
    """Slice a parameter or buffer of `module`, leaving alone what is None or kept whole."""
    tensor = getattr(module, name)
    if tensor is None or kept is None:
        return
    _replace(module, name, tensor.detach().index_select(axis, torch.tensor(kept, device=tensor.device)))


def _replace(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Put `value` where the parameter or buffer was; a fixed weight kept as a buffer stays one."""
    former = getattr(module, name)
    if isinstance(former, nn.Parameter):
        value = nn.Parameter(value, requires_grad=former.requires_grad)
    setattr(module, name, value)
