"""Which architectures edgekit explains, exports and quantises: a table over those of torchvision, timm and its own.

    python benchmarks/coverage/run.py [--only PATTERN] [--again] [--work DIR]

Each row runs in a process of its own with a time limit, two at once; latencies are measured afterwards, when nothing
else runs. Results are kept in the work folder: the command goes on where it was stopped. A row is measured again when
its settings or the versions of the packages have changed. Needs torchvision and timm beside edgekit; see
benchmarks/README.md. Writes `coverage.json` and `coverage.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
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
STEP_NAMES = ("load", "tap", "export", "parity", "int8", "tensorrt", "cost")


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

    def graph(self, case: Case) -> tuple[Path, Path]:
        """The exported graph and one image for it, kept until the latency is measured."""
        return self.work / "graphs" / f"{case.key}.onnx", self.work / "graphs" / f"{case.key}.npy"

    def identity(self, case: Case) -> dict[str, Any]:
        """What a kept result must have been measured with to be kept."""
        return {"case": case.to_dict(), "rounds": self.rounds, "until": self.until, "versions": versions()}


def versions() -> dict[str, str | None]:
    """The packages that decide what works."""
    return {name: distribution_version(name) for name in VERSIONS_OF}


def run_row(case: Case, settings: Settings, *, rounds: int, jobs: int) -> dict[str, Any]:
    """Run row.py in a process of its own; what stops that process is the row's reason.

    Args:
        case: The row.
        settings: What is measured.
        rounds: Of the latency ratio; 0 for everything else.
        jobs: How many rows run at once.
    """
    result = settings.work / f"result-{case.key}.json"
    result.unlink(missing_ok=True)
    graph, image = settings.graph(case)
    asked = {
        "key": case.key,
        "rounds": rounds,
        "until": settings.until,
        "work": str(settings.work),
        "graph": str(graph),
        "image": str(image),
        "result": str(result),
    }
    environment = {
        # Spinning, torch's threads would wait for each other many times as long on a busy machine.
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs)),
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    try:
        done = subprocess.run(
            [sys.executable, str(BENCHMARKS / "coverage" / "row.py"), json.dumps(asked)],
            env=environment,
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
    result.unlink()
    return found


def measure_all(cases: Sequence[Case], settings: Settings, jobs: int) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Rows without their latencies, several at once, as they are done."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(run_row, case, settings, rounds=0, jobs=jobs): case for case in cases}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def with_cost(case: Case, row: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The row with the latency of its map, for which nothing else may run."""
    found = run_row(case, settings, rounds=settings.rounds, jobs=1)
    cost = found.get("cost") or {"ok": False, "reason": found["stopped"]}
    for file in settings.graph(case):
        file.unlink(missing_ok=True)
    seconds = round(row["seconds"] + (found["seconds"] or 0.0), 1)
    return {**row, "steps": {**row["steps"], "cost": cost}, "seconds": seconds}


def lacks_cost(case: Case, row: Mapping[str, Any], settings: Settings) -> bool:
    """Whether the row was exported and its latency has not been measured yet."""
    exported = row.get("steps", {}).get("export", {}).get("ok", False)
    return settings.until == "cost" and exported and "cost" not in row["steps"] and settings.graph(case)[0].is_file()


def kept(case: Case, settings: Settings) -> dict[str, Any] | None:
    """The row as it was measured before, or None; also where its graph is gone before its latency was measured."""
    file = settings.stored(case)
    if not file.is_file():
        return None
    stored: dict[str, Any] = read_json(file)
    row: dict[str, Any] = stored["row"]
    exported = row.get("steps", {}).get("export", {}).get("ok", False)
    whole = settings.until != "cost" or not exported or "cost" in row["steps"] or settings.graph(case)[0].is_file()
    return row if whole and stored["identity"] == settings.identity(case) else None


def write_results(rows: Mapping[str, Any], settings: Settings, folder: Path) -> None:
    """Both files, from all rows there are."""
    document = {
        "environment": environment_print(),
        "versions": versions(),
        "rounds": settings.rounds,
        "rows": {key: {"case": case.to_dict(), **rows[key]} for key, case in CASES.items() if key in rows},
    }
    write_json(folder / "coverage.json", document)
    (folder / "coverage.md").write_text(text_of(document), encoding="utf-8")


@click.command()
@click.option("--only", default="*", help="Rows whose name fits this pattern, such as 'timm-*'.")
@click.option("--again", is_flag=True, help="Measure rows again that are already there.")
@click.option("--jobs", default=2, show_default=True, help="Rows at once, but for latencies: those run alone.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/coverage"), show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=BENCHMARKS / "results", help="Folder of the table.")
@click.option("--rounds", default=21, show_default=True, help="Rounds of the latency ratio.")
@click.option("--until", type=click.Choice(STEP_NAMES), default=STEP_NAMES[-1], help="Stop after this step.")
def main(only: str, again: bool, jobs: int, work: Path, results: Path, rounds: int, until: str) -> None:
    """Measure the rows that are missing, then their latencies, and write the table."""
    settings = Settings(rounds, until, work.resolve())
    for folder in (settings.work / "rows", settings.work / "graphs", results):
        folder.mkdir(parents=True, exist_ok=True)
    rows = {key: row for key, case in CASES.items() if (row := kept(case, settings)) is not None}

    def keep(case: Case, row: dict[str, Any]) -> None:
        rows[case.key] = row
        write_json(settings.stored(case), {"identity": settings.identity(case), "row": row})
        write_results(rows, settings, results)
        click.echo(f"{case.key:<44} {summary_of(row)}")

    chosen = [case for case in CASES.values() if fnmatch(case.key, only)]
    for case, row in measure_all([case for case in chosen if again or case.key not in rows], settings, jobs):
        keep(case, row)
    for case in chosen:
        if lacks_cost(case, rows[case.key], settings):
            keep(case, with_cost(case, rows[case.key], settings))
    write_results(rows, settings, results)


if __name__ == "__main__":
    main()
