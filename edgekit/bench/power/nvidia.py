"""Energy of an NVIDIA card, by the counter that the driver's management library (NVML) reads.

The counter and not the power that `nvidia-smi --query-gpu=power.draw` prints: on Ampere and newer that is a mean over a
second (nvidia-smi's manual, "power.draw"), in which other engines ran. Cards older than Volta have no counter, and are
not measured. NVML is called directly, so that no package is needed. Written from NVIDIA's NVML reference; it was never
run on a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.bench.power.registry import NoPowerSource, PowerReadError, PowerSource

__all__ = ["NEVER_RUN_ON_A_GPU", "find"]

_NAME = "nvidia-gpu"
_LIBRARY = "libnvidia-ml.so.1"
_NOT_SUPPORTED = 3
# The driver renews the counter about ten times a second; reading more often finds sooner when it did.
_PERIOD_S = 0.02

NEVER_RUN_ON_A_GPU = "read by code that was never run on a GPU"
"""Stands beside every number of this source until somebody has compared it with a meter."""


def find(root: Path, load: Callable[[str], Any] = ctypes.CDLL) -> PowerSource | NoPowerSource:
    """The machine's one NVIDIA card; why not, where there is none, several, or no counter.

    Args:
        root: Where a driver leaves its traces; without one no library is loaded.
        load: Opens a shared library.
    """
    if not (root / "proc/driver/nvidia/version").exists():
        return NoPowerSource(_NAME, "no NVIDIA driver")
    try:
        library = load(_LIBRARY)
        _called(library, "nvmlInit_v2")
        count = ctypes.c_uint()
        _called(library, "nvmlDeviceGetCount_v2", ctypes.byref(count))
        if count.value != 1:
            # Which of them an engine runs on is the environment's choice, and NVML numbers them otherwise.
            return NoPowerSource(_NAME, f"{count.value} NVIDIA cards, and nothing tells which of them an engine is on")
        device = ctypes.c_void_p()
        _called(library, "nvmlDeviceGetHandleByIndex_v2", 0, ctypes.byref(device))
        _joules(library, device)
    except (OSError, AttributeError) as cause:
        return NoPowerSource(_NAME, f"{_LIBRARY} cannot be used ({str(cause)[:100]})")
    except PowerReadError as cause:
        return NoPowerSource(_NAME, str(cause))
    return PowerSource(
        name=_NAME,
        scope="the NVIDIA card, without the processor that feeds it",
        remark=NEVER_RUN_ON_A_GPU,
        covers=frozenset({"gpu"}),
        unit="joules",
        period_s=_PERIOD_S,
        read=partial(_joules, library, device),
    )


def _joules(library: Any, device: ctypes.c_void_p) -> float:
    millijoules = ctypes.c_ulonglong()
    _called(library, "nvmlDeviceGetTotalEnergyConsumption", device, ctypes.byref(millijoules))
    return millijoules.value / 1e3


def _called(library: Any, function: str, *arguments: Any) -> None:
    code = getattr(library, function)(*arguments)
    if code == _NOT_SUPPORTED:
        raise PowerReadError("the NVIDIA card has no energy counter (cards older than Volta have none)")
    if code != 0:
        raise PowerReadError(f"NVML's {function} answered with error {code}")
