"""The stages that bundles are made of, with the engine 'tensorrt': build, verify, bench in a process of its own.

Over stand-ins: what runs here is our code, and no TensorRT; no time is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_tensorrt.children import IMPORTABLE, child_environment
from tensorrt_stand_ins import GRAPH, PAIRS, images, stand_in
from tiny_golden import tiny_golden

from edgekit.bench.latency import LatencySubject, measure_latency
from edgekit.bench.options import LatencyOptions
from edgekit.bundle.golden import write_golden
from edgekit.core.canonical import read_json
from edgekit.core.progress import NullObserver
from edgekit.engines import tensorrt
from edgekit.engines.build import BuildEngineRequest, artifact_name, build_engine
from edgekit.engines.installation import inspect_installation
from edgekit.engines.tensorrt import engine
from edgekit.engines.tensorrt.probe import probe_device
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.policy.document import load_preset
from edgekit.verify.stage import EVIDENCE_NAME, VerifyRequest, verify


class Listener(NullObserver):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(params=PAIRS[1::2], ids="-".join)
def version(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    version, interface = request.param
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in child_environment(version, (interface,)).items():
        monkeypatch.setenv(name, value)
    # Children get this process's search path.
    monkeypatch.syspath_prepend(str(IMPORTABLE))
    with stand_in(version, interface, monkeypatch):
        yield version


def test_build_verify_and_bench(version: str, tmp_path: Path) -> None:
    listener = Listener()
    built = build_engine(BuildEngineRequest("tensorrt", GRAPH, "fp32"), tmp_path / "engine", listener)
    artifact = tmp_path / "engine" / artifact_name("tensorrt")
    assert any(note.startswith(NEVER_RUN) for note in listener.notes)
    assert built.facts["engine"]["details"]["notice"] == NEVER_RUN
    assert version in built.facts["summary"]

    write_golden(tiny_golden(80), tmp_path / "golden")
    request = VerifyRequest("tensorrt", artifact, tmp_path / "golden", load_preset("default"))
    record = verify(request, tmp_path / "verify")
    assert record.facts["outcome"] == "pass"
    details = read_json(tmp_path / "verify" / EVIDENCE_NAME)["engine"]["details"]
    assert details["notice"] == NEVER_RUN
    assert details["plan"]["build"]["layers"]["count"] > 0

    options = LatencyOptions(batch=2, warmup=1, rounds=1, iterations=2, lead_in=0, timeout_s=60)
    report = measure_latency({"plan": LatencySubject("tensorrt", artifact)}, images(4), options)
    assert report.results["plan"].engine["details"]["notice"] == NEVER_RUN
    assert len(report.results["plan"].samples_ms) == 2


@pytest.mark.parametrize("version", PAIRS[2:3], indirect=True, ids="-".join)
def test_doctor_asks_a_child_and_says_that_nothing_is_proven(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = probe_device()
    monkeypatch.setattr(engine, "_probe", lambda: asked)
    found = {each.name: each.availability for each in inspect_installation().engines}
    assert found["tensorrt"].available
    assert found["tensorrt"].note == NEVER_RUN
    assert tensorrt.__doc__
