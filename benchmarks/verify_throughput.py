"""Whether a verification is at least 0.9 times as fast as the engine alone, and needs no more memory for more samples.

    python benchmarks/verify_throughput.py [--only PATTERN] [--samples N ...] [--rounds N] [--work DIR]

The demo's network, and ResNet-20 and 56 (where `shared/data` lies beside the checkout), FP32 and INT8, over synthetic
golden sets: images drawn once and repeated with changed pixels, answered by the teacher. In turns, each in a process of
its own: the engine's `run` once a sample over batches of 16 that were prepared before the clock ran; a verification,
which prepares, asks, scores and makes the controls; and one without controls. Processor time is written beside the
clock's, since it hardly depends on what else a machine does; the spinning of the engine's threads is in it. Peak memory
is each process's. Writes `verify_throughput.json` and `verify_throughput.md`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import OWN_CLASS
from edgekit.bundle.golden import read_golden
from edgekit.core.canonical import write_json
from edgekit.core.environment import environment_print
from edgekit.core.mapped import release
from edgekit.engines.ort_cpu import ENGINE
from edgekit.engines.protocol import EngineOptions
from edgekit.interface.preprocess import preprocess
from edgekit.policy.document import load_preset
from edgekit.verify.stage import VerifyRequest, verify_engine

RESULTS = Path(__file__).resolve().parent / "results"
GOAL = 0.9
BATCH = 16
RAW, WHOLE, PLAIN = "engine alone", "verification", "without controls"
KINDS = (RAW, WHOLE, PLAIN)
NETWORKS = ("demo", "cifar10-resnet20", "cifar10-resnet56")
PRECISIONS = ("fp32", "int8")
DRAWN = 200
CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class RepeatedImages:
    """Images for the golden stage: some that were drawn, over and over, every copy with other pixels."""

    drawn: npt.NDArray[np.uint8]
    count: int

    @property
    def digests(self) -> tuple[str, ...]:
        """Names in place of digests: nobody made files of these images."""
        return tuple(f"{index:064x}" for index in range(self.count))

    @property
    def names(self) -> tuple[str, ...]:
        """Of files that could be."""
        return tuple(f"{index:06}.png" for index in range(self.count))

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """None are known."""
        return np.full(self.count, -1, dtype=np.int64)

    def pixels(self, height: int, width: int, _observer: Any) -> npt.NDArray[np.uint8]:
        """Every copy with noise of its own."""
        rng = np.random.default_rng(0)
        images = np.empty((self.count, height, width, 3), dtype=np.uint8)
        for index in range(self.count):
            moved = self.drawn[index % len(self.drawn)].astype(np.int16) + rng.integers(-8, 9, size=(height, width, 3))
            images[index] = np.clip(moved, 0, 255)
        return images

    def masks(self, _height: int, _width: int) -> None:
        """None are known."""


def prepared(name: str, counts: tuple[int, ...], work: Path) -> Path:
    """Graphs and golden sets of one network in a folder; what is there is not made again."""
    from measuring.explained import MAPS, explained_forms, minmax_int8
    from measuring.images import image_folder
    from measuring.networks import real_network

    from edgekit.demo.images import draw_image
    from edgekit.demo.run import teacher_path
    from edgekit.teacher.golden import GoldenRequest, golden
    from edgekit.teacher.load_options import LoadOptions
    from edgekit.teacher.loading import load_model

    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    if name == "demo":
        model, load = teacher_path(), LoadOptions()
        drawn = np.stack([draw_image(1, "val", index).pixels for index in range(DRAWN)])
    else:
        from measuring.images import SHARED
        from prepare_data import MODELS, card_of

        arch, arguments, _ = MODELS[name]
        model = SHARED / "models" / f"{name}.safetensors"
        load = LoadOptions(arch=arch, arguments=arguments, card=card_of(SHARED, name))
        real_network(name)  # says so where the weights are missing
        drawn = image_folder("cifar10", DRAWN, work).view.pixels(32, 32)
    loaded = load_model(model, load)
    if not (folder / "int8.onnx").is_file():
        explained = next(iter(explained_forms(loaded).values()))
        (folder / "fp32.onnx").write_bytes(explained.model.SerializeToString(deterministic=True))
        view = image_folder("cifar10" if name != "demo" else "camvid-crops", CALIBRATION_IMAGES, work).view
        quantised = minmax_int8(folder / "fp32.onnx", view.prepared(loaded.card.input)).model
        (folder / "int8.onnx").write_bytes(quantised.SerializeToString(deterministic=True))
    for count in counts:
        golden(GoldenRequest(model, load, RepeatedImages(drawn, count), MAPS), folder / f"golden-{count}")
    return folder


def child(kind: str, artifact: Path, golden_folder: Path, threads: int) -> dict[str, Any]:
    """One measurement: seconds of the work, seconds of reading the golden set, and peak memory."""
    begun = time.perf_counter()
    golden = read_golden(golden_folder)
    read = time.perf_counter() - begun
    options = EngineOptions(threads=threads)
    both = 0
    if kind == RAW:
        seconds, cpu = _raw(artifact, golden, options)
    else:
        request = VerifyRequest(
            ENGINE.name, artifact, golden_folder, load_preset("default"), options, controls=kind == WHOLE
        )
        begun, cpu_begun = time.perf_counter(), time.process_time()
        done = verify_engine(request, golden)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
        both = done.answers.asked_both_ways or 0
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "read_seconds": read,
        "peak_mib": _peak_mib(),
        "asked_both_ways": both,
    }


def _peak_mib() -> float:
    """Peak memory of this process; `getrusage` would tell the parent's, which it was forked from."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def _raw(artifact: Path, golden: Any, options: EngineOptions) -> tuple[float, float]:
    """The engine alone: nothing but its `run` is on the clock, and opening it."""
    begun, cpu_begun = time.perf_counter(), time.process_time()
    with ENGINE.open(artifact, options) as runner:
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
        for start in range(0, len(golden), BATCH):
            images = preprocess(golden.pixels[start : start + BATCH], golden.card.input)
            classes = np.full(len(images), OWN_CLASS, dtype=np.int32)
            begun, cpu_begun = time.perf_counter(), time.process_time()
            runner.run(images, classes)
            seconds += time.perf_counter() - begun
            cpu += time.process_time() - cpu_begun
            release(golden.pixels)
    return seconds, cpu


