"""What runs on a device is imported in an interpreter that refuses everything of the workstation.

import-linter reads the sources; this runs them. It also shows that importing a command or a recipe module costs no
heavy import, wherever edgekit is installed.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "edgekit"
BLOCKED = (
    "captum",
    "jinja2",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "PIL",
    "pydantic",
    "rich",
    "safetensors",
    "scipy",
    "torch",
    "torch_pruning",
    "yaml",
)
RING_0 = ("errors", "core")
RING_1 = (
    "attribution",
    "interface",
    "jetson",
    "images",
    "metrics",
    "policy",
    "engines",
    "bundle",
    "bench",
    "verify",
    "ci",
    "device",
)
# Not of the rings, but loaded on a device all the same: commands, and what they read policies with.
LIGHT = ("cli", "config", "targets")

_IMPORT_ALL = """
import importlib, json, sys
blocked = set(json.loads(sys.argv[1]))
class Fence:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is behind the fence", name=name)
sys.meta_path.insert(0, Fence())
for name in json.loads(sys.argv[2]):
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def modules_of(*parts: str) -> list[str]:
    """Dotted names of every module of these packages."""
    files = [
        path
        for part in parts
        for path in ([PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").is_file() else (PACKAGE / part).rglob("*.py"))
    ]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)
    return sorted(name.removesuffix(".__init__") for name in names)


def import_behind_fence(blocked: tuple[str, ...], modules: list[str]) -> set[str]:
    arguments = [sys.executable, "-c", _IMPORT_ALL, json.dumps(blocked), json.dumps(modules)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_the_device_side_imports_with_numpy_alone() -> None:
    modules = modules_of(*RING_0, *RING_1, *LIGHT)
    assert len(modules) > 50
    loaded = import_behind_fence(BLOCKED, modules)
    assert not loaded & set(BLOCKED)


def test_the_fence_holds_something_back() -> None:
    with pytest.raises(AssertionError, match="behind the fence"):
        import_behind_fence(("numpy",), ["edgekit.core.digests"])


def test_errors_and_the_command_line_need_no_numpy() -> None:
    modules = ["edgekit", "edgekit.errors", "edgekit.cli.main", "edgekit.cli.registry", "edgekit.cli.failures"]
    import_behind_fence((*BLOCKED, "numpy"), modules)


def test_every_package_is_in_a_ring_or_outside_them() -> None:
    outside = {
        "blame",
        "api",
        "pipeline",
        "demo",
        "calibrate",
        "compress",
        "export",
        "half",
        "precision",
        "qat",
        "teacher",
        "report",
        *LIGHT,
    }
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert packages | modules <= {*RING_0, *RING_1, *outside}


def test_the_contract_that_is_linted_names_the_same_rings() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {item["id"]: item for item in settings["tool"]["importlinter"]["contracts"]}
    present = {part for part in (*RING_0, *RING_1) if modules_of(part)}
    assert set(contracts["device"]["source_modules"]) == {f"edgekit.{part}" for part in present}


@pytest.mark.parametrize("part", [*RING_0, *RING_1, *LIGHT])
def test_the_device_side_is_written_in_the_python_of_devices(part: str) -> None:
    for name in modules_of(part):
        path = ROOT / Path(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))
