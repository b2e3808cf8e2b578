"""Plans: what the fake builder writes and the fake runtime reads, and the ways in which one can be no good.

A plan of the fake is marked as such in its first bytes. It holds the ONNX graph that will be executed, what it was
built for, and what it was asked to be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BadPlanError", "Plan", "of_another_device", "of_another_version", "pack", "unpack"]

MAGIC = b"FAKE-TENSORRT-PLAN\n"


class BadPlanError(Exception):
    """Bytes that are no whole plan."""


@dataclass(frozen=True)
class Plan:
    """A plan taken apart: facts that are JSON, and the graph."""

    header: Mapping[str, Any]
    model: bytes


def pack(plan: Plan) -> bytes:
    """The bytes of a plan: magic, digest of the rest, length of the header, header, graph."""
    header = json.dumps(plan.header, sort_keys=True).encode()
    rest = len(header).to_bytes(8, "little") + header + plan.model
    return MAGIC + hashlib.sha256(rest).digest() + rest


def unpack(data: bytes) -> Plan:
    """The plan in some bytes.

    Raises:
        BadPlanError: They hold none, or a damaged one.
    """
    if not data.startswith(MAGIC):
        raise BadPlanError("magicTagRead == kMAGIC_TAG failed. Magic tag does not match")
    digest, rest = data[len(MAGIC) :][:32], data[len(MAGIC) + 32 :]
    if hashlib.sha256(rest).digest() != digest:
        raise BadPlanError("checksum failed. The plan is cut short or damaged")
    size = int.from_bytes(rest[:8], "little")
    return Plan(json.loads(rest[8 : 8 + size]), rest[8 + size :])


def of_another_device(data: bytes, capability: tuple[int, int], name: str = "Another device") -> bytes:
    """The same plan, as if built on another device."""
    plan = unpack(bytes(memoryview(data)))
    return pack(Plan({**plan.header, "capability": list(capability), "device": name}, plan.model))


def of_another_version(data: bytes, version: str) -> bytes:
    """The same plan, as if built by another TensorRT."""
    plan = unpack(bytes(memoryview(data)))
    return pack(Plan({**plan.header, "version": version}, plan.model))
