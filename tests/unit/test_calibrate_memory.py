"""Memory of calibration does not grow with the images: measured in a process of its own, as a system sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from explained_graphs import GraphBuilder
from onnx import ModelProto

from edgekit.calibrate.calibrator import CALIBRATORS

FEW, MANY = 64, 1024
SIDE, CHANNELS = 24, 16
# Methods that look at one tensor at a time. Those with the map in their objective hold images they judge by.
STREAMING = [name for name in CALIBRATORS.names() if not name.startswith("attribution")]
HOARDING = "hoarding"
# The highest water mark of the process. `getrusage` has it too, but starts from that of the process it was forked from.
STATUS = Path("/proc/self/status")

pytestmark = pytest.mark.skipif(not STATUS.is_file(), reason="the system does not tell a process's peak")


def wide_graph() -> ModelProto:
    """Few weights and large activations: 37 kB an image each, six times."""
    g = GraphBuilder(side=SIDE)
    x = g.relu(g.conv("image", 3, CHANNELS, kernel=1))
    for _ in range(2):
        x = g.relu(g.op("Add", g.conv(x, CHANNELS, CHANNELS, kernel=1), x))
    g.pooled_head(x, CHANNELS, 5, SIDE * SIDE)
    return g.model()


@dataclass(frozen=True)
class DrawnImages:
    """Images made when they are asked for."""

    count: int

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(f"image {number}" for number in range(self.count))

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        for start in range(0, self.count, batch_size):
            shape = (min(batch_size, self.count - start), 3, SIDE, SIDE)
            yield np.random.default_rng(start).normal(0, 1, shape).astype(np.float32)


def calibrate_here(method: str, count: int) -> None:
    from edgekit.calibrate.calibrator import CalibrationContext
    from edgekit.calibrate.formats import number_format
    from edgekit.calibrate.graph import parse_graph
    from edgekit.calibrate.observers import ActivationStream
    from edgekit.calibrate.options import CalibrateOptions
    from edgekit.calibrate.placement import place

    graph, fmt = parse_graph(wide_graph().SerializeToString(), where="test"), number_format("x86-u8s8")
    images = DrawnImages(count)
    options = CalibrateOptions(method="minmax", bins=256, images=0, batch_size=16)
    context = CalibrationContext(graph, place(graph, fmt), fmt, images, options)
    if method == HOARDING:
        stream = ActivationStream(graph, context.placement.observed, images, options.batch_size)
        kept = list(stream.run("hoard"))
        assert len(kept) == count // 16
        return
    ranges = CALIBRATORS.load(method)(options).solve(context).ranges
    assert len(ranges) == len(context.placement.observed)


def peak() -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


@cache
def peaks(method: str) -> tuple[int, int]:
    """Bytes at most after few images, and after many more."""
    places = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    told = subprocess.run(
        [sys.executable, __file__, method],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
    )
    found: Any = json.loads(told.stdout)
    return found[0], found[1]


def kept_bytes() -> int:
    """What it would take to keep one activation of the images that are more."""
    return (MANY - FEW) * 4 * CHANNELS * SIDE * SIDE


@pytest.mark.parametrize("method", STREAMING)
def test_peak_memory_is_flat(method: str) -> None:
    few, many = peaks(method)
    assert many <= 1.2 * few
    # The runtime and the interpreter hide a good part of a growth: not even one tensor's activations may be kept.
    assert many - few <= kept_bytes() / 2


def test_what_keeps_activations_is_found_out() -> None:
    few, many = peaks(HOARDING)
    assert many > 1.2 * few
    assert many - few > 3 * kept_bytes()


if __name__ == "__main__":
    calibrate_here(sys.argv[1], FEW)
    first = peak()
    calibrate_here(sys.argv[1], MANY)
    print(json.dumps([first, peak()]))
