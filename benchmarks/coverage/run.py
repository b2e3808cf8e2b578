"""Which architectures edgekit explains, exports and quantises: a table over those of torchvision, timm and its own.

    python benchmarks/coverage/run.py [--only PATTERN] [--again] [--work DIR]

Each row runs in a process of its own with a time limit, and its result is kept in the work folder: the command goes on
where it was stopped. A row is measured again when its settings or the versions of the packages have changed. Needs
torchvision and timm beside edgekit; see benchmarks/README.md. Writes `coverage.json` and `coverage.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
from cases import CASES, Case
from table import summary_of, text_of

from edgekit.core.canonical import read_json, write_json
from edgekit.core.environment import distribution_version, environment_print

BENCHMARKS = Path(__file__).resolve().parents[1]
VERSIONS_OF = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime")
# After that long a row is given up. Those of the table take about one minute on two quiet cores.
LIMIT_SECONDS = 600.0
STEP_NAMES = ("load", "tap", "export", "parity", "int8", "cost", "tensorrt")


@dataclass(frozen=True)
class Settings:
    """What a row is measured with.

    Attributes:
        rounds: Rounds of the latency ratio.
        until: The last step.
        work: Where rows and images are kept.
    """

    rounds: int
    until: str
    work: Path

    def stored(self, case: Case) -> Path:
        """The file of a row."""
        return self.work / "rows" / f"{case.key}.json"

    def identity(self, case: Case) -> dict[str, Any]:
        """What a kept result must have been measured with to be kept."""
        return {"case": case.to_dict(), "rounds": self.rounds, "until": self.until, "versions": versions()}


def versions() -> dict[str, str | None]:
    """The packages that decide what works."""
    return {name: distribution_version(name) for name in VERSIONS_OF}


def measure(case: Case, settings: Settings) -> dict[str, Any]:
    """Run one row in a process of its own; what stops that process is the row's reason."""
    result = settings.work / "result.json"
    result.unlink(missing_ok=True)
    asked = {
        "key": case.key,
        "rounds": settings.rounds,
        "until": settings.until,
        "work": str(settings.work),
        "result": str(result),
    }
    # Spinning, torch's threads would wait for each other many times as long on a busy machine.
    waiting = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    paths = [str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, str(BENCHMARKS / "coverage" / "row.py"), json.dumps(asked)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_WAIT_POLICY": waiting},
            timeout=LIMIT_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"stopped": f"not done after {LIMIT_SECONDS:.0f} s", "seconds": LIMIT_SECONDS}
    if done.returncode != 0 or not result.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"stopped": f"the process ended with {done.returncode}: {last}", "seconds": None}
    found: dict[str, Any] = read_json(result)
    return found


def kept(case: Case, settings: Settings) -> dict[str, Any] | None:
    """The row as it was measured before, or None."""
    file = settings.stored(case)
    if not file.is_file():
        return None
    stored: dict[str, Any] = read_json(file)
    return stored["row"] if stored["identity"] == settings.identity(case) else None


def write_results(rows: Mapping[str, Any], settings: Settings, folder: Path) -> None:
    """Both files, from all rows there are."""
    document = {
        "environment": environment_print(),
        "versions": versions(),
        "rounds": settings.rounds,
        "rows": rows,
    }
    write_json(folder / "coverage.json", document)
    (folder / "coverage.md").write_text(text_of(document), encoding="utf-8")


@click.command()
@click.option("--only", default="*", help="Rows whose name fits this pattern, such as 'timm-*'.")
@click.option("--again", is_flag=True, help="Measure rows again that are already there.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/coverage"), show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=BENCHMARKS / "results", help="Folder of the table.")
@click.option("--rounds", default=21, show_default=True, help="Rounds of the latency ratio.")
@click.option("--until", type=click.Choice(STEP_NAMES), default=STEP_NAMES[-1], help="Stop after this step.")
def main(only: str, again: bool, work: Path, results: Path, rounds: int, until: str) -> None:
    """Measure the rows that are missing, and write the table."""
    settings = Settings(rounds, until, work.resolve())
    (settings.work / "rows").mkdir(parents=True, exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for case in CASES.values():
        row = kept(case, settings)
        if fnmatch(case.key, only) and (again or row is None):
            row = measure(case, settings)
            write_json(settings.stored(case), {"identity": settings.identity(case), "row": row})
            click.echo(f"{case.key:<44} {summary_of(row)}")
        if row is not None:
            rows[case.key] = {"case": case.to_dict(), **row}
            write_results(rows, settings, results)


if __name__ == "__main__":
    main()
