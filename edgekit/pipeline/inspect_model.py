"""What a model file holds and what the toolchain can do with it, as far as the file itself tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgekit.compress.cost import measure_cost
from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.discovery import resolve_taps, tap_candidates
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import Uncarded, open_model
from edgekit.teacher.pretrained import temporary_model_file

__all__ = ["ModelDescription", "describe_model"]

_Table = tuple[Sequence[str], Sequence[Sequence[object]]]
_LONGEST_ARGUMENTS = 120


@dataclass(frozen=True)
class ModelDescription:
    """What is known of a model.

    Attributes:
        facts: Name to value, to be told before the card.
        card: Its card, or None where it has none.
        last_facts: To be told after the card.
        tables: Header and rows.
    """

    facts: Mapping[str, object]
    card: ModelCard | None
    last_facts: Mapping[str, object]
    tables: tuple[_Table, ...]


def describe_model(path: Path, load: LoadOptions | None = None) -> ModelDescription:
    """Load a model and look at it; a missing card is told and no error, where the file tells the input's size.

    Raises:
        BadInputError: As `load_model`.
        UnavailableError: As `load_model`.
    """
    load = load or LoadOptions()
    with temporary_model_file(path, load) as file:
        opened = open_model(file, load)
    if isinstance(opened, Uncarded):
        return _uncarded(opened)
    return _carded(opened)


def _carded(loaded: LoadedModel) -> ModelDescription:
    shape = loaded.card.input.shape
    facts: dict[str, object] = {
        "format": loaded.format,
        "architecture": _architecture(loaded),
        "pruned": "yes" if loaded.surgery is not None else "no",
        **_cost(loaded.model, shape),
    }
    last: dict[str, object] = {
        "tap": _tap(loaded, shape),
        "sha256": loaded.digest,
        **_notes(loaded.notes),
    }
    return ModelDescription(
        facts, loaded.card, last, (_taps(loaded.model, shape), _abilities(loaded.capabilities.to_rows()))
    )


def _uncarded(opened: Uncarded) -> ModelDescription:
    given = opened.entries.get("input") or {}
    height, width = opened.size or (given.get("height"), given.get("width"))
    if not isinstance(height, int) or not isinstance(width, int):
        raise opened.problem
    shape = (3, height, width)
    facts: dict[str, object] = {
        "format": opened.format,
        "architecture": opened.arch if opened.capabilities.finetune else "in the file",
        **_cost(opened.model, shape),
    }
    with torch.no_grad():
        answer = opened.model(_probe(shape))
    if not isinstance(answer, torch.Tensor) or answer.dim() != 2:
        raise opened.problem
    normalised = "as given" if {"mean", "std"} <= set(given) else "unknown: say it with --mean and --std"
    named = f"{answer.shape[1]}"
    facts |= {
        "input": f"{height}x{width}",
        "normalisation": normalised,
        "classes": named if "classes" in opened.entries else f"{named}, names unknown: say them with --classes",
    }
    return ModelDescription(
        facts, None, _notes(opened.notes), (_taps(opened.model, shape), _abilities(opened.capabilities.to_rows()))
    )


def _tap(loaded: LoadedModel, shape: tuple[int, int, int]) -> str:
    try:
        return ", ".join(tap.name for tap in resolve_taps(loaded.model, loaded.card, _probe(shape)))
    except BadInputError as cause:
        # Whoever asks what could be a tap must be shown the table, above all where the one that was named is none.
        return f"none: {cause.message}"


def _architecture(loaded: LoadedModel) -> str:
    if not loaded.storable:
        return "in the file"
    arguments = str(dict(loaded.arguments)) if loaded.arguments else ""
    if len(arguments) > _LONGEST_ARGUMENTS:
        arguments = arguments[:_LONGEST_ARGUMENTS] + " ..."
    return f"{loaded.arch} {arguments}".rstrip()


def _cost(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, object]:
    try:
        cost = measure_cost(model, shape)
    except RuntimeError as cause:
        raise BadInputError(
            "The network does not run on its input.", expected=f"float32 [1, {shape[0]}, {shape[1]}, {shape[2]}]"
        ) from cause
    return {"parameters": cost.parameters, "multiply-accumulates": cost.macs}


def _notes(notes: Sequence[str]) -> dict[str, object]:
    return {"note" if len(notes) == 1 else f"note {index}": note for index, note in enumerate(notes, start=1)}


def _probe(shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.rand((2, *shape), generator=torch.Generator().manual_seed(0))


def _taps(model: nn.Module, shape: tuple[int, int, int]) -> _Table:
    rows = [
        (item.tap.name, f"{item.height}x{item.width}", item.channels, item.tap.layout.kind)
        for item in tap_candidates(model, _probe(shape))
    ]
    return (("possible tap", "map", "channels", "layout"), rows)


def _abilities(rows: Sequence[Sequence[object]]) -> _Table:
    return (("what can be done", "", "otherwise"), rows)
