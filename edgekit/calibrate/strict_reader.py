"""Strict reading of a stored scale table's values: every value is checked, every error names its place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.errors import IntegrityError

__all__ = ["StrictReader"]


class StrictReader:
    """Checks of one file's values.

    Args:
        where: The file, for errors.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    def error(self, key: str, expected: str, found: object) -> IntegrityError:
        """An error about the value under `key`."""
        return IntegrityError(
            "A scale table is malformed.",
            where=f"{self.where}: {key}" if key else self.where,
            expected=expected,
            found=repr(found)[:200],
        )

    def mapping(self, value: Any, key: str, keys: set[str] | None = None) -> Mapping[str, Any]:
        """A mapping, with exactly `keys` where they are given."""
        if not isinstance(value, dict):
            raise self.error(key, "a mapping", value)
        if keys is not None and set(value) != keys:
            raise self.error(key, "the keys " + ", ".join(sorted(keys)), sorted(value))
        return value

    def items(self, value: Any, key: str) -> list[Any]:
        """A list."""
        if not isinstance(value, list):
            raise self.error(key, "a list", value)
        return value

    def text(self, value: Any, key: str) -> str:
        """Text."""
        if not isinstance(value, str):
            raise self.error(key, "text", value)
        return value

    def integer(self, value: Any, key: str) -> int:
        """An integer."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, "an integer", value)
        return value

    def number(self, value: Any, key: str) -> float:
        """A number, finite or not."""
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.error(key, "a number", value)
        return float(value)

    def scale(self, value: Any, key: str) -> float:
        """A positive float32."""
        number = self.number(value, key)
        if not (math.isfinite(number) and number > 0 and float(np.float32(number)) == number):
            raise self.error(key, "a positive float32", value)
        return number
