"""Faults of the golden set that a verdict cannot see."""

from __future__ import annotations

from edgekit.verify.diagnosis.finding import Finding
from edgekit.verify.diagnosis.suspect import Suspect

__all__ = ["find_repeated_samples"]


def find_repeated_samples(suspect: Suspect) -> list[Finding]:
    """Samples that stand in the set more than once: bounds count them as if each said something new."""
    samples = suspect.samples
    different = len(set(samples))
    if different == len(samples):
        return []
    share = different / len(samples)
    text = (
        f"The golden set repeats samples: {different} of {len(samples)} are different. Every bound of the verdict is "
        "narrower than the images allow. Make the golden set again from images that differ."
    )
    return [Finding("golden-repeated", text, share, share)]
