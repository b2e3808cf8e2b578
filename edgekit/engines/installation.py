"""What is installed here, which side of edgekit it is enough for, and the command that adds what is missing.

The wanted packages are read from edgekit's own distribution metadata, so that there is no second list to keep. Every
probe is an import or a look at a file, but for TensorRT, where a child process asks the driver: none creates a GPU
context.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import shutil
import sys
import warnings
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from edgekit import __version__
from edgekit.core.environment import distribution_version, onnxruntime_distributions, processor_name
from edgekit.engines.protocol import Availability
from edgekit.engines.registry import ENGINES
from edgekit.engines.tensorrt.memory import MEMORIES
from edgekit.errors import DefectError, EdgekitError, UnavailableError

__all__ = ["EngineState", "Installation", "PackageState", "Problem", "SideState", "Wanted", "inspect_installation"]

_DISTRIBUTION = "edgekit"
# Side to the extra that completes it; the device side needs an engine besides, whichever it is.
_SIDES = {
    "device": "",
    "host": "host",
    "images": "images",
    "openvino": "openvino",
    "gpu": "gpu",
    "tensorrt": "tensorrt",
    "timm": "timm",
    "torchvision": "torchvision",
    "transformers": "transformers",
}
_PURPOSES = {
    "device": "run, gate and verify bundles",
    "host": "compress, export, calibrate and build",
    "images": "explain image files on a device",
    "openvino": "OpenVINO beside ONNX Runtime on processors",
    "gpu": "ONNX Runtime on NVIDIA GPUs",
    "tensorrt": "TensorRT engines",
    "timm": "networks of timm",
    "torchvision": "networks of torchvision",
    "transformers": "image classifiers of Hugging Face",
}
_PYTHON_FLOORS = {"device": (3, 10), "host": (3, 11)}
# Distributions whose module is not their own name with underscores.
_MODULES = {"onnxruntime-gpu": "onnxruntime", "pillow": "PIL", "pyyaml": "yaml"}
# What does the same for edgekit: TensorRT needs one package that reaches CUDA, whichever it is. Extras cannot say "or".
_ALTERNATIVES = {"pycuda": "cuda-python"}
_REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)\s*\(?(?P<bounds>[^;()\[\]]*)\)?\s*(;(?P<marker>.*))?$")
_EXTRA = re.compile(r"extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"]")
_BOUND = re.compile(r"^(?P<sign>>=|<)\s*(?P<version>\d+(\.\d+)*)$")


@dataclass(frozen=True)
class Wanted:
    """A requirement of edgekit's: distribution name, version bounds such as ">=2.8,<3", and the extra it belongs to."""

    name: str
    bounds: str
    extra: str


@dataclass(frozen=True)
class PackageState:
    """One wanted package as it is found here.

    Attributes:
        name: Distribution name.
        bounds: Accepted versions.
        version: What is installed, None where nothing is.
        problem: Empty where the package can be used; otherwise what is wrong with it.
    """

    name: str
    bounds: str
    version: str | None
    problem: str


@dataclass(frozen=True)
class SideState:
    """Whether one side of edgekit can work here.

    Attributes:
        name: "device", "host", "images", "openvino", "gpu", "tensorrt", or a library that models come from.
        purpose: What the side is for.
        ready: True when nothing is missing.
        missing: What stands in the way, one reason each.
        command: What to type to change that; empty when ready.
        packages: Every package the side needs.
    """

    name: str
    purpose: str
    ready: bool
    missing: tuple[str, ...]
    command: str
    packages: tuple[PackageState, ...]


@dataclass(frozen=True)
class EngineState:
    """A registered engine and whether it runs here."""

    name: str
    availability: Availability


@dataclass(frozen=True)
class Problem:
    """Something that will give trouble although nothing is missing, and what to type against it."""

    message: str
    remedy: str


@dataclass(frozen=True)
class Installation:
    """Everything `edgekit doctor` knows.

    Attributes:
        sides: The sides of edgekit, the two that can do the main job first.
        engines: Every registered engine.
        problems: What will give trouble although nothing is missing.
        nvidia_driver: Whether an NVIDIA driver was seen; without one the GPU sides are of no use.
    """

    sides: tuple[SideState, ...]
    engines: tuple[EngineState, ...]
    problems: tuple[Problem, ...]
    nvidia_driver: bool

    @property
    def usable(self) -> bool:
        """True where the main job or the device side can run."""
        return any(side.ready for side in self.sides if side.name in _PYTHON_FLOORS)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "edgekit": __version__,
            "python": platform.python_version(),
            "system": platform.system(),
            "machine": platform.machine(),
            "processor": processor_name(),
            "nvidia_driver": self.nvidia_driver,
            "usable": self.usable,
            "sides": [
                {**vars(side), "missing": list(side.missing), "packages": [dict(vars(item)) for item in side.packages]}
                for side in self.sides
            ],
            "engines": [{"name": engine.name, **vars(engine.availability)} for engine in self.engines],
            "problems": [dict(vars(problem)) for problem in self.problems],
        }


def inspect_installation() -> Installation:
    """Look at this interpreter's packages, the engines and their conflicts.

    Raises:
        UnavailableError: edgekit itself was never installed here, so that its requirements are not known.
    """
    wanted = _wanted_packages()
    engines = tuple(EngineState(name, _engine_availability(name)) for name in ENGINES)
    probed = {item: _probe(item) for item in wanted}
    sides = []
    for name, extra in _SIDES.items():
        packages = tuple(state for item, state in probed.items() if item.extra in ("", extra))
        missing = [f"{state.name}: {state.problem}" for state in packages if state.problem]
        floor = _PYTHON_FLOORS.get(name)
        if floor is not None and sys.version_info[:2] < floor:
            missing.insert(0, f"Python {floor[0]}.{floor[1]} or later: this is {platform.python_version()}")
        if name == "device" and not any(engine.availability.available for engine in engines):
            missing.append("an engine: no runtime can be imported")
        command = _remedy(name, floor) if missing else ""
        sides.append(SideState(name, _PURPOSES[name], not missing, tuple(missing), command, packages))
    return Installation(tuple(sides), engines, _conflicts(), _nvidia_driver_seen())


