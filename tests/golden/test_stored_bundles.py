"""Bundles of every released format still open, still pass their gate and still verify."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit import api
from edgekit.bundle.open import open_bundle

STORED = sorted(Path(__file__).parent.glob("bundle-*.tar"))


def test_bundles_are_stored() -> None:
    assert STORED


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_a_stored_bundle_passes_its_gate(path: Path) -> None:
    assert api.gate(path).outcome == "pass"
    with open_bundle(path) as opened:
        assert opened.manifest.status == "released"


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_a_stored_bundle_verifies_here(path: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = api.verify(path)
    assert done.verdict.outcome == "pass", done.verdict.to_dict_in_words()
    assert not done.findings
