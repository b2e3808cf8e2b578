"""What all tests share: where the real data lies, and one small build that many of them look at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Several workers share the cores; spinning threads of one would slow all.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole builds first: a worker that met one at the end would keep the others waiting."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and weights beside the checkout; tests that need it skip where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real images and weights that are not part of the repository")
    return folder
