"""The specification of maps: enough to know that two networks' maps answer the same question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from edgekit.errors import IntegrityError

__all__ = ["CLASS_CHOICES", "LAYOUTS", "NO_CLASS", "OWN_CLASS", "MapSpec", "MapView", "TapSpec", "output_name"]

# Value of the `class_index` input that asks the engine to explain its own answer: its best in the first column, its
# second best in the second.
OWN_CLASS = -1
# Value that asks for no class: an empty map, where an image has fewer positive classes than the engine has maps.
NO_CLASS = 2**31 - 1

# How a module's output holds its map: [N, C, h, w]; [N, h, w, C]; or [N, tokens, C], the cells row by row.
LAYOUTS = ("nchw", "nhwc", "tokens")
# Which classes an image's maps explain: the best answers, or of those only the positive ones (multi-label).
CLASS_CHOICES = ("top", "positive")

_LARGEST_SIDE = 8192
_LARGEST_COUNT = 4096


def output_name(tap: int) -> str:
    """Name of the engine output that holds the maps of tap number `tap`, counted from 0."""
    return "attribution" if tap == 0 else f"attribution_{tap + 1}"


@dataclass(frozen=True)
class TapSpec:
    """An activation that maps live on.

    Attributes:
        tap: Dotted name of the module whose output it is; "image" for maps of the input itself.
        height: Rows of the raw map; it is never rescaled in the graph.
        width: Columns of the raw map.
        layout: How the module's output holds the map, one of `LAYOUTS`.
        prefix_tokens: For "tokens": tokens before the first cell, such as a class token.
    """

    tap: str
    height: int
    width: int
    layout: str = "nchw"
    prefix_tokens: int = 0

    def problem(self) -> str | None:
        """What makes this no sound description, or None."""
        if not isinstance(self.tap, str) or not self.tap.isprintable():
            return f"tap {self.tap!r}"
        if not all(type(side) is int and 0 < side <= _LARGEST_SIDE for side in (self.height, self.width)):
            return f"size {self.height!r} x {self.width!r}"
        if self.layout not in LAYOUTS:
            return f"layout {self.layout!r}"
        if type(self.prefix_tokens) is not int or not 0 <= self.prefix_tokens <= _LARGEST_COUNT:
            return f"prefix_tokens {self.prefix_tokens!r}"
        return None


@dataclass(frozen=True)
class MapView:
    """One of the maps that an image gets.

    Attributes:
        tap: Number of its tap, from 0.
        column: Number of its class among those explained, from 0.
        spec: Its tap.
    """

    tap: int
    column: int
    spec: TapSpec

    @property
    def name(self) -> str:
        """For tables: the tap, and which of several classes."""
        return self.spec.tap if self.column == 0 else f"{self.spec.tap}, class {self.column + 1}"


@dataclass(frozen=True)
class MapSpec:
    """What the engine's maps mean. The first tap's map of the first class is the one that is shown.

    Attributes:
        method: Name of the attribution method, such as "grad-cam".
        tap: Dotted name of the module whose output the map lives on.
        height: Rows of the raw map; it is never rescaled in the graph.
        width: Columns of the raw map.
        nonnegative: True where the method ends in a ReLU.
        layout: How that module's output holds the map, one of `LAYOUTS`.
        prefix_tokens: For "tokens": tokens before the first cell, such as a class token.
        classes: Maps an image gets at each tap, one a class.
        class_choice: Which classes, one of `CLASS_CHOICES`.
        further_taps: Other taps, each with maps of its own.
    """

    method: str
    tap: str
    height: int
    width: int
    nonnegative: bool = True
    layout: str = "nchw"
    prefix_tokens: int = 0
    classes: int = 1
    class_choice: str = "top"
    further_taps: tuple[TapSpec, ...] = ()

    @property
    def taps(self) -> tuple[TapSpec, ...]:
        """Every tap, the first one first."""
        return (TapSpec(self.tap, self.height, self.width, self.layout, self.prefix_tokens), *self.further_taps)

    @property
    def views(self) -> tuple[MapView, ...]:
        """Every map of an image: tap by tap, and class by class within."""
        return tuple(
            MapView(number, column, spec) for number, spec in enumerate(self.taps) for column in range(self.classes)
        )

    @property
    def output_names(self) -> tuple[str, ...]:
        """Engine outputs with maps, one a tap."""
        return tuple(output_name(number) for number in range(len(self.taps)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form. What is not out of the ordinary is left out, as it was before it could be said."""
        raw = dict(vars(self))
        raw["further_taps"] = [dict(vars(tap)) for tap in self.further_taps]
        usual = {"layout": "nchw", "prefix_tokens": 0, "classes": 1, "class_choice": "top", "further_taps": []}
        return {key: value for key, value in raw.items() if key not in usual or value != usual[key]}

    @classmethod
    def from_dict(cls, raw: Any, *, where: str) -> MapSpec:
        """Read a stored specification. Raises `IntegrityError` when it is malformed."""
        try:
            values = dict(raw)
            values["further_taps"] = tuple(_tap_spec(tap) for tap in values.get("further_taps", ()))
            spec = cls(**values)
        except (TypeError, ValueError) as cause:
            raise IntegrityError("A map specification is malformed.", where=where, found=str(cause)) from cause
        problem = spec._problem()
        if problem is not None:
            raise IntegrityError("A map specification is malformed.", where=where, found=problem)
        return spec

    def _problem(self) -> str | None:
        flag: object = self.nonnegative
        if not isinstance(self.method, str) or not isinstance(flag, bool):
            return f"method {self.method!r}, nonnegative {flag!r}"
        if type(self.classes) is not int or not 1 <= self.classes <= _LARGEST_COUNT:
            return f"classes {self.classes!r}"
        if self.class_choice not in CLASS_CHOICES:
            return f"class_choice {self.class_choice!r}"
        return next((problem for tap in self.taps if (problem := tap.problem()) is not None), None)


def _tap_spec(raw: Any) -> TapSpec:
    if not isinstance(raw, Mapping) or set(raw) != {field.name for field in fields(TapSpec)}:
        raise ValueError(f"a further tap that is not described as one: {str(raw)[:80]}")
    return TapSpec(**raw)
