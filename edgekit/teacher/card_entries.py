"""What file, library and user say about inputs and classes, put together into a card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard

__all__ = ["complete_card", "different_names", "merged_entries"]


def merged_entries(stored: Any, said: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Card entries of a file, completed and overridden by the user's; "input" key by key.

    Raises:
        BadInputError: The file's entries are no mapping.
    """
    if not isinstance(stored, Mapping):
        raise BadInputError("The checkpoint's card is malformed.", where=str(path))
    merged = {**stored, **{key: value for key, value in said.items() if key != "input"}}
    own_input = stored.get("input") or {}
    if not isinstance(own_input, Mapping):
        raise BadInputError("The checkpoint's card is malformed.", where=str(path), found="an input that is no mapping")
    merged["input"] = {**own_input, **dict(said.get("input") or {})}
    return merged


def complete_card(entries: Mapping[str, Any], size: tuple[int, int] | None, path: Path) -> ModelCard:
    """The card that `entries` make.

    Args:
        entries: What `merged_entries` returned.
        size: Height and width that the file itself tells. They complete what was said about the input; alone they
            are not enough, because nothing would say how pixels are normalised.
        path: For messages.

    Raises:
        BadInputError: Input or classes are unknown, or an entry cannot be used.
    """
    entries = dict(entries)
    if not entries.get("input") or "classes" not in entries:
        told = "" if size is None else f"; its input is {size[0]}x{size[1]}"
        raise BadInputError(
            "The model file has no card, so its input and classes are unknown.",
            where=str(path) + told,
            hint="give --card FILE, or --input-size, --mean, --std and --classes",
        )
    if size is not None:
        entries["input"] = {"height": size[0], "width": size[1], **entries["input"]}
    return ModelCard.from_dict(entries, where=f"card of {path.name}")


def different_names(names: Sequence[str]) -> list[str]:
    """`names` in which those that occur more than once carry their index: ImageNet has two kinds of "crane"."""
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} ({index})" for index, name in enumerate(names)]
