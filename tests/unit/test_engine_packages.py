"""What is installed for an engine, told without loading it."""

from __future__ import annotations

from importlib import metadata

import pytest

from edgekit.engines.packages import PACKAGES, is_installed
from edgekit.engines.registry import ENGINES
from edgekit.targets import overview
from edgekit.targets.overview import line_of


def test_every_engine_has_a_package() -> None:
    assert set(PACKAGES) == set(ENGINES)


@pytest.mark.parametrize("engine", sorted(PACKAGES))
def test_what_is_available_is_installed(engine: str) -> None:
    found = ENGINES.load(engine).availability()
    if found.available:
        assert is_installed(engine)
    elif "not installed" in found.reason:
        assert not is_installed(engine)


def test_the_package_for_gpus_is_not_taken_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "onnxruntime-gpu":
            raise metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    assert is_installed("ort-cpu")
    assert not is_installed("ort-cuda")
    monkeypatch.setattr(metadata, "version", lambda package: "1.0")
    assert is_installed("ort-cuda")


def test_a_target_without_its_package_does_not_build_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "check_target_runs_here", lambda target, probe: None)
    monkeypatch.setattr(overview, "is_installed", lambda engine: engine == "ort-cuda")
    assert line_of("cuda").reason == ""
    monkeypatch.setattr(overview, "is_installed", lambda engine: False)
    assert line_of("cuda").reason.startswith("onnxruntime-gpu is not installed")
