"""How long edgekit takes to start, beside a bare interpreter and beside the libraries that a device needs.

    python benchmarks/startup.py [--runs N]

`edgekit --help` is held against bare Python. The device side (its import, `edgekit gate --help`, and `edgekit gate` and
`edgekit verify` of the small stored bundle in `tests/golden`) is held against importing numpy and ONNX Runtime; it runs
where the packages of the workstation cannot be imported, as on a device. `edgekit verify` opens an engine and runs it,
which the limit for starting does not speak of, so that is timed beside it and taken off.

All are run in turn, so that what else the machine does falls on all; processor time is written beside wall-clock time,
since it alone hardly depends on that. Writes `benchmarks/results/startup.json`.
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
BUNDLE = Path(__file__).resolve().parents[1] / "tests" / "golden" / "bundle-1.tar"
LIMIT_SECONDS = 0.15
DEVICE_LIMIT_SECONDS = 0.3
# What a device does not have.
ABSENT = ("torch", "onnx", "pydantic", "yaml", "jinja2", "rich", "PIL", "onnxscript", "scipy", "safetensors")
_FENCE = f"""
import sys
class Fence:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Fence())
"""
# The work itself, without edgekit's own start: a session on the stored graph and as many runs as a verification makes.
_ENGINE_WORK = f"""
import numpy, onnxruntime, tarfile
with tarfile.open({str(BUNDLE)!r}) as tar:
    graph = tar.extractfile(next(name for name in tar.getnames() if name.endswith("engine/model.onnx"))).read()
session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
image, classes = session.get_inputs()
side = image.shape[2]
for _ in range(5):
    images = numpy.zeros((16, 3, side, side), numpy.float32)
    session.run(None, {{image.name: images, classes.name: numpy.full(16, -1, numpy.int32)}})
"""
BARE, LIBRARIES, WORK = "python -c pass", "numpy and onnxruntime", "the engine's work alone"
HELP, IMPORTED, GATE_HELP, GATE, VERIFY = (
    "edgekit --help",
    "import of the device side",
    "edgekit gate --help",
    "edgekit gate BUNDLE",
    "edgekit verify BUNDLE",
)
# What is held against what, and by how much it may be more.
HELD = {
    HELP: (BARE, LIMIT_SECONDS),
    IMPORTED: (LIBRARIES, DEVICE_LIMIT_SECONDS),
    GATE_HELP: (BARE, LIMIT_SECONDS),
    GATE: (LIBRARIES, DEVICE_LIMIT_SECONDS),
    VERIFY: (WORK, DEVICE_LIMIT_SECONDS),
}


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


def on_a_device(*arguments: str) -> list[str]:
    """A command of edgekit where the workstation's packages cannot be imported."""
    run = f"from edgekit.cli.main import run\nsys.exit(run({list(arguments)!r}))"
    return [sys.executable, "-c", _FENCE + run]


def commands() -> dict[str, list[str]]:
    """Everything that is timed, by name."""
    script = Path(sysconfig.get_path("scripts")) / "edgekit"
    return {
        BARE: [sys.executable, "-c", "pass"],
        LIBRARIES: [sys.executable, "-c", "import numpy, onnxruntime"],
        WORK: [sys.executable, "-c", _ENGINE_WORK],
        "edgekit --version": [sys.executable, str(script), "--version"],
        HELP: [sys.executable, str(script), "--help"],
        IMPORTED: [
            sys.executable,
            "-c",
            _FENCE + "import numpy, onnxruntime, edgekit.verify.stage, edgekit.verify.gate, edgekit.engines.ort_cpu",
        ],
        GATE_HELP: on_a_device("gate", "--help"),
        GATE: on_a_device("gate", str(BUNDLE)),
        VERIFY: on_a_device("verify", str(BUNDLE), "-q"),
    }


@click.command()
@click.option("--runs", default=40, show_default=True, help="Timed runs of each, after three for warming up.")
def main(runs: int) -> None:
    """Measure and write down how long edgekit takes to start."""
    timed = commands()
    times: dict[str, list[Taken]] = {name: [] for name in timed}
    for run in range(runs + 3):
        for name, command in timed.items():
            taken = measure(command)
            if run >= 3:
                times[name].append(taken)
    wall = {name: statistics.median(item.wall for item in taken) for name, taken in times.items()}
    cpu = {name: statistics.median(item.cpu for item in taken) for name, taken in times.items()}
    fastest = {name: min(item.wall for item in taken) for name, taken in times.items()}
    held = {
        name: {
            "beside": beside,
            "more_seconds": round(wall[name] - wall[beside], 4),
            "more_fastest_seconds": round(fastest[name] - fastest[beside], 4),
            "more_cpu_seconds": round(cpu[name] - cpu[beside], 4),
            "limit_seconds": limit,
            "holds": wall[name] - wall[beside] <= limit,
        }
        for name, (beside, limit) in HELD.items()
    }
    write_json(
        RESULTS / "startup.json",
        {
            "environment": environment_print(),
            "runs": runs,
            "load_per_cpu": round(os.getloadavg()[0] / (os.cpu_count() or 1), 2),
            "median_seconds": {name: round(value, 4) for name, value in wall.items()},
            "fastest_seconds": {name: round(value, 4) for name, value in fastest.items()},
            "median_cpu_seconds": {name: round(value, 4) for name, value in cpu.items()},
            "held": held,
        },
    )
    for name in timed:
        click.echo(
            f"{name:<26} median {wall[name] * 1000:7.1f} ms, fastest {fastest[name] * 1000:7.1f} ms, "
            f"processor {cpu[name] * 1000:7.1f} ms"
        )
    for name, told in held.items():
        click.echo(
            f"{name:<26} {told['more_seconds'] * 1000:7.1f} ms more than {told['beside']} (fastest "
            f"{told['more_fastest_seconds'] * 1000:.1f}, processor {told['more_cpu_seconds'] * 1000:.1f}), at most "
            f"{told['limit_seconds'] * 1000:.0f} ms"
        )


if __name__ == "__main__":
    main()
