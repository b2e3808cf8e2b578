"""What a device runs works where the packages of the workstation cannot be imported, and imports none where they can.

How long it takes to start is measured in benchmarks/startup.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.cli.registry import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "tests" / "golden" / "bundle-1.tar"
ABSENT = ("torch", "onnx", "pydantic", "yaml", "jinja2", "rich", "PIL", "onnxscript", "scipy", "safetensors")

_RUN = """
import json, sys
class Fence:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in json.loads(sys.argv[1]):
            raise ModuleNotFoundError(f"{name} is behind the fence", name=name)
sys.meta_path.insert(0, Fence())
from edgekit.cli.main import run
code = run(json.loads(sys.argv[2]))
print("\\n" + json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""

# Commands that a device runs, each with what it is called with: with these no weights, recipes or pictures are read.
RUNS = {
    "gate": ["gate", str(BUNDLE)],
    "gate, as JSON": ["gate", str(BUNDLE), "--json"],
    "gate, another policy": ["gate", str(BUNDLE), "--policy", "default"],
    "verify": ["verify", str(BUNDLE), "--quiet"],
    "verify, without controls": ["verify", str(BUNDLE), "--quiet", "--no-controls"],
    "inspect": ["inspect", str(BUNDLE)],
    "bench": ["bench", str(BUNDLE), "--quiet"],
    "doctor": ["doctor"],
}
HELP = ("gate", "verify", "inspect", "bench", "doctor", "device", "explain")


def run_behind_fence(blocked: tuple[str, ...], arguments: list[str]) -> tuple[int, set[str], str]:
    """Exit code, the packages that were loaded, and what was said on standard error."""
    command = [sys.executable, "-c", _RUN, json.dumps(blocked), json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code, names = json.loads(done.stdout.splitlines()[-1])
    return code, set(names), done.stderr


@pytest.mark.parametrize("name", RUNS)
def test_a_command_of_devices_runs_with_numpy_and_a_runtime(name: str) -> None:
    code, loaded, said = run_behind_fence(ABSENT, RUNS[name])
    assert code == 0, said
    assert not loaded & set(ABSENT)


@pytest.mark.parametrize("name", ["gate", "verify", "inspect"])
def test_a_command_of_devices_imports_no_more_where_there_is_more(name: str) -> None:
    code, loaded, said = run_behind_fence((), RUNS[name])
    assert code == 0, said
    assert not loaded & {"torch", "onnx", "pydantic", "jinja2", "scipy"}


@pytest.mark.parametrize("name", HELP)
def test_the_help_of_a_command_of_devices(name: str) -> None:
    assert name in COMMANDS
    code, loaded, _ = run_behind_fence((*ABSENT, "numpy", "onnxruntime"), [name, "--help"])
    assert code == 0
    assert "numpy" not in loaded


def test_the_fence_holds_something_back() -> None:
    code, _, said = run_behind_fence((*ABSENT, "onnxruntime"), RUNS["verify"])
    assert code == 5, said
