"""`check`: whose signature, how old, which device, and does the evidence pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from jetson_devices import probe_of
from signed_bundles import ENVIRONMENT, HERE, KEY, NOW, OPTIONS, OTHER_KEY, key_of, make_bundle

from edgekit.bundle.layout import ENVELOPE
from edgekit.bundle.open import open_bundle
from edgekit.bundle.pack import write_tar
from edgekit.errors import (
    BadInputError,
    EdgekitError,
    EvidenceNeededError,
    ExitCode,
    IntegrityError,
    UnavailableError,
    UsageError,
)
from edgekit.jetson.detect import read_jetson
from edgekit.release import check as check_module
from edgekit.release import installation
from edgekit.release.check import CheckOptions, check
from edgekit.release.freshness import CLOCK_TOLERANCE
from edgekit.release.installation import Installation, match_device, this_installation
from edgekit.release.sign import release, sign_bundle
from edgekit.signing.dsse import PAYLOAD_TYPE, Envelope, pae
from edgekit.signing.statement import BundleClaims, DeviceClaims, Statement
from edgekit.targets.loader import resolve_target
from edgekit.verify.controls import ControlResult
from edgekit.verify.gate import GateResult, gate

KEYS = [KEY.public]
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle that expires after 180 days. Not to be changed."""
    folder = make_bundle(tmp_path_factory.mktemp("signed"))
    release(folder, KEY, now=NOW, lifetime=180 * DAY)
    return folder


@pytest.fixture
def victim(signed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(signed, tmp_path / "victim"))


def stated(folder: Path, change: Callable[[Statement], Statement]) -> Path:
    """The bundle with another statement, signed by the right key: what a careless or bribed signer would make."""
    with open_bundle(folder) as opened:
        _, statement = sign_bundle(opened, gate(opened), KEY, lifetime=None, now=NOW)
    payload = change(statement).to_bytes()
    envelope = Envelope(payload, KEY.public.key_id, KEY.sign(pae(PAYLOAD_TYPE, payload)))
    (folder / ENVELOPE).write_bytes(envelope.to_bytes())
    return folder


def refused(path: Path, error: type[EdgekitError], match: str, **options: Any) -> EdgekitError:
    with pytest.raises(error, match=match) as raised:
        check(path, KEYS, replace(OPTIONS, **options))
    assert raised.value.expected
    assert raised.value.found
    assert raised.value.hint
    assert raised.value.where
    return raised.value


def test_a_signed_bundle_is_good(signed: Path, tmp_path: Path) -> None:
    write_tar(signed, tmp_path / "release.tar")
    for path in (signed, tmp_path / "release.tar"):
        done = check(path, [OTHER_KEY.public, KEY.public], OPTIONS)
        assert done.key_id == KEY.public.key_id
        assert done.gate.outcome == "pass"
        assert done.device == ("architecture x86_64", "operating system Linux")
        assert done.to_dict()["created"] == "2026-01-31T12:00:00Z"
        assert done.to_dict()["expires"] == "2026-07-30T12:00:00Z"


def test_this_machine_is_compared_unless_another_is_named(signed: Path) -> None:
    here = this_installation()
    fits = (here.machine.lower(), here.system) in (("x86_64", "Linux"), ("amd64", "Linux"))
    if fits:
        assert check(signed, KEYS, CheckOptions(now=NOW)).device
    else:
        with pytest.raises(UnavailableError):
            check(signed, KEYS, CheckOptions(now=NOW))


def test_without_a_key_nothing_is_checked(signed: Path) -> None:
    with pytest.raises(UsageError):
        check(signed, [], OPTIONS)


def test_an_unsigned_bundle_is_refused(victim: Path) -> None:
    (victim / ENVELOPE).unlink()
    error = refused(victim, IntegrityError, "not signed")
    assert error.exit_code == ExitCode.INTEGRITY


def test_a_key_that_was_not_given_is_not_trusted(signed: Path) -> None:
    with pytest.raises(IntegrityError, match="not trusted here") as raised:
        check(signed, [OTHER_KEY.public, key_of(3).public], OPTIONS)
    assert KEY.public.key_id in (raised.value.found or "")
    assert OTHER_KEY.public.key_id in (raised.value.expected or "")


def test_a_signature_by_another_key_under_the_same_name_is_refused(victim: Path) -> None:
    with open_bundle(victim) as opened:
        _, statement = sign_bundle(opened, gate(opened), OTHER_KEY, lifetime=None, now=NOW)
    payload = statement.to_bytes()
    forged = Envelope(payload, KEY.public.key_id, OTHER_KEY.sign(pae(PAYLOAD_TYPE, payload)))
    (victim / ENVELOPE).write_bytes(forged.to_bytes())
    refused(victim, IntegrityError, "signature is wrong")