def _nvidia_driver_seen() -> bool:
    # Looking for files: asking the driver itself could start it.
    signs = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))
    return any(sign.exists() for sign in signs) or shutil.which("nvidia-smi") is not None


def _wanted_packages() -> tuple[Wanted, ...]:
    try:
        lines = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError as cause:
        raise UnavailableError(
            "edgekit runs from a folder in which it was not installed, so its requirements are not known.",
            hint="run 'python -m pip install .' in the folder that holds pyproject.toml",
        ) from cause
    # The extra "dev" names edgekit itself; nobody who only uses edgekit needs it.
    return tuple(item for line in lines if (item := _parse_requirement(line)) is not None and item.extra != "dev")


def _parse_requirement(line: str) -> Wanted | None:
    if line.startswith(f"{_DISTRIBUTION}["):
        return None
    match = _REQUIREMENT.match(line)
    if match is None:
        raise DefectError("A requirement of edgekit's cannot be read.", found=line)
    extra = _EXTRA.search(match["marker"] or "")
    bounds = ",".join(sorted((part.strip() for part in match["bounds"].split(",") if part.strip()), reverse=True))
    return Wanted(match["name"].lower(), bounds, extra["extra"] if extra else "")


def _probe(wanted: Wanted) -> PackageState:
    found = _state_of(wanted)
    other = _ALTERNATIVES.get(wanted.name)
    if other is None or not found.problem:
        return found
    beside = _state_of(Wanted(other, "", wanted.extra))
    if not beside.problem:
        return beside
    problem = f"{found.problem}; nor can {other}, which would do as well: {beside.problem}"
    return PackageState(found.name, found.bounds, found.version, problem)


def _state_of(wanted: Wanted) -> PackageState:
    name, version = wanted.name, distribution_version(wanted.name)
    if version is None and name == "onnxruntime":
        # Any of its distributions provides the same module.
        name, version = next(
            ((other, distribution_version(other)) for other in onnxruntime_distributions()), (name, None)
        )
    if version is None:
        return PackageState(name, wanted.bounds, None, "not installed")
    if not _fits(version, wanted.bounds):
        return PackageState(name, wanted.bounds, version, f"{version} is installed, {wanted.bounds} is needed")
    problem = MEMORIES.load(name).import_problem() if name in MEMORIES else _import_problem(name)
    return PackageState(name, wanted.bounds, version, problem and f"installed, but importing it fails: {problem}")


def _fits(version: str, bounds: str) -> bool:
    found = _release(version)
    for bound in filter(None, bounds.split(",")):
        match = _BOUND.match(bound)
        if match is None:
            raise DefectError("A version bound of edgekit's cannot be read.", expected=">= or <", found=bound)
        limit = _release(match["version"])
        if found < limit if match["sign"] == ">=" else found >= limit:
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    """The release numbers of a version, trailing zeros dropped: pre-release and local parts do not matter here."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    numbers = [int(part) for part in match[1].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _import_problem(name: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module(_MODULES.get(name, name.replace("-", "_")))
    except Exception as error:  # whatever a broken package raises is what the user has to read
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def _engine_availability(name: str) -> Availability:
    try:
        return ENGINES.load(name).availability()
    except EdgekitError as error:
        return Availability(False, error.message, error.hint or "")


def _conflicts() -> tuple[Problem, ...]:
    found = onnxruntime_distributions()
    if len(found) < 2:
        return ()
    # The one with the accelerator is the one that somebody added on purpose.
    kept = next((name for name in found if name != "onnxruntime"), found[0])
    pip = _pip()
    return (
        Problem(
            f"{' and '.join(found)} are installed side by side; they overwrite each other's files.",
            f"{pip} uninstall -y {' '.join(found)} && {pip} install {kept}",
        ),
    )


def _remedy(side: str, floor: tuple[int, int] | None) -> str:
    if floor is not None and sys.version_info[:2] < floor:
        return f"install Python {floor[0]}.{floor[1]} or later and make a new environment with it"
    extra = "cpu" if side == "device" else _SIDES[side]
    install = f"{_pip()} install {_install_source(extra)}"
    others = [name for name in onnxruntime_distributions() if name != "onnxruntime-gpu"]
    if side == "gpu" and others:
        return f"{_pip()} uninstall -y {' '.join(others)} && {install}"
    return install


def _pip() -> str:
    return f"{shlex.quote(sys.executable or 'python')} -m pip"


def _install_source(extra: str) -> str:
    """What pip has to be told so that it installs this very edgekit with `extra`, wherever it came from."""
    # A source folder on the path shows up as a second distribution that does not know where it was installed from.
    notes = (item.read_text("direct_url.json") for item in metadata.distributions(name=_DISTRIBUTION))
    origin = json.loads(next(filter(None, notes), "{}"))
    if "dir_info" in origin:
        folder = Path(url2pathname(urlparse(origin["url"]).path))
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return editable + shlex.quote(f"{folder}[{extra}]")
    if "archive_info" in origin:
        return shlex.quote(f"{_DISTRIBUTION}[{extra}] @ {origin['url']}")
    return shlex.quote(f"{_DISTRIBUTION}[{extra}]")
