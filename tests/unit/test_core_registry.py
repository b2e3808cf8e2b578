"""A seam's table: nothing is imported before it is asked for, and unknown names list the known."""

from __future__ import annotations

import sys

import pytest

from edgekit.core.registry import Registry
from edgekit.errors import BadInputError, UnavailableError


@pytest.fixture
def registry() -> Registry[object]:
    return Registry(
        "metric",
        {
            "root": "math:sqrt",
            "absent-package": "no_such_package_at_all.part:thing",
            "broken": "edgekit.no_such_module:thing",
            "untouched": "this.is.never:imported",
        },
    )


def test_names_are_listed_without_importing_anything(registry: Registry[object]) -> None:
    before = set(sys.modules)
    assert registry.names() == tuple(registry) == ("absent-package", "broken", "root", "untouched")
    assert "root" in registry
    assert "Root" not in registry
    assert set(sys.modules) == before


def test_a_known_name_is_loaded(registry: Registry[object]) -> None:
    from math import sqrt

    assert registry.load("root") is sqrt


@pytest.mark.parametrize("name", ["", "Root", "square", "math:sqrt"])
def test_an_unknown_name_lists_the_known(registry: Registry[object], name: str) -> None:
    with pytest.raises(BadInputError) as caught:
        registry.load(name)
    assert repr(name) in caught.value.message
    assert "metric" in caught.value.message
    assert caught.value.expected == "one of absent-package, broken, root, untouched"


def test_a_missing_package_is_named_with_a_way_out(registry: Registry[object]) -> None:
    with pytest.raises(UnavailableError) as caught:
        registry.load("absent-package")
    assert "'no_such_package_at_all'" in caught.value.message
    assert "edgekit doctor" in (caught.value.hint or "")


def test_a_wrong_entry_is_our_own_bug_and_not_a_missing_package(registry: Registry[object]) -> None:
    with pytest.raises(ModuleNotFoundError):
        registry.load("broken")
