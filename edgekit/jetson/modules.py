"""Jetson modules: how a device tells which one it is. Names are those of targets; facts about speed are in the targets.

Part numbers: the quick start and module pages of the Jetson Linux developer guide, as gathered in rbonghi/jetson_stats
and in the machine tables of Seeed Studio. Several boards are sold under one part number, hence the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.jetson.releases import ORIN, THOR, XAVIER

__all__ = ["MODULES", "Module"]


@dataclass(frozen=True)
class Module:
    """A module.

    Attributes:
        name: Name of its target.
        soc: System on chip, as the device tree calls it.
        words: What the model's text says of it, in lower case; all of them.
        parts: Part numbers, as the device tree writes them: "p3767-0003".
        memory_gib: Sizes of memory that it is sold with.
        super_name: Name of its target in the faster power modes of later releases; None where that is no target of
            its own.
    """

    name: str
    soc: str
    words: tuple[str, ...]
    parts: tuple[str, ...]
    memory_gib: tuple[int, ...]
    super_name: str | None = None


MODULES: tuple[Module, ...] = (
    Module("jetson-xavier-nx", XAVIER, ("xavier", "nx"), ("p3668-0000", "p3668-0001", "p3668-0003"), (8, 16)),
    Module(
        "jetson-agx-xavier",
        XAVIER,
        ("agx", "xavier"),
        ("p2888-0001", "p2888-0003", "p2888-0004", "p2888-0005", "p2888-0006", "p2888-0008", "p2972-0000"),
        (8, 16, 32, 64),
    ),
    Module("jetson-orin-nano-4gb", ORIN, ("orin", "nano"), ("p3767-0004",), (4,)),
    Module(
        "jetson-orin-nano-8gb", ORIN, ("orin", "nano"), ("p3767-0003", "p3767-0005"), (8,), "jetson-orin-nano-super"
    ),
    Module("jetson-orin-nx-8gb", ORIN, ("orin", "nx"), ("p3767-0001",), (8,)),
    Module("jetson-orin-nx-16gb", ORIN, ("orin", "nx"), ("p3767-0000",), (16,)),
    # The first developer kits carry p3701-0000, with 32 GB.
    Module("jetson-agx-orin-32gb", ORIN, ("agx", "orin"), ("p3701-0000", "p3701-0004"), (32,)),
    Module("jetson-agx-orin-64gb", ORIN, ("agx", "orin"), ("p3701-0000", "p3701-0005"), (64,)),
    Module("jetson-thor-t4000", THOR, ("thor",), ("p3834-0000",), (64,)),
    Module("jetson-thor-t5000", THOR, ("thor",), ("p3834-0008",), (128,)),
)
