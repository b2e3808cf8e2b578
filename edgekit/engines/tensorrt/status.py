"""What may be claimed of this engine. One sentence, written beside everything that a user reads of it."""

from __future__ import annotations

__all__ = ["NEVER_RUN"]

NEVER_RUN = (
    "edgekit's TensorRT engine has never run on a real TensorRT: it was written against the names and signatures of "
    "the genuine Python bindings and tested with a stand-in for them"
)
"""Stays until a result from a device is stored beside the code."""
