"""What TensorRT logs, kept, and turned into our errors: it answers None and explains itself in its log."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.errors import BadInputError, EdgekitError, IntegrityError, UnavailableError

__all__ = ["Messages", "build_failure", "make_logger", "plan_failure"]

_KEPT = 200
_SKIPPED = "skipping tactic"

# Where a message says it: TensorRT issues 564, 2176, 2900; jetson-inference 426, 883.
_OTHER_DEVICE = re.compile(r"incompatible device|expecting compute|different (gpu )?models? of device", re.IGNORECASE)
_OTHER_VERSION = re.compile(
    r"not compatible with this version|expecting library version|version tag does not match|serialization.*version",
    re.IGNORECASE,
)
_NO_DRIVER = re.compile(r"CUDA initialization failure|insufficient for CUDA|no CUDA-capable", re.IGNORECASE)
_MEMORY = re.compile(r"out of memory|OutOfMemory|memory allocation|insufficient memory", re.IGNORECASE)


@dataclass
class Messages:
    """What was logged by one builder or runtime.

    Attributes:
        errors: Texts of errors, the oldest first, at most some hundred.
        warnings: The same of warnings.
        skipped_tactics: Kernels that the builder did not try for want of memory: the engine may be slower for it.
        interruption: What was raised while the library called us, such as Ctrl-C: it cannot pass through the library,
            so whoever called the library raises it afterwards, with `raise_interruption`.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    skipped_tactics: int = 0
    interruption: BaseException | None = None

    def take(self, kind: str, text: str) -> None:
        """Keep a message; `kind` is the name of its severity."""
        if _SKIPPED in text.lower():
            self.skipped_tactics += 1
        kept = {"INTERNAL_ERROR": self.errors, "ERROR": self.errors, "WARNING": self.warnings}.get(kind)
        if kept is not None and len(kept) < _KEPT:
            kept.append(text.strip())

    def raise_interruption(self) -> None:
        """Raise what could not be raised within the library; nothing where that was nothing."""
        if self.interruption is not None:
            interruption, self.interruption = self.interruption, None
            raise interruption

    def summary(self, otherwise: str) -> str:
        """The errors in one line, or `otherwise` where none was logged."""
        return "; ".join(self.errors[:3]) if self.errors else otherwise


def make_logger(tensorrt: TensorRt, messages: Messages) -> Any:
    """An `ILogger` that keeps what it is told. It has to live as long as whatever was made with it."""
    base: Any = tensorrt.module.ILogger

    class Logger(base):  # type: ignore[misc]
        def __init__(self) -> None:
            # Called by name: the bindings refuse an object whose base was not constructed.
            base.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            try:
                messages.take(str(severity).rpartition(".")[2].split(":")[0], str(msg))
            except BaseException as interruption:
                messages.interruption = interruption

    return Logger()


def build_failure(messages: Messages, where: str) -> EdgekitError:
    """Why a build came to nothing."""
    found = messages.summary("no reason was logged")
    if _NO_DRIVER.search(found):
        return UnavailableError(
            "TensorRT cannot use the GPU.",
            where=where,
            expected="an NVIDIA driver that is loaded, and new enough for this TensorRT",
            found=found,
            hint="update the driver; on a Jetson: JetPack",
        )
    if _MEMORY.search(found):
        return UnavailableError(
            "TensorRT ran out of memory while it built the engine.",
            where=where,
            expected="free device memory for the kernels that are tried",
            found=found,
            hint="close other programs (on a Jetson the desktop, too), build with a smaller batch (tensorrt.batches), "
            "or lower tensorrt.workspace",
        )
    return BadInputError(
        "TensorRT could not build an engine from this graph.",
        where=where,
        expected="a kernel for every layer on this device",
        found=found,
        hint="run the same graph with trtexec --verbose to see which layer it gives up at",
    )


def plan_failure(messages: Messages, where: str, here: str) -> EdgekitError:
    """Why a plan was not accepted; `here` describes this TensorRT and device."""
    found = messages.summary("no reason was logged")
    if _NO_DRIVER.search(found):
        return UnavailableError(
            "TensorRT cannot use the GPU.",
            where=where,
            expected="an NVIDIA driver that is loaded, and new enough for this TensorRT",
            found=found,
            hint="update the driver; on a Jetson: JetPack",
        )
    if _OTHER_VERSION.search(found) or _OTHER_DEVICE.search(found):
        return UnavailableError(
            "The engine was built for another device or another TensorRT.",
            where=where,
            expected=f"an engine for {here}",
            found=found,
            hint="build it again on this device: a plan fits the TensorRT and the GPU it was built with",
        )
    if _MEMORY.search(found):
        return UnavailableError(
            "There is too little memory to load the engine.",
            where=where,
            expected="free device memory for the engine",
            found=found,
            hint="close other programs; on a Jetson CPU and GPU share their memory",
        )
    return IntegrityError(
        "TensorRT does not accept the engine.",
        where=where,
        expected=f"an engine for {here}",
        found=found,
        hint="build it again on this device",
    )
