"""Stand-ins for packages that the second libraries import and our tests never call.

pytorch-grad-cam and zennit import torchvision, OpenCV and scikit-learn when they are imported, for drawing, for
detection and for maps that we do not compare with. The three are large, and each torchvision fits one build of torch
only. Here each name of theirs is a class that cannot be made: importing works, using raises.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

__all__ = ["STUBBED", "Absent", "stubs"]

# Every module that has to be importable, parents first.
STUBBED = (
    "cv2",
    "sklearn",
    "sklearn.decomposition",
    "torchvision",
    "torchvision.models",
    "torchvision.models.resnet",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


class Absent:
    """Whatever a stubbed package would define."""

    def __init__(self, *arguments: object, **keywords: object) -> NoReturn:
        raise NotImplementedError(f"{type(self).__qualname__} is a stand-in: the package is not installed")


class _Stub(ModuleType):
    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = type(name, (Absent,), {"__module__": self.__name__, "__qualname__": f"{self.__name__}.{name}"})
        setattr(self, name, found)
        return found


@contextmanager
def stubs() -> Iterator[None]:
    """Make the stubbed modules importable inside the block, those of packages that are really installed excepted.

    Afterwards they are as absent as before: nothing else may take them for the real ones.
    """
    absent = [name for name in STUBBED if find_spec(name.partition(".")[0]) is None]
    for name in absent:
        sys.modules[name] = _Stub(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
