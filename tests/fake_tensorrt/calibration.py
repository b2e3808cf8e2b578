"""Implicit INT8: how the builder uses a calibrator. The scales change nothing of what the fake executes.

A fake engine runs the floating graph whatever the calibrator says; what is tested through this is that cache and
batches are asked for, used and written as TensorRT does.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from fake_cuda.errors import CudaFault

from fake_tensorrt.api import Api
from fake_tensorrt.network import Network

__all__ = ["cache_header", "calibrate"]

ALGORITHMS = {"ENTROPY_CALIBRATION_2": "EntropyCalibration2", "MINMAX_CALIBRATION": "MinMaxCalibration"}


def cache_header(api: Api, algorithm: str) -> str:
    """First line of a cache of this version."""
    major, minor = api.number
    patch = int(api.version.split(".")[2])
    digits = f"{major}{minor}{patch:02d}" if major < 10 else f"{major}{minor:02d}{patch:02d}"
    return f"TRT-{digits}-{ALGORITHMS[algorithm]}"


def calibrate(api: Api, calibrator: Any, network: Network, logger: Any) -> bool:
    """Read the cache, or else ask for batches and write one; False where neither is any good."""
    algorithm = calibrator.get_algorithm().name
    stored = api.ask(calibrator, "read_calibration_cache")
    if stored is not None and _usable(api, bytes(memoryview(stored)), algorithm, network, logger):
        return True
    size = api.ask(calibrator, "get_batch_size", otherwise=-1)
    if size < 1:
        api.log(logger, "ERROR", f"the calibrator's batches have {size} samples")
        return False
    names = [tensor.name for tensor in network.inputs]
    batches = 0
    while (pointers := api.ask(calibrator, "get_batch", names)) is not None and len(pointers) > 0:
        if not _readable(api, pointers, size, network, logger):
            return False
        batches += 1
    if batches == 0:
        api.log(logger, "ERROR", "the calibrator gave no batch")
        return False
    lines = [cache_header(api, algorithm)]
    for layer in network.layers:
        lines += [f"{output.name}: {struct.pack('!f', 1 / 127).hex()}" for output in layer.outputs]
    api.ask(calibrator, "write_calibration_cache", ("\n".join(lines) + "\n").encode())
    return True


def _readable(api: Api, pointers: Any, size: int, network: Network, logger: Any) -> bool:
    if not api.accepts("list[int]", pointers) or len(pointers) != len(network.inputs):
        api.log(logger, "ERROR", f"the calibrator gave {len(pointers)} pointers for {len(network.inputs)} inputs")
        return False
    for tensor, pointer in zip(network.inputs, pointers, strict=True):
        count = int(np.prod([size if each == -1 else each for each in tensor.shape]))
        try:
            api.machine.memory.device_view(int(pointer), count * 4)
        except CudaFault as fault:
            api.log(logger, "ERROR", f"Error Code 1: Cuda Runtime (batch of {tensor.name}: {fault})")
            return False
    return True


def _usable(api: Api, data: bytes, algorithm: str, network: Network, logger: Any) -> bool:
    lines = data.decode().splitlines()
    if not lines or lines[0] != cache_header(api, algorithm):
        api.log(logger, "WARNING", f"the calibration cache begins with {lines[:1]}, not {cache_header(api, algorithm)}")
        return False
    known = dict(line.rsplit(": ", 1) for line in lines[1:] if line)
    for name, digits in known.items():
        if len(digits) != 8 or not struct.unpack("!f", bytes.fromhex(digits))[0] > 0:
            api.log(logger, "ERROR", f"the scale of {name} is {digits}")
            return False
    floating = [each for layer in network.layers for each in layer.outputs if each.dtype.name in ("FLOAT", "HALF")]
    for name in (tensor.name for tensor in floating if tensor.name not in known):
        api.log(logger, "WARNING", f"Missing scale and zero-point for tensor {name}, expect fall back to non-int8")
    return True
