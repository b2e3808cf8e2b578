"""Logger: the bindings' own, which prints."""

from __future__ import annotations

import sys
from typing import Any

from fake_tensorrt.api import Api, Behaviour

__all__ = ["Logger"]

LETTERS = {"INTERNAL_ERROR": "F", "ERROR": "E", "WARNING": "W", "INFO": "I", "VERBOSE": "V"}


class Logger(Behaviour):
    """Logger."""

    public_name = "Logger"

    def __init__(self, api: Api, min_severity: Any) -> None:
        super().__init__(api)
        self.min_severity = min_severity

    def log(self, severity: Any, message: str) -> None:
        """Print what is at least as severe as asked for."""
        if int(severity) <= int(self.min_severity):
            sys.stderr.write(f"[TRT] [{LETTERS[severity.name]}] {message}\n")
