"""Devices that the fake can be: numbers of data sheets, enough to tell one module from another."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AGX_ORIN_64", "DEVICES", "ORIN_NANO_8", "RTX_3090", "THOR_T5000", "XAVIER_NX", "FakeDevice"]

GIB = 1 << 30


@dataclass(frozen=True)
class FakeDevice:
    """What the driver says of a device.

    Attributes:
        name: As `cudaDeviceProp.name`.
        capability: (major, minor).
        multiprocessors: Count of SMs.
        memory: Bytes; shared with the host where `integrated`.
        integrated: Memory is the host's, and pinned memory can be mapped.
        dla_cores: Deep learning accelerators.
        driver: CUDA version of the driver, 1000 * major + 10 * minor.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory: int
    integrated: bool
    dla_cores: int
    driver: int


XAVIER_NX = FakeDevice("Xavier", (7, 2), 6, 8 * GIB, integrated=True, dla_cores=2, driver=11040)
ORIN_NANO_8 = FakeDevice("Orin", (8, 7), 8, 8 * GIB, integrated=True, dla_cores=0, driver=12060)
AGX_ORIN_64 = FakeDevice("Orin", (8, 7), 16, 64 * GIB, integrated=True, dla_cores=2, driver=12060)
THOR_T5000 = FakeDevice("NVIDIA Thor", (11, 0), 20, 128 * GIB, integrated=True, dla_cores=0, driver=13000)
RTX_3090 = FakeDevice("NVIDIA GeForce RTX 3090", (8, 6), 82, 24 * GIB, integrated=False, dla_cores=0, driver=13000)

DEVICES = {
    "xavier-nx": XAVIER_NX,
    "orin-nano-8": ORIN_NANO_8,
    "agx-orin-64": AGX_ORIN_64,
    "thor-t5000": THOR_T5000,
    "rtx-3090": RTX_3090,
}
