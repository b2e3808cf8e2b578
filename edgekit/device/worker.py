"""The process that builds and verifies a device's engines. It is told the folders on its command line.

It is started by `edgekit.device.supervise`, never by people.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from edgekit.core.telling import tell_work
from edgekit.device.work import build_and_verify

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Do the work of a bundle (first argument) into a folder (second); returns the exit code."""
    return tell_work(lambda observer: build_and_verify(Path(arguments[0]), Path(arguments[1]), observer))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
