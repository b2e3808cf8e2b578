"""NVIDIA's driver, asked by its C interface: which CUDA it supports, and the card's name. Starts nothing by itself."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

__all__ = ["cuda_of_driver", "device_name"]

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 256


def cuda_of_driver() -> tuple[int, int] | None:
    """The newest CUDA that the driver supports, such as (12, 4); None without a driver.

    `cuDriverGetVersion` needs no initialisation and makes no context (CUDA Driver API, "Version Management").
    """
    driver = _driver()
    version = ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0 or version.value <= 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def device_name(number: int) -> str:
    """The card's name, empty where the driver does not tell. Initialises the driver, and makes no context."""
    driver = _driver()
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(_NAME_BYTES)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), number) != 0:
        return ""
    if driver.cuDeviceGetName(name, _NAME_BYTES, device) != 0:
        return ""
    return name.value.decode("utf-8", "replace")


def _driver() -> Any:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
