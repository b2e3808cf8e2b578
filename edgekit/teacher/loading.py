"""From a file or folder and the user's options to a classifier that is known to be complete and finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.core.digests import digest_path
from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard
from edgekit.teacher.capabilities import Capabilities
from edgekit.teacher.card_entries import complete_card, merged_entries
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.formats.model_path import ModelPath
from edgekit.teacher.formats.registry import recognise
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.logits import take_logits

__all__ = ["LoadOptions", "Uncarded", "check_answers", "load_model", "open_model"]


@dataclass(frozen=True)
class Uncarded:
    """A model file without enough of a card, and what the file itself tells all the same.

    Attributes:
        model: In evaluation mode.
        entries: Card entries that are known.
        size: Height and width of the input where they are known.
        format: As in `LoadedModel`.
        arch: As in `LoadedModel`.
        capabilities: As in `LoadedModel`.
        notes: As in `LoadedModel`.
        problem: Why there is no card.
    """

    model: nn.Module
    entries: Mapping[str, Any]
    size: tuple[int, int] | None
    format: str
    arch: str
    capabilities: Capabilities
    notes: tuple[str, ...]
    problem: BadInputError


def load_model(path: Path, options: LoadOptions | None = None) -> LoadedModel:
    """Load a classifier of any format in `edgekit.teacher.formats`, recognised by content.

    Args:
        path: The model's file or folder. No code in it is run unless `options.trust_pickle` says so.
        options: Architecture and card for files that do not carry them; overrides for those that do.

    Returns:
        The model in evaluation mode, with a complete card, what can be done with it, and what was decided on the way.

    Raises:
        BadInputError: The file cannot be read, the architecture is unknown or different (the first differences are
            named), the card is incomplete, a weight is not finite, or the model does not answer as a classifier.
        UnavailableError: A package that the format or architecture needs is not installed.
    """
    opened = open_model(path, options)
    if isinstance(opened, Uncarded):
        raise opened.problem
    return opened


def open_model(path: Path, options: LoadOptions | None = None) -> LoadedModel | Uncarded:
    """Load a classifier as `load_model` does, or as far as that is possible where nothing but the card is missing."""
    options = options or LoadOptions()
    found = ModelPath(path)
    known = recognise(found)
    content = known.load(found, options)
    entries = merged_entries(content.card, options.card, path)
    model = content.model.eval().requires_grad_(False)
    try:
        card = complete_card(entries, content.size, path)
    except BadInputError as problem:
        if entries.get("input") and "classes" in entries:
            raise
        return Uncarded(
            model, entries, content.size, known.name, content.arch, known.capabilities, content.notes, problem
        )
    _check_size(card, content.size, path)
    notes = check_answers(model, card, str(path))
    return LoadedModel(
        model,
        card,
        content.arch,
        content.arguments,
        content.surgery,
        digest_path(path),
        known.name,
        known.capabilities,
        (*content.notes, *notes),
    )


def _check_size(card: ModelCard, size: tuple[int, int] | None, path: Path) -> None:
    if size is not None and size != (card.input.height, card.input.width):
        raise BadInputError(
            "The card's input is not the one that the file was made for.",
            where=str(path),
            expected=f"{size[0]}x{size[1]}",
            found=f"{card.input.height}x{card.input.width}",
        )


def check_answers(model: nn.Module, card: ModelCard, where: str) -> tuple[str, ...]:
    """Run a network on random images and refuse it unless it answers as a classifier with the card's classes.

    Args:
        model: In evaluation mode; given a hook where its logits are one of several outputs.
        card: What it is fed, and its classes.
        where: The model's file or architecture, for the message.

    Returns:
        Notes: which of several outputs was taken.

    Raises:
        BadInputError: It does not run, answers in another shape, or its answers are not finite.
    """
    size = math.prod(card.input.shape)
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand(2 * size, generator=generator).reshape(2, *card.input.shape)
    try:
        with torch.no_grad():
            raw = model(probe)
            notes = take_logits(model, raw, where)
            answer = model(probe) if notes else raw
    except BadInputError:
        raise
    except Exception as cause:  # a forward pass is anybody's code
        raise BadInputError(
            "The network does not accept the card's input.",
            where=where,
            expected=f"to run on float32 {[2, *card.input.shape]}",
            found=(str(cause).strip() or type(cause).__name__).splitlines()[0],
        ) from cause
    wanted = (2, len(card.classes))
    if tuple(answer.shape) != wanted:
        raise BadInputError(
            "The network does not answer as a classifier with the card's classes.",
            where=where,
            expected=f"logits {list(wanted)} for {len(card.classes)} classes",
            found=str(list(answer.shape)),
        )
    if not answer.isfinite().all():
        raise BadInputError("The network's answers are not finite.", where=where, found="NaN or infinite logits")
    return notes
