"""Peak memory of a calibration by number of images: every streaming calibrator, and ONNX Runtime's entropy beside them.

    python benchmarks/calibration_memory.py WORK [--side PIXELS] [--again]

The network is MobileNetV1 of full width with drawn weights, on drawn images: what is measured does not depend on what
is seen. Each case is a process of its own (`calibration/workers`), and what counts is the highest water mark of the
calibration from file to file beyond what importing took. At 224 pixels (`--side 224`) ONNX Runtime's entropy takes
several GiB. Goes on where it was stopped; writes `results/calibration_memory.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from calibration.child import Child, NotRunError
from calibration.methods import Method, methods
from measuring.explained import explained_forms
from measuring.networks import RandomNetwork, loaded_network, random_network

from edgekit.core.canonical import read_json, write_json
from edgekit.core.digests import digest_file
from edgekit.core.environment import environment_print

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
OURS, THEIRS = (64, 256, 1024), (16, 32, 64, 128)
THEIR_METHOD = "ORT entropy"
# What is claimed: from 64 to 1,024 images the peak grows by no more than this.
LIMIT = 1.2


@dataclass(frozen=True)
class Case:
    """A method and a number of images."""

    method: Method
    images: int

    @property
    def name(self) -> str:
        """For tables and files."""
        return f"{self.method.name}, {self.images}"


def cases() -> Iterator[Case]:
    """Methods that look at one tensor at a time; those with the map in their objective hold images they judge by."""
    for method in methods():
        ours = method.ours and not method.name.startswith("attribution")
        counts = OURS if ours else THEIRS if method.name == THEIR_METHOD else ()
        yield from (Case(method, count) for count in counts)


@dataclass(frozen=True)
class Files:
    """What all cases read: graph, images (.npy, float32 [N, 3, S, S]) and the card as a mapping."""

    graph: Path
    images: Path
    card: dict[str, Any]


def prepared(work: Path, side: int) -> Files:
    """Draw network and images, the same at every call."""
    folder = work / f"side-{side}"
    folder.mkdir(parents=True, exist_ok=True)
    network = RandomNetwork("mobilenet_v1", {"classes": 1000, "width": 1.0}, side=side)
    rng = np.random.default_rng(0)
    files = Files(folder / "fp32.onnx", folder / "images.npy", {})
    if not files.images.is_file():
        np.save(files.images, rng.normal(0, 1, (max(OURS), 3, side, side)).astype(np.float32))
    seen = np.load(files.images, mmap_mode="r")
    loaded = loaded_network(network, random_network(network, [np.array(seen[:16])]), folder / "model.pt")
    onnx.save(next(iter(explained_forms(loaded).values())).model, files.graph)
    return Files(files.graph, files.images, loaded.card.to_dict())


def measured(case: Case, files: Files, work: Path) -> dict[str, Any]:
    """Bytes and seconds of one calibration in a process of its own, or why there was none."""
    method = case.method
    options = dict(method.options)
    if method.ours:
        digests = [f"drawn {number}" for number in range(case.images)]
        options |= {"number_format": "x86-u8s8", "digests": digests, "card": files.card}
    request = {
        "graph": str(files.graph),
        "images": str(files.images),
        "count": case.images,
        "output": str(work / "quantised.onnx"),
        "options": options,
    }
    told: dict[str, Any] = {"method": method.name, "images": case.images}
    try:
        with Child(sys.executable, method.worker, request, work, ROOT if method.ours else None) as child:
            found = child.ask("calibrate")
    except NotRunError as cause:
        return {**told, "not_run": str(cause)}
    return {**told, "peak_mib": round(found["peak_bytes"] / 2**20, 1), "seconds": round(found["seconds"], 1)}


def growth(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times the peak at the fewest images the one at the most is, by method."""
    peaks: dict[str, list[float]] = {}
    for row in sorted((row for row in rows if "peak_mib" in row), key=lambda row: int(row["images"])):
        peaks.setdefault(row["method"], []).append(row["peak_mib"])
    return {method: round(found[-1] / found[0], 3) for method, found in peaks.items()}


@click.command()
@click.argument("work", type=click.Path(path_type=Path, file_okay=False))
@click.option("--side", default=96, show_default=True, help="Height and width of the images, pixels.")
@click.option("--again", is_flag=True, help="Measure again what was measured.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Where the results go.")
def main(work: Path, side: int, again: bool, results: Path) -> None:
    """Measure the peak memory of calibrations and write it down."""
    files = prepared(work, side)
    kept = work / f"side-{side}" / f"cases-{digest_file(files.graph)[:10]}.json"
    known: dict[str, Any] = read_json(kept) if kept.is_file() and not again else {}
    for case in cases():
        if "peak_mib" not in known.get(case.name, {}):
            known[case.name] = measured(case, files, work)
            write_json(kept, known)
        row = known[case.name]
        click.echo(f"{case.name:24} {row.get('peak_mib', row.get('not_run'))!s:>10} MiB")
    rows = [known[case.name] for case in cases()]
    grown = growth(rows)
    ours = {case.method.name for case in cases() if case.method.ours}
    write_json(
        results / "calibration_memory.json",
        {
            "environment": environment_print(),
            "network": "MobileNetV1, width 1.0, drawn weights",
            "side": side,
            "rows": rows,
            "growth": grown,
            "limit": LIMIT,
            "holds": all(grown.get(name, np.inf) <= LIMIT for name in ours),
        },
    )


if __name__ == "__main__":
    main()
