"""What passed is signed, in folder and tar file alike, and nothing else is."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from faulty import with_weights
from signed_bundles import ENVIRONMENT, KEY, NOW, OPTIONS, OTHER_KEY, make_bundle
from tiny_golden import GRAPH

from edgekit.bundle.folder import check_folder
from edgekit.bundle.layout import ENVELOPE
from edgekit.bundle.open import open_bundle
from edgekit.bundle.pack import write_tar
from edgekit.errors import BadInputError, DefectError, ExitCode, IntegrityError
from edgekit.release import sign
from edgekit.release.check import check
from edgekit.release.sign import release
from edgekit.verify.gate import GateResult, bundle_notice, gate


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "release"))


def test_a_folder_is_signed(bundle: Path) -> None:
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    done = release(bundle, KEY, now=NOW)
    assert (done.exit_code, done.refusal, done.signed) == (ExitCode.OK, "", (bundle,))
    after = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {bundle / ENVELOPE}
    assert before.items() <= after.items()
    assert done.envelope is not None
    assert after[bundle / ENVELOPE] == done.envelope.to_bytes()
    assert list(bundle.parent.glob(".*")) == []


def test_the_statement_says_what_was_verified(bundle: Path) -> None:
    statement = release(bundle, KEY, now=NOW + timedelta(microseconds=7), lifetime=timedelta(days=180)).statement
    assert statement is not None
    assert (statement.created, statement.expires) == (NOW, NOW + timedelta(days=180))
    manifest = check_folder(bundle)
    claims = statement.claims
    assert (claims.bundle, claims.target, claims.engine) == (manifest.digest, "cpu-x86", "reference")
    assert (claims.precision, claims.status) == ("int8", "released")
    assert claims.environment == ENVIRONMENT
    assert claims.device is None
    assert statement.policy == manifest.files["policy.json"].sha256
    with open_bundle(bundle) as opened:
        assert statement.passed == tuple(clause.text for clause in gate(opened).verdict.clauses)


def test_a_tar_file_is_signed_and_its_envelope_is_last(bundle: Path, tmp_path: Path) -> None:
    tar = tmp_path / "alone" / "some.tar"
    write_tar(bundle, tar)
    unsigned = tar.read_bytes()
    done = release(tar, KEY, now=NOW)
    assert done.signed == (tar,)
    assert tar.read_bytes().startswith(unsigned[:-1024])
    assert check(tar, [KEY.public], OPTIONS).digest == done.digest
    opened = open_bundle(tar, unpack_to=tmp_path / "unpacked")
    assert opened.envelope() == done.envelope.to_bytes()  # type: ignore[union-attr]
    write_tar(tmp_path / "unpacked", tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == tar.read_bytes()


@pytest.mark.parametrize("named", ["release", "release.tar"])
def test_folder_and_tar_file_of_one_bundle_are_both_signed(bundle: Path, named: str) -> None:
    tar = bundle.with_name("release.tar")
    write_tar(bundle, tar)
    done = release(bundle.with_name(named), KEY, now=NOW)
    assert set(done.signed) == {bundle, tar}
    for path in done.signed:
        assert check(path, [KEY.public], OPTIONS).key_id == KEY.public.key_id


def test_a_tar_file_of_another_bundle_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    tar = bundle.with_name("release.tar")
    write_tar(make_bundle(tmp_path / "other", seed=1), tar)
    before = tar.read_bytes()
    assert release(bundle, KEY, now=NOW).signed == (bundle,)
    assert tar.read_bytes() == before


def test_a_damaged_tar_file_beside_a_folder_stops_before_anything_is_signed(bundle: Path) -> None:
    tar = bundle.with_name("release.tar")
    write_tar(bundle, tar)
    tar.write_bytes(tar.read_bytes()[:-700])
    with pytest.raises(IntegrityError):
        release(bundle, KEY, now=NOW)
    assert not (bundle / ENVELOPE).exists()


def test_a_later_signature_replaces_the_earlier(bundle: Path) -> None:
    release(bundle, OTHER_KEY, now=NOW - timedelta(days=9))
    release(bundle, KEY, now=NOW)
    assert check(bundle, [KEY.public, OTHER_KEY.public], OPTIONS).key_id == KEY.public.key_id


def test_the_name_of_the_folder_may_be_a_dot(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle)
    release(Path(), KEY, now=NOW)
    assert check(bundle, [KEY.public], OPTIONS).key_id == KEY.public.key_id


def test_a_failing_bundle_is_not_signed(tmp_path: Path) -> None:
    graph = with_weights(GRAPH, tmp_path / "d.onnx", lambda w: w[::-1] if w.shape == (4, 3) and w.max() < 1 else None)
    folder = make_bundle(tmp_path / "work", graph=graph, status="blocked")
    done = release(folder, KEY, now=NOW)
    assert (done.exit_code, done.envelope, done.signed) == (ExitCode.GATE_FAILED, None, ())
    assert "gate fails" in done.refusal
    assert not (folder / ENVELOPE).exists()


def test_an_inconclusive_bundle_is_not_signed(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, count=4, policy="default", status="inconclusive")
    done = release(folder, KEY, now=NOW)
    assert (done.exit_code, done.envelope) == (ExitCode.INCONCLUSIVE, None)
    assert not (folder / ENVELOPE).exists()


@pytest.mark.parametrize("status", ["blocked", "inconclusive", "unverified"])
def test_a_bundle_that_passes_and_is_no_release_is_not_signed(tmp_path: Path, status: str) -> None:
    done = release(make_bundle(tmp_path, status=status), KEY, now=NOW)
    assert (done.exit_code, done.envelope) == (ExitCode.INCONCLUSIVE, None)
    assert status in done.refusal


def judged_with(monkeypatch: pytest.MonkeyPatch, **controls: Any) -> None:
    """The gate's answer, with another word about controls."""

    def answer(bundle: Any) -> GateResult:
        return replace(gate(bundle), **controls)

    monkeypatch.setattr(sign, "gate", answer)


