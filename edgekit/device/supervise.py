"""Having the device's work done in a process of its own, which is ended when it gives no sign of life."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.supervised import Patience, run_supervised

__all__ = ["supervised", "worker_command"]


def worker_command() -> tuple[str, ...]:
    """The command that starts the worker with this interpreter."""
    return (sys.executable, "-m", "edgekit.device.worker")


def supervised(
    bundle: Path,
    output: Path,
    silence_s: float,
    observer: Observer = NULL_OBSERVER,
    command: Sequence[str] | None = None,
) -> None:
    """Have the work done in a process of its own.

    Args:
        bundle: The candidate.
        output: Where engines and scores go.
        silence_s: Seconds without a sign of life after which the process is ended.
        observer: Told what the process says.
        command: Another worker's command, for tests.

    Raises:
        EdgekitError: What the work raised there.
        UnavailableError: The process hung, or ended without a word, as a library does that crashes.
    """
    patience = Patience(
        silence_s,
        whole=False,
        message="TensorRT gave no sign of life, and its process was ended.",
        expected=f"progress, or an end, within {silence_s:g} seconds",
        hint="look at the kernel's log (dmesg) and restart the device; a large network on a small module may need "
        "longer: give --patience more seconds",
    )
    words = [*(command or worker_command()), str(bundle.resolve()), str(output.resolve())]
    run_supervised(words, patience, observer, expected="engines and scores")