def measured(artifact: Path, golden_folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """All kinds in turns, in another order every round."""
    taken: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for turn in range(rounds):
        for kind in KINDS[:: -1 if turn % 2 else 1]:
            command = [sys.executable, __file__, "--child", kind, str(artifact), str(golden_folder), str(threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            taken[kind].append(json.loads(done.stdout.splitlines()[-1]))
    alone = taken[RAW]
    return {
        kind: {
            "seconds": [round(one["seconds"], 3) for one in runs],
            "cpu_seconds": [round(one["cpu_seconds"], 3) for one in runs],
            "over_engine_alone": _ratio(alone, runs, "seconds"),
            "cpu_over_engine_alone": _ratio(alone, runs, "cpu_seconds"),
            "peak_mib": round(statistics.median(one["peak_mib"] for one in runs), 1),
            "read_seconds": round(statistics.median(one["read_seconds"] for one in runs), 3),
            "asked_both_ways": runs[0]["asked_both_ways"],
        }
        for kind, runs in taken.items()
    }


def _ratio(alone: list[dict[str, Any]], runs: list[dict[str, Any]], what: str) -> float:
    """Median over rounds of the engine's time over that of the other run in the same round."""
    return round(statistics.median(one[what] / other[what] for one, other in zip(alone, runs, strict=True)), 3)


def rows(document: dict[str, Any]) -> Iterator[str]:
    """The table."""
    yield (
        "| network | precision | samples | engine alone, images/s | verification | without controls "
        "| by processor time | without controls | peak MiB, engine alone | peak MiB, verification |"
    )
    yield "|" + "---|" * 10
    for case in document["cases"]:
        kinds = case["kinds"]
        speed = case["samples"] / statistics.median(kinds[RAW]["seconds"])
        yield (
            f"| {case['network']} | {case['precision'].upper()} | {case['samples']:,} | {speed:,.0f} "
            f"| {kinds[WHOLE]['over_engine_alone']:.2f} | {kinds[PLAIN]['over_engine_alone']:.2f} "
            f"| {kinds[WHOLE]['cpu_over_engine_alone']:.2f} | {kinds[PLAIN]['cpu_over_engine_alone']:.2f} "
            f"| {kinds[RAW]['peak_mib']:.0f} | {kinds[WHOLE]['peak_mib']:.0f} |"
        )


def written(document: dict[str, Any], results: Path) -> None:
    """Write numbers and table."""
    write_json(results / "verify_throughput.json", document)
    machine = document["environment"]
    text = [
        "# How fast a verification is beside the engine alone",
        "",
        "Made by benchmarks/verify_throughput.py; every number is in verify_throughput.json. Throughput over that of "
        "the engine's `run` alone, once a sample in batches of 16 that were prepared beforehand: median over "
        f"{document['rounds']} rounds, in turns, each in a process of its own. The goal is {GOAL}. Other work ran on "
        f"the machine at the time: load {document['load_per_cpu']} a processor.",
        "",
        f"Measured on {machine['processor']} with {machine['logical_cpus']} logical processors, engine threads: "
        f"{document['threads'] or 'as many as the runtime likes'}.",
        "",
        *rows(document),
        "",
    ]
    (results / "verify_throughput.md").write_text("\n".join(text), encoding="utf-8")


@click.command()
@click.option("--only", default="*", help="Networks, such as 'demo'.")
@click.option("--samples", type=int, multiple=True, default=(1000, 10000), show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=0, show_default=True, help="Of the engine; 0 leaves the choice to the runtime.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/verify-throughput"), show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
def main(only: str, samples: tuple[int, ...], rounds: int, threads: int, work: Path, results: Path) -> None:
    """Measure and write down."""
    work.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"environment": environment_print(), "goal": GOAL, "rounds": rounds, "threads": threads}
    cases = []
    for name in (network for network in NETWORKS if fnmatch(network, only)):
        folder = prepared(name, samples, work)
        for precision in PRECISIONS:
            for count in samples:
                kinds = measured(folder / f"{precision}.onnx", folder / f"golden-{count}", rounds, threads)
                cases.append({"network": name, "precision": precision, "samples": count, "kinds": kinds})
                click.echo(f"{name} {precision} {count}: {json.dumps(kinds)}")
                document |= {"cases": cases, "load_per_cpu": round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)}
                written(document, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))))
    else:
        main()