def test_controls_that_were_turned_off_are_no_release(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_with(monkeypatch, controls_state="off")
    done = release(bundle, KEY, now=NOW)
    assert (done.exit_code, done.envelope) == (ExitCode.INCONCLUSIVE, None)
    assert "turned off" in done.refusal


def test_a_policy_that_passes_a_control_is_no_release(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.verify.controls import ControlResult

    with open_bundle(bundle) as opened:
        passed = ControlResult("permuted-maps", gate(opened).verdict)
    assert not passed.caught
    judged_with(monkeypatch, controls_state="ran", controls=(passed,))
    done = release(bundle, KEY, now=NOW)
    assert (done.exit_code, done.envelope) == (ExitCode.INCONCLUSIVE, None)
    assert "permuted-maps" in done.refusal


def test_a_damaged_bundle_is_not_signed(bundle: Path) -> None:
    (bundle / "scales.json").write_bytes(b"{}\n")
    with pytest.raises(IntegrityError):
        release(bundle, KEY, now=NOW)
    assert not (bundle / ENVELOPE).exists()


def test_a_signature_that_does_not_verify_is_never_written(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(KEY), "sign", lambda self, message: bytes(64))
    with pytest.raises(DefectError, match="does not verify"):
        release(bundle, KEY, now=NOW)
    assert not (bundle / ENVELOPE).exists()


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(days=-1), timedelta(milliseconds=5)])
def test_a_lifetime_has_to_be_one(bundle: Path, lifetime: timedelta) -> None:
    with pytest.raises(BadInputError, match="expire before"):
        release(bundle, KEY, now=NOW, lifetime=lifetime)


def test_what_cannot_be_written_leaves_the_bundle_as_it_was(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", lambda descriptor: full(0, 0))
    with pytest.raises(Exception, match="disk is full"):
        release(bundle, KEY, now=NOW)
    assert not (bundle / ENVELOPE).exists()
    assert check_folder(bundle).status == "released"
    assert list(bundle.parent.glob(".*")) == []


def test_the_gate_of_a_signed_bundle_says_that_it_did_not_look_at_the_signature(bundle: Path) -> None:
    with open_bundle(bundle) as opened:
        assert bundle_notice(opened) == ""
    release(bundle, KEY, now=NOW)
    with open_bundle(bundle) as opened:
        assert gate(opened).outcome == "pass"
        notice = bundle_notice(opened)
    assert KEY.public.key_id in notice
    assert "was not checked" in notice
    assert "edgekit check" in notice


def test_the_gate_needs_no_key_to_see_that_an_envelope_is_of_another_bundle(bundle: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", seed=1)
    release(other, KEY, now=NOW)
    shutil.copy(other / ENVELOPE, bundle / ENVELOPE)
    with open_bundle(bundle) as opened, pytest.raises(IntegrityError, match="about something else") as raised:
        gate(opened)
    assert raised.value.expected != raised.value.found
    assert "sign it anew" in (raised.value.hint or "")
