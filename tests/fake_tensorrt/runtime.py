"""Runtime: reads a plan, or logs why not and answers None."""

from __future__ import annotations

import time
import weakref
from typing import Any

from fake_cuda.errors import CudaFault

from fake_tensorrt.api import Api, Behaviour
from fake_tensorrt.builder import dla_cores
from fake_tensorrt.engine import Engine
from fake_tensorrt.plan import BadPlanError, Plan, unpack

__all__ = ["Runtime"]


class Runtime(Behaviour):
    """Runtime."""

    public_name = "Runtime"

    def __init__(self, api: Api, logger: Any) -> None:
        super().__init__(api)
        api.start(logger)
        self.logger = logger
        self.max_threads = 1
        self.engine_host_code_allowed = False
        self.temporary_directory = ""
        self.num_DLA_cores = dla_cores(api)
        self._dla_core = -1 if not self.num_DLA_cores else 0
        self.engines: weakref.WeakSet[Engine] = weakref.WeakSet()

    @property
    def DLA_core(self) -> int:  # noqa: N802 - the bindings' name
        """The core that engines are for."""
        return self._dla_core

    @DLA_core.setter
    def DLA_core(self, value: int) -> None:  # noqa: N802 - the bindings' name
        if not 0 <= value < self.num_DLA_cores:
            self._error(f"Error Code 3: API Usage Error (DLA core {value} of {self.num_DLA_cores})")
            return
        self._dla_core = int(value)

    def on_released(self) -> None:
        """An engine needs its runtime."""
        if any(engine.held for engine in self.engines):
            self.api.machine.misuses.append("a runtime was destroyed before its engine")

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Engine | None:
        """The engine of a plan, or None with errors in the log."""
        try:
            self.api.touch()
        except CudaFault as fault:
            self._error(f"Error Code 1: Cuda Runtime ({fault})")
            return None
        time.sleep(self.api.machine.faults.hang_deserialise)
        try:
            plan = unpack(bytes(memoryview(serialized_engine)))
        except BadPlanError as error:
            self._error(f"Error Code 1: Serialization (Serialization assertion {error})")
            return None
        if not self._fits(plan):
            return None
        try:
            engine = Engine(self.api, self, plan)
        except CudaFault as fault:
            self._error(f"Error Code 2: OutOfMemory ({fault.message})")
            return None
        self.engines.add(engine)
        return engine

    def _fits(self, plan: Plan) -> bool:
        here, header = self.api.machine.device, plan.header
        if header["version"] != self.api.version and not self._may_be_older(header):
            self._error(
                "Error Code 6: API Usage Error (The engine plan file is not compatible with this version of TensorRT, "
                f"expecting library version {self.api.version} got {header['version']}, please rebuild.)"
            )
            return False
        level, built = header["hardware_compatibility_level"], tuple(header["capability"])
        portable = (level == "AMPERE_PLUS" and here.capability >= (8, 0)) or (
            level == "SAME_COMPUTE_CAPABILITY" and built == here.capability
        )
        if built != here.capability and not portable:
            expected, got = (".".join(map(str, each)) for each in (here.capability, built))
            self._error(
                "Error Code 6: API Usage Error (The engine plan file is generated on an incompatible device, expecting "
                f"compute {expected} got compute {got}, please rebuild.)"
            )
            return False
        if header["device"] != here.name and not portable:
            self.api.log(
                self.logger,
                "WARNING",
                "Using an engine plan file across different models of devices is not recommended and is likely to "
                "affect performance or even cause errors.",
            )
        if header["dla_core"] >= self.num_DLA_cores:
            self._error(
                f"Error Code 6: API Usage Error (the plan is for DLA, and there are {self.num_DLA_cores} cores)"
            )
            return False
        return True

    def _may_be_older(self, header: Any) -> bool:
        theirs, ours = (tuple(map(int, each.split(".")[:2])) for each in (header["version"], self.api.version))
        if "VERSION_COMPATIBLE" not in header["flags"] or theirs > ours:
            return False
        if not self.engine_host_code_allowed:
            self._error("the plan holds host code, and engine_host_code_allowed is not set")
            return False
        return True

    def _error(self, message: str) -> None:
        self.api.log(self.logger, "ERROR", f"IRuntime::deserializeCudaEngine: {message}")
