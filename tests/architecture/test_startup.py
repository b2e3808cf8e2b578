"""`edgekit --help` and `--version` import next to nothing. How long they take is measured in benchmarks/startup.py."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgekit.cli.registry import COMMANDS

_RUN = """
import json, sys
from edgekit.cli.main import run
code = run(json.loads(sys.argv[1]))
print("\\n" + json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def loaded_by(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(arguments)], capture_output=True, text=True, check=True
    )
    code, names = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    return set(names)


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_nothing_but_click_and_the_standard_library_is_imported(argument: str) -> None:
    bare = subprocess.run(
        [sys.executable, "-c", "import sys, click; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    # Finders of editable installs are there before anything is imported.
    before = {name.partition(".")[0] for name in bare.stdout.split()}
    assert loaded_by(argument) - before - set(sys.stdlib_module_names) <= {"edgekit"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_loads_no_library(name: str) -> None:
    heavy = {"jinja2", "numpy", "onnx", "onnxruntime", "PIL", "pydantic", "rich", "torch", "yaml"}
    assert not loaded_by(name, "--help") & heavy


def test_a_command_imports_what_it_needs_and_no_other_command() -> None:
    names = loaded_by("targets", "--json")
    assert "yaml" in names
    assert not names & {"torch", "onnx", "onnxruntime", "pydantic", "rich"}
