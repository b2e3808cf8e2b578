"""Whether TensorRT can work here, asked in a process of its own.

Never by making a TensorRT runtime: without a driver it is made, logs errors, and ends the process when it is used. The
driver is asked instead, through the package that the runner would use: no context is made on the device, and a driver
that hangs hangs only the child.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.engines.tensorrt.binding import find_tensorrt, load_tensorrt
from edgekit.engines.tensorrt.memory import describe_device
from edgekit.errors import EdgekitError

__all__ = ["DeviceProbe", "look", "main", "probe_command", "probe_device"]

_MARK = "edgekit-probe "
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class DeviceProbe:
    """What was found.

    Attributes:
        problem: Empty where an engine could be built and run.
        hint: What to do about the problem.
        tensorrt: Version of TensorRT, empty where it is not known.
        gpu: Facts of the device, JSON-ready; empty where there is none.
    """

    problem: str
    hint: str = ""
    tensorrt: str = ""
    gpu: dict[str, Any] | None = None


def probe_command() -> tuple[str, ...]:
    """The command that looks with this interpreter."""
    return (sys.executable, "-m", "edgekit.engines.tensorrt.probe")


def probe_device(command: Sequence[str] | None = None, timeout_s: float = _TIMEOUT_S) -> DeviceProbe:
    """Look in a child process. Never raises."""
    try:
        done = subprocess.run(
            list(command or probe_command()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return DeviceProbe(
            f"the GPU did not answer within {timeout_s:g} seconds",
            "another process may hold it, or its driver hangs: look at the kernel's log (dmesg) and restart the device",
        )
    except OSError as cause:
        return DeviceProbe(f"no process could be started to look for a GPU: {cause}", "run 'edgekit doctor'")
    # Libraries print what they like; our line has a mark.
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return DeviceProbe(
            f"looking for the GPU ended with status {done.returncode}: {last[:200]}",
            "the CUDA driver and its Python packages do not fit each other; reinstall the package",
        )
    return _read(lines[-1][len(_MARK) :])


def _read(line: str) -> DeviceProbe:
    try:
        raw = json.loads(line)
        return DeviceProbe(str(raw["problem"]), str(raw["hint"]), str(raw["tensorrt"]), raw["gpu"])
    except (ValueError, KeyError, TypeError) as cause:
        return DeviceProbe(f"the answer of the process that looked cannot be read: {cause}", "run 'edgekit doctor'")


def look() -> DeviceProbe:
    """Look in this process: import TensorRT, start the driver, have the device described. Raises nothing of ours."""
    version = ""
    try:
        load_tensorrt()
        version = find_tensorrt().text
        gpu = describe_device().to_dict()
    except EdgekitError as error:
        reason = f"{error.message} {error.found}" if error.found else error.message
        return DeviceProbe(reason, error.hint or "run 'edgekit doctor'", version)
    return DeviceProbe("", "", version, gpu)


def main() -> None:
    """Look, and print one line for `probe_device`."""
    print(_MARK + json.dumps(vars(look())), flush=True)


if __name__ == "__main__":
    main()
