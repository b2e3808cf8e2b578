"""Where two JSON documents differ: recipes, policies and lineages, key by key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.canonical import dump_canonical

__all__ = ["ABSENT", "Difference", "differences"]

ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """One place where two documents differ.

    Attributes:
        key: Dotted path, such as "compress.prune.rate".
        before: The older value as compact JSON, or `ABSENT`.
        after: The newer one.
    """

    key: str
    before: str
    after: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))


def differences(before: Any, after: Any, key: str = "") -> tuple[Difference, ...]:
    """Every place where the two differ, in the order of the keys. Lists are compared as wholes."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found: list[Difference] = []
        for name in sorted({*before, *after}):
            path = f"{key}.{name}" if key else str(name)
            if name not in before:
                found.append(Difference(path, ABSENT, _short(after[name])))
            elif name not in after:
                found.append(Difference(path, _short(before[name]), ABSENT))
            else:
                found += differences(before[name], after[name], path)
        return tuple(found)
    # 1 and true are equal in Python and are two things in JSON.
    if dump_canonical(before) == dump_canonical(after):
        return ()
    return (Difference(key, _short(before), _short(after)),)


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
