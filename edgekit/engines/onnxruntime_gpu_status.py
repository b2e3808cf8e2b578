"""What may be claimed of ONNX Runtime's GPU engines. One sentence, beside everything that a user reads of them."""

from __future__ import annotations

__all__ = ["NEVER_RUN_ON_GPU"]

NEVER_RUN_ON_GPU = (
    "edgekit's engines on ONNX Runtime's GPU providers have never run on a GPU: they were tested with a stand-in for "
    "the provider, over ONNX Runtime's CPU session"
)
"""Stays until a result from a GPU is stored beside the code."""
