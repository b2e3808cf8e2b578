"""Faults of the input: the engine is asked again with images prepared in the other ways that are common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edgekit.interface.card import InputSpec
from edgekit.verify.diagnosis.finding import Finding, best_of_each
from edgekit.verify.diagnosis.suspect import Suspect, match, restores

__all__ = ["find_input_faults"]

_LOOK = {
    "input-channel-order": "One side takes RGB for BGR: look at the card's channel_order.",
    "input-mean-std": "Mean and std are left out, other ones, or applied twice: compare the card's with the engine's.",
}
_ZERO, _ONE, _HALF = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_COMMON = (
    ("values in 0..1 and no mean or std", 255.0, _ZERO, _ONE),
    ("values in 0..255 and no mean or std", 1.0, _ZERO, _ONE),
    ("values in -1..1", 255.0, _HALF, _HALF),
    ("the mean and std of ImageNet", 255.0, *_IMAGENET),
    ("the mean of ImageNet and no std", 255.0, _IMAGENET[0], _ONE),
)


def find_input_faults(suspect: Suspect) -> list[Finding]:
    """Ask again with other preparations; one that restores maps and answers is a finding."""
    if suspect.runner is None:
        return []
    before, findings = suspect.part_match, []
    for fault, words, spec in _other_preparations(suspect.golden.card.input):
        after = match(suspect.part, suspect.ask(suspect.runner, suspect.part, spec))
        if restores(before, after):
            findings.append(Finding(fault, f"Maps and predictions match when {words}. {_LOOK[fault]}", before, after))
    return best_of_each(findings)


def _other_preparations(spec: InputSpec) -> Iterator[tuple[str, str, InputSpec]]:
    swapped = replace(
        spec,
        channel_order="BGR" if spec.channel_order == "RGB" else "RGB",
        mean=spec.mean[::-1],
        std=spec.std[::-1],
    )
    yield "input-channel-order", "red and blue are exchanged in the inputs", swapped
    for words, divisor, mean, std in _COMMON:
        other = replace(spec, divisor=divisor, mean=mean, std=std)
        if other != spec:
            yield "input-mean-std", f"the inputs are prepared with {words}", other
            yield "input-mean-std", f"it is undone that the engine prepares them with {words}", _undoing(spec, other)


def _undoing(spec: InputSpec, other: InputSpec) -> InputSpec:
    """A preparation after which an engine that turns what `spec` prepared into what `other` prepares sees `spec`'s.

    With C(p) = (p / d - m) / s of the card and O likewise, such an engine applies O(C^-1(x)). Fed with
    C(O^-1(C(p))) it sees C(p). All three are affine in p and increasing, so their composition is a preparation too.
    """
    mean, std = [], []
    for m, s, other_m, other_s in zip(spec.mean, spec.std, other.mean, other.std, strict=True):
        # C(O^-1(x)) = ((x * other_s + other_m) * ratio - m) / s with ratio = other_d / d, and x = (p / d - m) / s.
        ratio = other.divisor / spec.divisor
        scale = other_s * ratio / s
        offset = (other_m * ratio - m) / s
        # scale * (p / d - m) / s + offset = (p / d - (m - offset * s / scale)) / (s / scale)
        std.append(s / scale)
        mean.append(m - offset * s / scale)
    return replace(spec, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))
