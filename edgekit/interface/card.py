"""The model card: everything about a classifier that its weights do not say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from edgekit.errors import BadInputError

__all__ = ["CHANNEL_ORDERS", "TASKS", "InputSpec", "ModelCard"]

CHANNEL_ORDERS = ("RGB", "BGR")
TASKS = ("softmax", "multi-label")
_LARGEST_SIDE = 8192


@dataclass(frozen=True)
class InputSpec:
    """How decoded pixels become the network's input: `x = (pixels / divisor - mean) / std`, NCHW float32.

    Attributes:
        height: Pixels; images are resized to height x width without keeping their aspect.
        width: Pixels.
        channel_order: "RGB" or "BGR": the order in which the network expects the three channels. `mean` and `std`
            are given in that order.
        divisor: Scale of the pixel values, 255 for inputs in [0, 1], 1 for raw inputs.
        mean: One per channel, in units of the divided pixels.
        std: One per channel, positive.
    """

    height: int
    width: int
    channel_order: str = "RGB"
    divisor: float = 255.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        problem = None
        if not (0 < self.height <= _LARGEST_SIDE and 0 < self.width <= _LARGEST_SIDE):
            problem = ("a height and width from 1 to 8192", f"{self.height} x {self.width}")
        elif self.channel_order not in CHANNEL_ORDERS:
            problem = ("channel_order " + " or ".join(CHANNEL_ORDERS), repr(self.channel_order))
        elif {len(self.mean), len(self.std)} != {3}:
            problem = ("three values each for mean and std", f"{len(self.mean)} and {len(self.std)}")
        elif not all(map(math.isfinite, (*self.mean, *self.std, self.divisor))):
            problem = ("finite mean, std and divisor", f"{self.mean}, {self.std}, {self.divisor}")
        elif min(self.std) <= 0 or self.divisor <= 0:
            problem = ("a positive std and divisor", f"{self.std}, {self.divisor}")
        if problem is not None:
            raise BadInputError("The card's input description cannot be used.", expected=problem[0], found=problem[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one network input."""
        return (3, self.height, self.width)


@dataclass(frozen=True)
class ModelCard:
    """What a classifier is for and how to feed it.

    Attributes:
        input: How images are prepared.
        classes: Class names in the order of the logits; at least two, all different.
        task: "softmax" (one class an image) or "multi-label" (independent sigmoids).
        tap: Dotted name of the module whose output the attribution map lives on; None finds it.
        further_taps: Other modules whose outputs get maps of their own.
    """

    input: InputSpec
    classes: tuple[str, ...]
    task: str = "softmax"
    tap: str | None = None
    further_taps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "further_taps", tuple(self.further_taps))
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise BadInputError(
                "The card's class names cannot be used.",
                expected="at least two different names",
                found=", ".join(map(str, self.classes)) or "none",
            )
        if not all(isinstance(name, str) and name for name in self.classes):
            raise BadInputError("The card's class names cannot be used.", expected="non-empty text for every class")
        for tap in (*([] if self.tap is None else [self.tap]), *self.further_taps):
            if not (isinstance(tap, str) and tap):
                raise BadInputError("The card's tap cannot be used.", expected="the name of a module", found=repr(tap))
        if self.further_taps and self.tap is None:
            raise BadInputError(
                "The card's taps cannot be used.", expected="a tap before further taps", found=repr(self.further_taps)
            )
        if self.task not in TASKS:
            raise BadInputError("The card names an unknown task.", expected=" or ".join(TASKS), found=repr(self.task))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by `from_dict`."""
        raw = asdict(self)
        raw["classes"] = list(self.classes)
        raw["further_taps"] = list(self.further_taps)
        if not self.further_taps:
            # As it was before several taps could be named: equal cards have equal bytes.
            del raw["further_taps"]
        raw["input"]["mean"], raw["input"]["std"] = list(self.input.mean), list(self.input.std)
        return raw

    @classmethod
    def from_dict(cls, raw: object, *, where: str = "model card") -> ModelCard:
        """Check and build a card from untrusted data.

        Raises:
            BadInputError: A key is missing, misspelt or of the wrong type; the message names it.
        """
        top = _checked(raw, cls, where)
        spec = _checked(top.pop("input", None), InputSpec, f"{where}: input")
        for name in ("height", "width"):
            if not isinstance(spec.get(name), int) or isinstance(spec.get(name), bool):
                raise BadInputError("A card value has the wrong type.", where=f"{where}: input.{name}", expected="int")
        try:
            classes = top.pop("classes", ())
            for name, value in (("classes", classes), ("further_taps", top.get("further_taps", ()))):
                if isinstance(value, str):
                    raise TypeError(f"{name} must be a list of names")
            return cls(input=InputSpec(**spec), classes=tuple(classes), **top)
        except (TypeError, ValueError) as cause:
            raise BadInputError("The model card cannot be read.", where=where, found=str(cause)) from cause


def _checked(raw: object, cls: type, where: str) -> dict[str, Any]:
    known = [field.name for field in fields(cls)]
    if not isinstance(raw, Mapping):
        raise BadInputError(
            "A model card section is missing.", where=where, expected="a mapping with " + ", ".join(known)
        )
    unknown = sorted(str(key) for key in raw if key not in known)
    if unknown:
        raise BadInputError(
            "A model card holds an unknown key.", where=where, expected=", ".join(known), found=", ".join(unknown)
        )
    return dict(raw)
