"""How long `edgekit --help` takes beside a bare interpreter.

    python benchmarks/startup.py [--runs N]

The two are run in turn, so that what else the machine does falls on both; processor time is written beside wall-clock
time, since it alone hardly depends on that. Writes `benchmarks/results/startup.json`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import click

from edgekit.core.canonical import write_json
from edgekit.core.environment import environment_print

RESULTS = Path(__file__).resolve().parent / "results"
LIMIT_SECONDS = 0.15


@dataclass(frozen=True)
class Taken:
    """Seconds one process took: by the clock, and of processor time."""

    wall: float
    cpu: float


def measure(command: list[str]) -> Taken:
    """Run one process to its end."""
    before, begun = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begun, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Taken(wall, cpu)


@click.command()
@click.option("--runs", default=40, show_default=True, help="Timed runs of each, after three for warming up.")
def main(runs: int) -> None:
    """Measure and write down how long `edgekit --help` takes."""
    script = Path(sysconfig.get_path("scripts")) / "edgekit"
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "edgekit --version": [sys.executable, str(script), "--version"],
        "edgekit --help": [sys.executable, str(script), "--help"],
    }
    times: dict[str, list[Taken]] = {name: [] for name in commands}
    for run in range(runs + 3):
        for name, command in commands.items():
            taken = measure(command)
            if run >= 3:
                times[name].append(taken)
    wall = {name: statistics.median(item.wall for item in taken) for name, taken in times.items()}
    cpu = {name: statistics.median(item.cpu for item in taken) for name, taken in times.items()}
    fastest = {name: min(item.wall for item in taken) for name, taken in times.items()}
    more = wall["edgekit --help"] - wall["python -c pass"]
    write_json(
        RESULTS / "startup.json",
        {
            "environment": environment_print(),
            "runs": runs,
            "load_per_cpu": round(os.getloadavg()[0] / (os.cpu_count() or 1), 2),
            "median_seconds": {name: round(value, 4) for name, value in wall.items()},
            "fastest_seconds": {name: round(value, 4) for name, value in fastest.items()},
            "median_cpu_seconds": {name: round(value, 4) for name, value in cpu.items()},
            "help_more_than_bare_python_seconds": round(more, 4),
            "help_more_than_bare_python_cpu_seconds": round(cpu["edgekit --help"] - cpu["python -c pass"], 4),
            "limit_seconds": LIMIT_SECONDS,
            "holds": more <= LIMIT_SECONDS,
        },
    )
    for name in commands:
        click.echo(
            f"{name:<18} median {wall[name] * 1000:7.1f} ms, fastest {fastest[name] * 1000:7.1f} ms, "
            f"processor {cpu[name] * 1000:7.1f} ms"
        )
    click.echo(f"{'difference':<18} {more * 1000:7.1f} ms, at most {LIMIT_SECONDS * 1000:.0f} ms")


if __name__ == "__main__":
    main()
