"""Every name in every seam's table can be loaded, and every table is found."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from edgekit.core.registry import Registry
from edgekit.errors import BadInputError

ROOT = Path(__file__).resolve().parents[2]
CORE = "edgekit.core.registry"
COMMANDS = "edgekit.cli.registry"  # has a test of its own: its entries carry help


def registry_modules() -> list[str]:
    files = ((path, path.read_text(encoding="utf-8")) for path in (ROOT / "edgekit").rglob("*.py"))
    found = (path for path, text in files if path.name == "registry.py" or "] = Registry(" in text)
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found)
    return sorted(name for name in names if name not in (CORE, COMMANDS))


def registries() -> list[Registry[object]]:
    found = (vars(import_module(module)).values() for module in registry_modules())
    return [value for values in found for value in values if isinstance(value, Registry)]


def test_every_registry_module_holds_a_table() -> None:
    assert len(registries()) >= len(registry_modules()) > 2


@pytest.mark.parametrize(
    ("registry", "name"),
    [(registry, name) for registry in registries() for name in registry],
    ids=lambda value: value if isinstance(value, str) else value.seam.replace(" ", "-"),
)
def test_every_entry_loads(registry: Registry[object], name: str) -> None:
    assert registry.load(name) is not None


@pytest.mark.parametrize("registry", registries(), ids=lambda value: value.seam)
def test_an_unknown_name_lists_the_known_ones(registry: Registry[object]) -> None:
    with pytest.raises(BadInputError) as raised:
        registry.load("no-such-name")
    assert all(name in str(raised.value.expected) for name in registry.names())
