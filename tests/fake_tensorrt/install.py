"""Putting the fakes where imports find them, and taking them away again with an account of what is left."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec

from fake_cuda.cuda_python import make_cuda_python
from fake_cuda.machine import FakeMachine
from fake_cuda.pycuda_module import make_pycuda

from fake_tensorrt.module import make_tensorrt

__all__ = ["INTERFACES", "MISSING_LIBRARIES", "Installed", "installed"]

ROOTS = ("tensorrt", "pycuda", "cuda")
INTERFACES = ("pycuda", "cuda-python-12.6", "cuda-python-12.9", "cuda-python-13")

# What an import says when the library behind it is missing.
MISSING_LIBRARIES = {
    "tensorrt": "libnvinfer.so.10: cannot open shared object file: No such file or directory",
    "pycuda": "libcuda.so.1: cannot open shared object file: No such file or directory",
}


@dataclass(frozen=True)
class Installed:
    """What was installed: the machine, and the modules by name."""

    machine: FakeMachine
    modules: Mapping[str, types.ModuleType]


class _Absent:
    """A finder that lets imports of some packages fail with the words that a missing library causes."""

    def __init__(self, messages: Mapping[str, str]) -> None:
        self._messages = messages

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """Fail for the packages of the fake that are not installed, whether the machine has them or not."""
        root = name.partition(".")[0]
        if root in self._messages:
            raise ImportError(self._messages[root], name=name)
        if root in ROOTS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


@contextmanager
def installed(
    version: str | None,
    interfaces: Sequence[str] = ("pycuda",),
    machine: FakeMachine | None = None,
    broken: Mapping[str, str] | None = None,
) -> Iterator[Installed]:
    """Let `import tensorrt` and the CUDA interfaces find fakes, and nothing else, for a while.

    Args:
        version: Of TensorRT; None for a machine without it.
        interfaces: Some of `INTERFACES`.
        machine: Where all of it runs; a new one by default.
        broken: Packages whose import fails, with the message: see `MISSING_LIBRARIES`.
    """
    machine = machine or FakeMachine()
    modules: dict[str, types.ModuleType] = {}
    if version is not None:
        modules["tensorrt"] = make_tensorrt(version, machine)
    for interface in interfaces:
        if interface == "pycuda":
            modules["pycuda"], modules["pycuda.driver"] = make_pycuda(machine)
        else:
            modules |= make_cuda_python(machine, interface.rpartition("-")[2])
    for name in broken or {}:
        modules = {key: module for key, module in modules.items() if key.partition(".")[0] != name}
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ROOTS}
    finder = _Absent(broken or {})
    for name in before:
        del sys.modules[name]
    sys.modules.update(modules)
    sys.meta_path.insert(0, finder)
    try:
        yield Installed(machine, modules)
    finally:
        sys.meta_path.remove(finder)
        for name in [each for each in sys.modules if each.partition(".")[0] in ROOTS]:
            del sys.modules[name]
        sys.modules.update(before)
