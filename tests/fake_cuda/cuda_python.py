"""Fake modules of cuda-python: `cuda.bindings.runtime` and, in 12.x, `cuda.cudart`, with the genuine names.

Names of parameters, members of enums and constants come from what was read off the wheels (tests/assets/cuda_python).
Every function answers a tuple that begins with the error code and never raises because of one.
"""

from __future__ import annotations

import enum
import json
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from fake_cuda.cuda_runtime import RuntimeLibrary
from fake_cuda.errors import CudaFault
from fake_cuda.machine import FakeMachine

__all__ = ["DUMPS", "GENERATIONS", "load_names", "make_cuda_python"]

DUMPS = Path(__file__).resolve().parents[1] / "assets" / "cuda_python"

# Which wheel's names, and under which modules: the import path moved twice.
GENERATIONS = {
    "12.6": ("12.9.10", ("cuda.cudart",)),
    "12.9": ("12.9.10", ("cuda.bindings.runtime", "cuda.cudart")),
    "13": ("13.5.0", ("cuda.bindings.runtime",)),
}
RESULTS = {
    "cudaEventCreate": "cudaEvent_t",
    "cudaEventCreateWithFlags": "cudaEvent_t",
    "cudaGraphInstantiate": "cudaGraphExec_t",
    "cudaStreamCreate": "cudaStream_t",
    "cudaStreamCreateWithFlags": "cudaStream_t",
    "cudaStreamEndCapture": "cudaGraph_t",
}
# How many answers follow the code when there is one; None in each place when the call failed.
ANSWERS = {"cudaMemGetInfo": 2}
# Functions whose answer is the code alone.
CODE_ONLY = frozenset(
    name for name, work in vars(RuntimeLibrary).items() if getattr(work, "__annotations__", {}).get("return") == "None"
)
ENUM_ARGUMENTS = {"kind": "cudaMemcpyKind", "mode": "cudaStreamCaptureMode", "attr": "cudaDeviceAttr"}
ENUM_ARGUMENTS |= {"error": "cudaError_t"}
NUMBERS = frozenset({"size", "count", "flags", "value", "device"})


class _Handle:
    """A handle: a number of its own type."""

    __slots__ = ("_number",)
    _kind: ClassVar[str] = ""

    def __init__(self, number: int = 0) -> None:
        self._number = int(number)

    def __int__(self) -> int:
        return self._number

    __index__ = __int__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._number:#x}>"


def load_names(wheel: str) -> dict[str, Any]:
    """What was read off a wheel."""
    found: dict[str, Any] = json.loads((DUMPS / f"{wheel}.json").read_text(encoding="utf-8"))
    return found


def make_cuda_python(machine: FakeMachine, generation: str) -> dict[str, types.ModuleType]:
    """Modules by name, to be put into `sys.modules`.

    Raises:
        KeyError: No such generation.
    """
    wheel, paths = GENERATIONS[generation]
    modules: dict[str, types.ModuleType] = {}
    for path in paths:
        old = path == "cuda.cudart" and generation == "12.9"
        module = _Deprecated(path) if old else types.ModuleType(path)
        _fill(module, machine, load_names(wheel), 13000 if generation == "13" else 12000)
        modules[path] = module
        parent, _, name = path.rpartition(".")
        while parent:
            package = modules.setdefault(parent, types.ModuleType(parent))
            package.__path__ = []
            setattr(package, name, modules[f"{parent}.{name}"])
            parent, _, name = parent.rpartition(".")
    return modules


class _Deprecated(types.ModuleType):
    """The old path of 12.9, which warns when it is used."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            warnings.warn("The cuda.cudart module is deprecated", FutureWarning, stacklevel=2)
        return super().__getattribute__(name)


def _fill(module: types.ModuleType, machine: FakeMachine, names: dict[str, Any], version: int) -> None:
    for name, members in names["enums"].items():
        setattr(module, name, enum.IntEnum(name, members))
    for name, value in names["constants"].items():
        setattr(module, name, value)
    for name in names["handles"]:
        setattr(module, name, type(name, (_Handle,), {"__slots__": ()}))
    library = RuntimeLibrary(machine, version)
    offered = vars(module)
    for name, parameters in names["functions"].items():
        setattr(module, name, _function(library, machine, offered, name, parameters))


def _function(
    library: RuntimeLibrary, machine: FakeMachine, offered: dict[str, Any], name: str, parameters: list[str]
) -> Callable[..., tuple[Any, ...]]:
    work = getattr(library, name)

    def call(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        values = _bound(offered, name, parameters, args, kwargs)
        errors = offered["cudaError_t"]
        try:
            if name not in library.UNCHECKED:
                machine.enter_runtime()
            answer = work(*values)
        except CudaFault as fault:
            library.remember(name, fault)
            none = () if name in CODE_ONLY else (None,) * ANSWERS.get(name, 1)
            return (errors[fault.name], *none)
        if name in CODE_ONLY:
            return (errors["cudaSuccess"],)
        if name in RESULTS:
            answer = offered[RESULTS[name]](answer)
        elif name == "cudaStreamIsCapturing":
            answer = offered["cudaStreamCaptureStatus"][answer]
        return (errors["cudaSuccess"], *answer) if ANSWERS.get(name, 1) > 1 else (errors["cudaSuccess"], answer)

    call.__name__ = call.__qualname__ = name
    return call


def _bound(
    offered: dict[str, Any], name: str, parameters: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Any]:
    given = dict(zip(parameters, args, strict=False))
    if len(args) > len(parameters) or set(kwargs) & set(given) or set(given) | set(kwargs) != set(parameters):
        raise TypeError(f"{name}({', '.join(parameters)}) was given {len(args)} arguments and {sorted(kwargs)}")
    given |= kwargs
    for parameter, value in given.items():
        wanted = ENUM_ARGUMENTS.get(parameter)
        if wanted is not None and not isinstance(value, offered[wanted]):
            raise TypeError(f"{name}: {parameter} is a {wanted}, not {type(value).__name__}")
        if parameter in NUMBERS and (isinstance(value, (bool, float)) or not hasattr(type(value), "__index__")):
            raise TypeError(f"{name}: {parameter} is an integer, not {type(value).__name__}")
    return [given[parameter] for parameter in parameters]