def test_what_never_was_a_bundle_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not an edgekit bundle"):
        check(tmp_path / "nothing.tar", KEYS, OPTIONS)


CLAIMS: dict[str, dict[str, Any]] = {
    "the bundle": {"bundle": "0" * 64},
    "the target": {"target": "cpu-arm"},
    "the engine": {"engine": "openvino"},
    "the precision": {"precision": "fp32"},
    "the status": {"status": "blocked"},
    "the verdict": {"verdict": "0" * 64},
    "the machine": {"environment": {**ENVIRONMENT, "machine": "aarch64"}},
    "the environment": {"environment": {}},
    "the device": {"device": DeviceClaims("jetson-orin-nano-8gb", "jetson-orin-nano-8gb", "", "", "10.3.0", "")},
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_statement_that_says_something_else_of_the_bundle_is_refused(victim: Path, name: str) -> None:
    """Even under the right key: a statement is worked out again, not believed."""
    stated(victim, lambda statement: replace(statement, claims=replace(statement.claims, **CLAIMS[name])))
    refused(victim, IntegrityError, "about something else")


STATEMENTS: dict[str, Callable[[Statement], Statement]] = {
    "a subject less": lambda s: replace(s, subjects={k: v for k, v in s.subjects.items() if k != "scales.json"}),
    "no subject": lambda s: replace(s, subjects={}),
    "a subject more": lambda s: replace(s, subjects={**s.subjects, "recipe.json": "0" * 64}),
    "another engine": lambda s: replace(s, subjects={**s.subjects, "engine/model.onnx": "0" * 64}),
    "another golden set": lambda s: replace(s, subjects={**s.subjects, "golden": "0" * 64}),
    "another policy": lambda s: replace(s, policy="0" * 64),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_about_other_files_is_refused(victim: Path, name: str) -> None:
    stated(victim, STATEMENTS[name])
    refused(victim, IntegrityError, "about something else")


def test_a_statement_with_fewer_clauses_than_the_policy_is_refused(victim: Path) -> None:
    stated(victim, lambda s: replace(s, passed=s.passed[1:]))
    refused(victim, IntegrityError, "not what the bundle's evidence says")


def test_a_statement_that_claims_controls_that_are_not_there_is_refused(victim: Path) -> None:
    stated(victim, lambda s: replace(s, controls="ran" if s.controls == "absent" else "absent"))
    refused(victim, IntegrityError, "not what the bundle's evidence says")


def test_a_policy_that_passes_a_control_is_no_release_here_either(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weak(bundle: Any) -> GateResult:
        judged = gate(bundle)
        return replace(judged, controls=(ControlResult("random-weights", judged.verdict),))

    monkeypatch.setattr(check_module, "gate", weak)
    error = refused(signed, EvidenceNeededError, "does not fail the controls")
    assert error.exit_code == ExitCode.INCONCLUSIVE


# How old it may be.


@pytest.mark.parametrize("now", [NOW - CLOCK_TOLERANCE, NOW, NOW + 90 * DAY, NOW + 180 * DAY - timedelta(seconds=1)])
def test_a_fresh_release_is_good(signed: Path, now: datetime) -> None:
    assert check(signed, KEYS, replace(OPTIONS, now=now)).age == max(now - NOW, timedelta(0))


@pytest.mark.parametrize("late", [180 * DAY, 181 * DAY, 9000 * DAY])
def test_an_expired_release_is_stale(signed: Path, late: timedelta) -> None:
    error = refused(signed, EvidenceNeededError, "has expired", now=NOW + late)
    assert error.exit_code == ExitCode.INCONCLUSIVE == 6
    assert "2026-07-30T12:00:00Z" in (error.expected or "")


def test_a_release_older_than_allowed_is_stale(signed: Path) -> None:
    assert check(signed, KEYS, replace(OPTIONS, now=NOW + 90 * DAY, max_age=90 * DAY)).age == 90 * DAY
    error = refused(
        signed, EvidenceNeededError, "older than", now=NOW + 90 * DAY + timedelta(seconds=1), max_age=90 * DAY
    )
    assert error.exit_code == ExitCode.INCONCLUSIVE


@pytest.mark.parametrize(
    "now", [NOW - CLOCK_TOLERANCE - timedelta(seconds=1), datetime(1970, 1, 1, tzinfo=timezone.utc)]
)
def test_a_clock_before_the_signature_is_refused(signed: Path, now: datetime) -> None:
    """A device without a clock battery wakes up in 1970, where nothing is ever too old."""
    error = refused(signed, EvidenceNeededError, "in the future", now=now)
    assert "clock" in (error.hint or "")


def test_the_zone_of_the_clock_does_not_matter(signed: Path) -> None:
    east = (NOW + 180 * DAY).astimezone(timezone(timedelta(hours=9)))
    refused(signed, EvidenceNeededError, "has expired", now=east)
    assert check(signed, KEYS, replace(OPTIONS, now=east - timedelta(seconds=1))).digest


# Which device it is for.


@pytest.mark.parametrize(
    "here", [Installation("aarch64", "Linux"), Installation("x86_64", "Windows"), Installation("", "")], ids=str
)
def test_another_machine_is_the_wrong_device(signed: Path, here: Installation) -> None:
    error = refused(signed, UnavailableError, "another device", here=here)
    assert error.exit_code == ExitCode.UNAVAILABLE == 5
    assert "--any-device" in (error.hint or "")
    assert check(signed, KEYS, replace(OPTIONS, here=here, any_device=True)).device == ()


def test_two_names_of_one_architecture_are_the_same(signed: Path) -> None:
    assert check(signed, KEYS, replace(OPTIONS, here=Installation("AMD64", "Linux"))).device


def test_a_target_that_is_an_architecture_says_enough(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, environment=None)
    release(folder, KEY, now=NOW)
    assert check(folder, KEYS, OPTIONS).device == ("architecture x86_64",)
    refused(folder, UnavailableError, "another device", here=Installation("arm64", "Darwin"))


def test_a_release_that_does_not_say_where_it_was_verified_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, environment=None, target="cuda")
    release(folder, KEY, now=NOW)
    refused(folder, UnavailableError, "does not say")
    assert check(folder, KEYS, replace(OPTIONS, any_device=True)).device == ()


def test_the_architectures_of_targets_are_those_of_their_files() -> None:
    """Devices read no YAML, so the names stand in code as well."""
    stated = {
        name: {installation._normal(machine) for machine in resolve_target(name).machines}
        for name in ("cpu-x86", "cpu-arm")
    }
    assert stated == {name: {machine} for name, machine in installation._MACHINE_OF_TARGET.items()}


def claims(device: DeviceClaims | None, target: str = "jetson-orin-nano") -> BundleClaims:
    environment = {"machine": "aarch64", "system": "Linux"}
    return BundleClaims("0" * 64, target, "tensorrt", "int8", "released", "0" * 64, environment, device)


def on(device: str, tensorrt: str = "10.3.0") -> Installation:
    """A recorded Jetson; none of these was read by us on a device."""
    return Installation("aarch64", "Linux", read_jetson(probe_of(device)), tensorrt)


TESTED = DeviceClaims("jetson-orin-nano-super", "jetson-orin-nano-8gb", "36.4.3", "6.2", "10.3.0", "Orin")


@pytest.mark.parametrize("device", ["orin-nano-super", "orin-nano-super-at-15W"])
def test_the_same_module_in_another_power_mode_is_the_same_device(device: str) -> None:
    same = match_device(claims(TESTED), on(device), where="release")
    assert "module jetson-orin-nano-8gb" in same
    assert "TensorRT 10.3.0" in same


@pytest.mark.parametrize("device", ["orin-nano-4gb", "orin-nx-on-a-nano-carrier"])
def test_another_module_is_another_device(device: str) -> None:
    with pytest.raises(UnavailableError, match="module") as raised:
        match_device(claims(TESTED), on(device), where="release")
    assert raised.value.expected == "jetson-orin-nano-8gb"


@pytest.mark.parametrize("version", ["10.3.1", "10.4.0", "8.6.2", ""])
def test_another_tensorrt_is_another_device(version: str) -> None:
    with pytest.raises(UnavailableError, match="TensorRT"):
        match_device(claims(TESTED), on("orin-nano-super", version), where="release")


def test_a_server_is_no_jetson() -> None:
    with pytest.raises(UnavailableError, match="module") as raised:
        match_device(claims(TESTED), Installation("aarch64", "Linux", None, "10.3.0"), where="release")
    assert raised.value.found == "none that can be told"


def test_an_engine_built_on_the_jetson_itself_is_held_to_its_target() -> None:
    built = claims(DeviceClaims(tensorrt="10.3.0", gpu="Orin"), target="jetson-orin-nano-8gb")
    assert "module jetson-orin-nano-8gb" in match_device(built, on("orin-nano-super"), where="release")
    with pytest.raises(UnavailableError, match="module"):
        match_device(built, on("orin-nano-4gb"), where="release")


def test_what_a_statement_says_is_shown_without_its_control_characters() -> None:
    hostile = replace(claims(TESTED), environment={"machine": "\x1b[2Jx", "system": "Linux"})
    with pytest.raises(UnavailableError) as raised:
        match_device(hostile, HERE, where="release")
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("environment", [{"machine": 7}, {"machine": None, "system": ["Linux"]}])
def test_an_environment_of_other_types_says_nothing(environment: dict[str, Any]) -> None:
    with pytest.raises(UnavailableError, match="does not say"):
        match_device(replace(claims(None, "cuda"), environment=environment), HERE, where="release")
