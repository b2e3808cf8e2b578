"""Public means listed: each module's `__all__` is sorted, names what is there and forgets nothing public."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "edgekit").rglob("*.py") if path.name != "__main__.py")


def public_names(tree: ast.Module) -> set[str]:
    """Names without underscore that the module itself defines."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
            # `Maps = NDArray[np.float32]` and `T = TypeVar("T")` are shorthand: they may be listed and need not be.
            shorthand = {name for name in names if name[0].isupper() and (len(name) == 1 or not name.isupper())}
            found.update(names - shorthand)
    return {name for name in found if not name.startswith("_")}


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each by name: the order that the linter keeps too."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.as_posix())
def test_all_is_sorted_and_complete(path: Path) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    defined = public_names(tree)
    module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    listed = getattr(import_module(module), "__all__", None)
    if listed is None:
        assert not defined, f"{path} defines {sorted(defined)} and has no __all__"
        return
    assert list(listed) == sorted(listed, key=order)
    assert defined <= set(listed)
    assert all(hasattr(import_module(module), name) for name in listed)


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if path.name == "__init__.py" and len(path.parts) > 2],
    ids=lambda path: path.parent.name,
)
def test_importing_a_package_does_nothing(path: Path) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    if path.parent.name == "api":
        # The door for scripts: it hands on the functions of its own modules, which import nothing heavy themselves.
        *handed_on, names = tree.body[1:]
        assert all(
            isinstance(node, ast.ImportFrom) and str(node.module).startswith("edgekit.api.") for node in handed_on
        )
        assert isinstance(names, ast.Assign)
    else:
        assert len(tree.body) == 1


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.as_posix())
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))
