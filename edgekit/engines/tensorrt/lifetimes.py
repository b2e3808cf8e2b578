"""When objects of the library go: in good order also where an error was raised between them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from edgekit.engines.tensorrt.memory import DeviceMemory
from edgekit.errors import UnavailableError

__all__ = ["closed_after_objects", "drop_locals"]


def drop_locals(error: BaseException) -> None:
    """Let go of what the frames of an error hold, its causes' too.

    A traceback keeps every local variable alive: builders and engines would outlive the CUDA context they work in, and
    crash the process when the error is dropped at last. Frames that still run are left alone.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        pending += [each.__cause__, each.__context__]


@contextmanager
def closed_after_objects(memory: DeviceMemory, *, keep: bool) -> Iterator[None]:
    """Close the device when the block ends, after TensorRT's objects in it; with `keep`, only after an error.

    What closing says after an error is not told: what went wrong before is of more use.
    """
    try:
        yield
    except BaseException as error:
        with suppress(UnavailableError):
            with memory.active():
                drop_locals(error)
            memory.close()
        raise
    if not keep:
        memory.close()
