"""A release that a device completed: signed on the host, good on that device alone. Over a stand-in for TensorRT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from device_candidates import candidate, device_stand_in, run_on_device
from jetson_devices import probe_of
from signed_bundles import KEY, NOW
from tensorrt_stand_ins import PAIRS

from edgekit.bundle.open import open_bundle
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import EvidenceNeededError, UnavailableError
from edgekit.jetson.detect import read_jetson
from edgekit.pipeline.attach import AttachRequest, attach
from edgekit.release.check import CheckOptions, check
from edgekit.release.installation import Installation
from edgekit.release.sign import release


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidate, the evidence of a stand-in device, and the release of both, signed."""
    work = tmp_path_factory.mktemp("device-release")
    host = candidate(work / "host").archive
    monkeypatch = pytest.MonkeyPatch()
    with device_stand_in(*PAIRS[2], monkeypatch, work):
        run_on_device(host, work / "evidence")
    monkeypatch.undo()
    attach(AttachRequest(host, work / "evidence", work / "out"))
    done = release(work / "out" / "release", KEY, now=NOW)
    assert {path.name for path in done.signed} == {"release", "release.tar"}
    return work


def at(device: str, work: Path, tensorrt: str = "") -> CheckOptions:
    with open_bundle(work / "out" / "release") as opened:
        told = opened.read_json("evidence/device.json")
    environment = told["environment"]
    here = Installation(
        environment["machine"],
        environment["system"],
        read_jetson(probe_of(device)),
        tensorrt or told["device"]["tensorrt"],
    )
    return CheckOptions(now=NOW, here=here)


def test_it_is_good_on_the_device_that_built_it(work: Path) -> None:
    for name in ("release", "release.tar"):
        done = check(work / "out" / name, [KEY.public], at("orin-nano-super", work))
        assert "module jetson-orin-nano-8gb" in done.device
        assert f"TensorRT {PAIRS[2][0]}" in done.device
        assert done.notice == NEVER_RUN
        assert "engine/model.plan" in done.statement.subjects
        claims = done.statement.claims
        assert claims.device is not None
        assert (claims.device.module, claims.device.jetpack) == ("jetson-orin-nano-super", "6.2")
        assert claims.environment["machine"]


@pytest.mark.parametrize("device", ["orin-nano-4gb", "orin-nx-on-a-nano-carrier"])
def test_it_is_refused_on_another_module(work: Path, device: str) -> None:
    with pytest.raises(UnavailableError, match="module"):
        check(work / "out" / "release.tar", [KEY.public], at(device, work))


def test_it_is_refused_with_another_tensorrt(work: Path) -> None:
    with pytest.raises(UnavailableError, match="TensorRT"):
        check(work / "out" / "release.tar", [KEY.public], at("orin-nano-super", work, tensorrt="10.99.0"))


def test_it_is_refused_on_a_server(work: Path) -> None:
    options = at("orin-nano-super", work)
    assert options.here is not None
    with pytest.raises(UnavailableError, match="module"):
        check(work / "out" / "release.tar", [KEY.public], replace(options, here=replace(options.here, jetson=None)))


def test_a_candidate_that_no_device_completed_is_not_signed(work: Path) -> None:
    with pytest.raises(EvidenceNeededError, match="needs evidence from the device") as raised:
        release(next((work / "host").glob("*.tar")), KEY, now=NOW)
    assert raised.value.exit_code == 6
