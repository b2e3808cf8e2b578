"""In a process of its own: the genuine bindings of one version behind stubs, and what they answer.

    python -m bindings.genuine FOLDER VERSION QUESTION

Prints one JSON value. One process a version, since an extension module is loaded once.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_tensorrt.api import VERSIONS, load_dump
from fake_tensorrt.signatures import parse_signature

from edgekit.core.progress import NullObserver
from edgekit.engines.tensorrt.binding import TensorRt, find_tensorrt, tensorrt_problem
from edgekit.engines.tensorrt.calibration_cache import write_calibration_cache
from edgekit.engines.tensorrt.calibrator import make_calibrator
from edgekit.engines.tensorrt.messages import Messages, make_logger
from edgekit.engines.tensorrt.plan_file import PlanHeader
from edgekit.engines.tensorrt.progress import make_monitor
from edgekit.engines.tensorrt.session import load_plan
from edgekit.errors import EdgekitError

__all__ = ["QUESTIONS", "load"]


def load(folder: Path) -> TensorRt:
    """The module of a version's folder, under the name that the program imports."""
    for library in sorted((folder / "stubs").glob("*.so.*")):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(folder / "site"))
    sys.modules["tensorrt"] = importlib.import_module("tensorrt_bindings")
    return find_tensorrt()


def surface(tensorrt: TensorRt, version: str) -> Any:
    """Where the committed names, numbers and parameters are not the module's: sentences, empty where they agree."""
    found = []
    for name, spec in load_dump(version)["classes"].items():
        owner = getattr(tensorrt.module, name, None)
        if owner is None:
            found.append(f"{name} is not there")
        elif "enum" in spec:
            members = {member: int(value) for member, value in owner.__members__.items()}
            if members != spec["enum"]:
                found.append(f"{name} has {members}")
        else:
            found += [f"{name}.{why}" for why in _members(owner, spec)]
    return found


def _members(owner: Any, spec: dict[str, Any]) -> list[str]:
    found = []
    for name, told in spec.get("properties", {}).items():
        # Of the class, a static property would answer its value.
        here = inspect.getattr_static(owner, name, None)
        if not isinstance(here, property) or ((here.fset is not None) != ("set" in told)):
            found.append(f"{name} is no property, or cannot be set, or can")
    for name, told in spec.get("methods", {}).items():
        here = getattr(owner, name, None)
        if here is None:
            found.append(f"{name} is not there")
            continue
        wanted = {_parameters(text) for text in ([told] if isinstance(told, str) else told)}
        genuine = set(_signatures(name, here.__doc__ or ""))
        # Without a signature in its text a method cannot be compared, and is there all the same.
        if genuine and wanted != genuine:
            found.append(f"{name} takes {sorted(genuine)}, not {sorted(wanted)}")
    return found


def _parameters(text: str) -> tuple[tuple[str, bool], ...]:
    """Names and whether they may be left away: how types are spelt depends on the tool that made the bindings."""
    return tuple((each.name, each.default is not None) for each in parse_signature(text).parameters)


def _signatures(name: str, text: str) -> list[tuple[tuple[str, bool], ...]]:
    lines = [re.sub(r"^\s*\d+\.\s+", "", line) for line in text.splitlines()]
    found = []
    for line in lines:
        match = re.match(rf"{re.escape(name)}(\(.*\)(?: -> .+)?)$", line)
        if match is not None and "*args" not in line:
            taken = _parameters(match[1])
            found.append(taken[1:] if taken and taken[0][0] == "self" else taken)
    return found


def names(tensorrt: TensorRt, version: str) -> Any:
    """Which of the names that our code writes down are here, and what follows from version and names.

    Asked for by `has`, at once or out of a table: whatever is spelt as a class of the dump and its member.
    """
    sources = Path(__file__).resolve().parents[2] / "edgekit" / "engines" / "tensorrt"
    asked = {
        name
        for path in sources.glob("*.py")
        for name in re.findall(r'"([A-Z]\w+\.\w+|[A-Z]\w+)"', path.read_text("utf-8"))
        if name.partition(".")[0] in _classes()
    }
    rules = ("always_strong", "may_be_strong", "may_calibrate", "dla_by_cache", "dla_by_graph")
    answers: dict[str, Any] = {name: tensorrt.has(name) for name in sorted(asked)}
    return answers | {rule: getattr(tensorrt, rule) for rule in rules} | {"problem": tensorrt_problem()}


def _classes() -> set[str]:
    """Classes and enums of any version."""
    return {name for version in VERSIONS for name in load_dump(version)["classes"]}


def interfaces(tensorrt: TensorRt, version: str) -> Any:
    """What becomes of the classes that we derive: the genuine base refuses what it does not like."""
    messages = Messages()
    logger = make_logger(tensorrt, messages)
    logger.log(tensorrt.module.ILogger.Severity.ERROR, "said")
    told: dict[str, Any] = {"logger": messages.errors, "is_logger": isinstance(logger, tensorrt.module.ILogger)}
    monitor = make_monitor(tensorrt, NullObserver(), messages)
    if monitor is not None:
        monitor.phase_start("build", None, 3)
        told["monitor"] = monitor.step_complete("build", 0)
        monitor.phase_finish("build")
    if tensorrt.may_calibrate:
        cache = write_calibration_cache({"image": 0.05}, tensorrt.version)
        calibrator = make_calibrator(tensorrt, cache, "here")
        told["calibrator"] = [
            str(calibrator.get_algorithm()).rpartition(".")[2],
            calibrator.read_calibration_cache() == cache,
            calibrator.get_batch(["image"]),
        ]
    return told


def failures(tensorrt: TensorRt, version: str) -> Any:
    """How objects that the stubs cannot make fail, as objects that a library without a driver cannot make do."""
    logger = make_logger(tensorrt, Messages())
    told = {}
    try:
        tensorrt.module.Builder(logger)
    except Exception as error:  # which kind is what is asked
        told["builder"] = type(error).__name__
    header = PlanHeader(tensorrt.text, "Orin", (8, 7), 16, "36.4.3", "0" * 64, "0" * 64)
    try:
        load_plan(tensorrt, header, b"plan", "here", "this device")
    except EdgekitError as error:
        told["runtime"] = type(error).__name__
    return told


QUESTIONS: dict[str, Callable[[TensorRt, str], Any]] = {
    "surface": surface,
    "names": names,
    "interfaces": interfaces,
    "failures": failures,
}

if __name__ == "__main__":
    print(json.dumps(QUESTIONS[sys.argv[3]](load(Path(sys.argv[1]) / sys.argv[2]), sys.argv[2])))
