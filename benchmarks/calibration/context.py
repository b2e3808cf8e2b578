"""What units of one run share: folders, the Pythons of tools, networks that were made ready, and where results lie."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import edgekit.calibrate
from calibration.networks import NETWORKS
from calibration.prepared import Prepared, prepare
from calibration.profiles import Profile
from calibration.units import Unit, method_named
from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_bytes

__all__ = ["Context"]

# Raised when what a unit measures changes: results of before are then made anew.
_VERSION = 1
_PACKAGES = {"onnxruntime": "onnxruntime", "nncf": "nncf", "modelopt": "nvidia-modelopt"}
_MISSING = "missing"


@dataclass(frozen=True)
class Context:
    """One run.

    Attributes:
        profile: How much is measured.
        shared: Data sets and published weights.
        work: Where everything is kept.
        pythons: Tool to the interpreter of its environment.
    """

    profile: Profile
    shared: Path
    work: Path
    pythons: Mapping[str, str]
    _prepared: dict[str, Prepared] = field(default_factory=dict, compare=False, repr=False)

    def prepared(self, network: str) -> Prepared:
        """A network's files, made where they are not there yet."""
        if network not in self._prepared:
            self._prepared[network] = prepare(NETWORKS[network], self.shared, self.work, self.profile.evaluated)
        return self._prepared[network]

    def python_of(self, tool: str) -> str:
        """The interpreter that runs a tool; edgekit's own is this one."""
        return sys.executable if tool == "edgekit" else self.pythons[tool]

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """Versions of the tools, "missing" where one cannot be asked."""
        return {tool: _version(self.pythons[tool], package) for tool, package in _PACKAGES.items()}

    @cached_property
    def own_source(self) -> str:
        """Digest of the package that calibrates: what was found by another version of it is not its result."""
        root = Path(edgekit.calibrate.__file__).parent
        files = {path.relative_to(root).as_posix(): digest_bytes(path.read_bytes()) for path in root.rglob("*.py")}
        return digest_bytes(dump_canonical(files))

    def identity(self, unit: Unit) -> dict[str, Any]:
        """All that decides a unit's result."""
        method = method_named(unit.method)
        source = self.own_source if method.ours else self.versions[method.tool]
        scripts = [digest_bytes(path.read_bytes()) for path in (method.worker, method.worker.with_name("serving.py"))]
        told = {"version": _VERSION, "unit": asdict(unit), "options": method.options, "source": source}
        rounds = self.profile.rounds if unit.part == "scores" else 0
        return {**told, "scripts": scripts, "rounds": rounds, "network": self.prepared(unit.network).digest}

    def folder(self, unit: Unit) -> Path:
        """Where a unit's result lies; another one as soon as anything that decides it is another."""
        return self.work / "units" / f"{unit.name}-{digest_bytes(dump_canonical(self.identity(unit)))[:10]}"

    def done(self, unit: Unit) -> bool:
        """Whether a unit's result is there: folders appear whole or not at all."""
        return self.folder(unit).is_dir()


def _version(python: str, package: str) -> str:
    asked = f"from importlib.metadata import version; print(version({package!r}))"
    try:
        return subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return _MISSING
