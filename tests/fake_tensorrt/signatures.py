"""Signatures as the dumps write them: taken apart, and held against the arguments of a call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Parameter", "Signature", "bind", "parse_signature"]

Accepts = Callable[[str, Any], bool]
Default = Callable[[str, str], Any]


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: As a keyword; names such as `arg0` stand for parameters that have none.
        kind: The type's spelling in the dump; empty where it says nothing.
        default: The default's spelling, or None where the argument is required.
    """

    name: str
    kind: str
    default: str | None


@dataclass(frozen=True)
class Signature:
    """One overload: its parameters and the spelling of its result's type."""

    parameters: tuple[Parameter, ...]
    returns: str


def parse_signature(text: str) -> Signature:
    """Take `(name: type = default, ...) -> type` apart.

    Raises:
        ValueError: The text is no signature.
    """
    match = re.fullmatch(r"\((.*)\)(?: -> (.+))?", text)
    if match is None:
        raise ValueError(f"no signature: {text!r}")
    return Signature(tuple(map(_parameter, _split(match[1]))), match[2] or "")


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in "[(<") - (char in "])>")
        if char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def _parameter(text: str) -> Parameter:
    head, mark, default = text.partition(" = ")
    name, _, kind = head.partition(": ")
    return Parameter(name, kind, default if mark else None)


def bind(
    overloads: tuple[Signature, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    accepts: Accepts,
    default: Default,
) -> tuple[Any, ...] | None:
    """The arguments in the order of the first overload that takes them, defaults filled in; None where none does."""
    for overload in overloads:
        values = _bind_one(overload, args, kwargs, accepts, default)
        if values is not None:
            return values
    return None


def _bind_one(
    overload: Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any], accepts: Accepts, default: Default
) -> tuple[Any, ...] | None:
    if len(args) > len(overload.parameters):
        return None
    left, values = dict(kwargs), []
    for position, parameter in enumerate(overload.parameters):
        nameless = re.fullmatch(r"arg\d+", parameter.name) is not None
        if position < len(args):
            if parameter.name in left:
                return None
            value = args[position]
        elif parameter.name in left and not nameless:
            value = left.pop(parameter.name)
        elif parameter.default is not None:
            values.append(default(parameter.kind, parameter.default))
            continue
        else:
            return None
        if not (value is None and parameter.default == "None") and not accepts(parameter.kind, value):
            return None
        values.append(value)
    return None if left else tuple(values)
