"""Whether the samples of a set differ: a bound with confidence counts each sample once."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["repeated_names"]

_SHOWN = 3


def repeated_names(names: Sequence[str], digests: Sequence[str]) -> str:
    """Which samples are the same images, for a message; empty where all differ.

    Args:
        names: Of the samples.
        digests: Of their pixels at the size in which the network sees them, so that two files of one image are told.
    """
    first: dict[str, str] = {}
    pairs = []
    for name, digest in zip(names, digests, strict=True):
        if digest in first:
            pairs.append(f"{name} is {first[digest]}")
        first.setdefault(digest, name)
    if not pairs:
        return ""
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    return f"{len(first)} different images among {len(names)}: {'; '.join(pairs[:_SHOWN])}{more}"
