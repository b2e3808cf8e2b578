"""What every worker shares: the request it reads, the questions it answers, and images that stay on disk.

A worker is a script that runs in an environment of its own and imports nothing of edgekit; this module needs the
standard library and numpy. It is told of one request, a JSON file, in its first argument:

    graph       FP32 ONNX file with inputs `image`, `class_index` and outputs `logits`, `attribution`
    images      .npy, float32 [N, 3, H, W]; the first `count` of them calibrate
    count       how many
    output      file to write the quantised model to
    options     what the method is told, its own business
    evaluation  .npy of images to answer, for tools whose models run nowhere else; with `classes` (.npy, int32) and
                `answers` (.npz to write)

and then a line on standard input at a time: `calibrate` or `answer`. Each is answered by one line of JSON on what was
standard output when the worker began; everything that libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Images", "map_only_nodes", "serve"]

_Request = dict[str, Any]


class Images:
    """The first images of an .npy file, read again on every pass, so that memory shows the tool and not the data."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            self._begin = file.tell()
        self._shape, self._dtype = shape[1:], dtype
        self._count = min(count, shape[0]) if count else shape[0]

    def __len__(self) -> int:
        return self._count

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Yield float32 [n, 3, H, W], n at most `batch_size`."""
        size = int(np.prod(self._shape))
        with self._path.open("rb") as file:
            file.seek(self._begin)
            for start in range(0, self._count, batch_size):
                number = min(batch_size, self._count - start)
                yield np.fromfile(file, self._dtype, number * size).reshape(number, *self._shape)


def map_only_nodes(nodes: Any) -> list[str]:
    """Names of the ONNX nodes that the logits do not depend on: the map's own part of the graph."""
    producer = {name: node for node in nodes for name in node.output if name}
    seen, pending = set[int](), ["logits"]
    while pending:
        node = producer.get(pending.pop())
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            pending.extend(node.input)
    return [node.name for node in nodes if id(node) not in seen]


def serve(
    package: str,
    calibrate: Callable[[_Request], dict[str, Any] | None],
    answer: Callable[[_Request], None] | None = None,
) -> None:
    """Answer questions until standard input ends.

    Args:
        package: Distribution whose version is told.
        calibrate: Writes the quantised model; what it returns is passed on.
        answer: Writes logits and maps of the quantised model.
    """
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps({"package": package, "version": version(package)}), file=channel, flush=True)
    for line in sys.stdin:
        if line.strip() == "calibrate":
            told = _measured(calibrate, request)
        else:
            assert answer is not None
            answer(request)
            told = {}
        print(json.dumps(told), file=channel, flush=True)


def _measured(calibrate: Callable[[_Request], dict[str, Any] | None], request: _Request) -> dict[str, Any]:
    before = _reset_peak()
    begun = time.perf_counter()
    told = calibrate(request) or {}
    return {"seconds": time.perf_counter() - begun, "peak_bytes": max(_status("VmHWM") - before, 0), **told}


def _reset_peak() -> int:
    """Forget the high-water mark that importing left, and return the bytes resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024
