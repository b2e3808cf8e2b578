"""One idea a module: files stay short enough to be read, and names say more than "utils"."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST_MODULE = 400
LONGEST_FUNCTION = 60
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "edgekit").rglob("*.py"))
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.as_posix())
def test_a_module_fits_in_a_head(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LARGEST_MODULE
    assert not VAGUE & set(path.with_suffix("").parts)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            # The budget is for code: a docstring that explains more is welcome.
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{path}: {node.name} has {lines} lines"
