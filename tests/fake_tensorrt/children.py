"""The fakes in child processes: what is installed travels in environment variables.

A probe or a benchmark runs the library in a process of its own, and a plan is bytes, so each process can have a
machine of its own. Faults travel too; memory does not.
"""

from __future__ import annotations

import json
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from fake_cuda.cuda_python import make_cuda_python
from fake_cuda.devices import DEVICES
from fake_cuda.faults import Faults, ParserFault
from fake_cuda.machine import FakeMachine
from fake_cuda.pycuda_module import make_pycuda

from fake_tensorrt.module import make_tensorrt

__all__ = ["IMPORTABLE", "VARIABLE", "child_environment", "modules_here"]

VARIABLE = "EDGEKIT_TEST_FAKE_TENSORRT"
IMPORTABLE = Path(__file__).resolve().parent / "importable"


def child_environment(
    version: str | None,
    interfaces: Sequence[str] = ("pycuda",),
    device: str = "agx-orin-64",
    faults: Faults | None = None,
    base: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Environment variables with which a child process finds the fakes.

    Args:
        version: Of TensorRT; None for a machine without it.
        interfaces: As `fake_tensorrt.install.INTERFACES`.
        device: Key of `fake_cuda.devices.DEVICES`.
        faults: What goes wrong there.
        base: What the fakes are added to; this process's variables by default.
    """
    made = dict(os.environ if base is None else base)
    told = {"version": version, "interfaces": list(interfaces), "device": device, "faults": asdict(faults or Faults())}
    made[VARIABLE] = json.dumps(told)
    tests = IMPORTABLE.parents[1]
    paths = [str(IMPORTABLE), str(tests), str(tests.parent), made.get("PYTHONPATH", "")]
    made["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return made


def modules_here(package: str) -> dict[str, types.ModuleType]:
    """The modules of one package that this process was told to have, all of them on one machine.

    Raises:
        ModuleNotFoundError: It was told to have none.
    """
    found = {name: module for name, module in _all_modules().items() if name.partition(".")[0] == package}
    if not found:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return found


@cache
def _all_modules() -> dict[str, types.ModuleType]:
    told: dict[str, Any] = json.loads(os.environ[VARIABLE])
    parser = tuple(ParserFault(**each) for each in told["faults"].pop("parser"))
    told["faults"]["fallback_layers"] = tuple(told["faults"]["fallback_layers"])
    machine = FakeMachine(DEVICES[told["device"]], Faults(**told["faults"], parser=parser))
    modules: dict[str, types.ModuleType] = {}
    if told["version"] is not None:
        modules["tensorrt"] = make_tensorrt(told["version"], machine)
    for interface in told["interfaces"]:
        if interface == "pycuda":
            modules["pycuda"], modules["pycuda.driver"] = make_pycuda(machine)
        else:
            modules |= make_cuda_python(machine, interface.rpartition("-")[2])
    return modules
