"""One digest for a golden set, worked out of its files' digests: for whoever has the manifest and not the arrays."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.bundle.layout import GOLDEN
from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_bytes

__all__ = ["golden_digest"]


def golden_digest(digests: Mapping[str, str]) -> str:
    """SHA-256 of a golden set: of every file in it, answers and maps included.

    Args:
        digests: Bundle path to SHA-256; what lies outside the golden set's folder does not count.
    """
    inside = {name: digest for name, digest in digests.items() if name.startswith(f"{GOLDEN}/")}
    return digest_bytes(dump_canonical(inside))
