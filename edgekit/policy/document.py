"""Policies as documents: plain data from JSON or YAML, read strictly, and the presets that come with edgekit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from importlib import resources
from typing import Any

from edgekit.core.canonical import parse_strict
from edgekit.errors import BadInputError
from edgekit.policy.clauses import CLAUSES, Clause
from edgekit.policy.policy import POLICY_FORMAT, Policy

__all__ = ["load_preset", "policy_from_dict", "preset_names"]

_SUFFIX = ".json"


def preset_names() -> tuple[str, ...]:
    """Names of the policies that come with edgekit, sorted."""
    folder = resources.files("edgekit.policy.presets")
    return tuple(sorted(item.name.removesuffix(_SUFFIX) for item in folder.iterdir() if item.name.endswith(_SUFFIX)))


def load_preset(name: str) -> Policy:
    """The preset called `name`. Raises `BadInputError` listing the known ones where there is none."""
    if name not in preset_names():
        raise BadInputError(
            f"There is no policy called {name!r}.",
            expected="one of " + ", ".join(preset_names()) + ", or a policy file",
        )
    file = f"{name}{_SUFFIX}"
    data = resources.files("edgekit.policy.presets").joinpath(file).read_bytes()
    return policy_from_dict(parse_strict(data, where=file), where=file)


def policy_from_dict(raw: object, *, where: str) -> Policy:
    """Check and build a policy from untrusted data.

    Args:
        raw: A mapping with name, confidence, min_samples, clauses, and optionally format.
        where: File or key, named in messages.

    Raises:
        BadInputError: A key is missing, misspelt or of the wrong type, a value is out of range, or a metric or a kind
            of clause is unknown; the message lists those that are known.
    """
    values = _checked_keys(
        raw, required=("name", "confidence", "min_samples", "clauses"), known=_policy_keys(), where=where
    )
    stated = values.pop("format", POLICY_FORMAT)
    if stated != POLICY_FORMAT:
        raise BadInputError("A policy has an unknown format.", where=where, expected=POLICY_FORMAT, found=repr(stated))
    if not isinstance(values["clauses"], (list, tuple)):
        raise BadInputError("A policy's clauses are not a list.", where=where, found=type(values["clauses"]).__name__)
    values["clauses"] = tuple(
        _clause_from_dict(item, f"{where}: clause {place}") for place, item in enumerate(values["clauses"], start=1)
    )
    try:
        return Policy(**values)
    except BadInputError as cause:
        cause.where = cause.where or where
        raise


def _policy_keys() -> tuple[str, ...]:
    return ("format", *(field.name for field in fields(Policy)))


def _clause_from_dict(raw: object, where: str) -> Clause:
    kind = raw.get("kind") if isinstance(raw, Mapping) else None
    if not isinstance(kind, str) or kind not in CLAUSES:
        raise BadInputError(
            "A policy holds a clause of an unknown kind.",
            where=where,
            expected="kind: one of " + ", ".join(CLAUSES),
            found=repr(raw if kind is None else kind),
        )
    cls = CLAUSES[kind]
    names = [field.name for field in fields(cls)]
    required = tuple(field.name for field in fields(cls) if field.default is MISSING)
    values = _checked_keys(raw, required=("kind", *required), known=("kind", *names), where=where)
    del values["kind"]
    try:
        return cls(**values)
    except BadInputError as cause:
        cause.where = cause.where or where
        raise


def _checked_keys(raw: object, *, required: tuple[str, ...], known: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise BadInputError(
            "A policy cannot be read.",
            where=where,
            expected="a mapping with the keys " + ", ".join(known),
            found=type(raw).__name__,
        )
    unknown = [str(key) for key in raw if key not in known]
    if unknown:
        near = get_close_matches(unknown[0], known, n=1)
        raise BadInputError(
            f"A policy holds an unknown key: {unknown[0]}.",
            where=where,
            expected=", ".join(known),
            found=", ".join(unknown),
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    missing = [key for key in required if key not in raw]
    if missing:
        raise BadInputError("A policy lacks a key.", where=where, expected=", ".join(missing))
    return dict(raw)
