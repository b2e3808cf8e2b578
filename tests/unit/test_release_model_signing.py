"""The option of a signature by OpenSSF's model-signing. Skips where that package is not installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from signed_bundles import KEY, NOW, OPTIONS, make_bundle

from edgekit.bundle.pack import write_tar
from edgekit.cli.main import run
from edgekit.errors import BadInputError, UnavailableError
from edgekit.release.check import check
from edgekit.release.model_signing import ModelSigner
from edgekit.release.sign import release
from edgekit.signing.private import write_key_pair

SECRET = "open sesame"


def nobody() -> str:
    raise AssertionError("a key without a passphrase asked for one")


def elliptic_key(folder: Path, curve: ec.EllipticCurve, passphrase: str = "") -> tuple[Path, Path]:
    key = ec.generate_private_key(curve)
    how: Any = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    folder.mkdir(exist_ok=True)
    private, public = folder / "model.key", folder / "model.pub"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))
    private.chmod(0o600)
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_bundle(tmp_path_factory.mktemp("sound"))
    write_tar(folder, folder.with_name("release.tar"))
    assert release(folder, KEY, now=NOW).envelope is not None
    return folder


def their_verifier(public: Path) -> Any:
    verifying = pytest.importorskip(
        "model_signing.verifying", reason='needs "edgekit[model-signing]"', exc_type=ImportError
    )
    return verifying.Config().use_elliptic_key_verifier(public_key=public)


@pytest.fixture
def places(sound: Path, tmp_path: Path) -> tuple[Path, Path]:
    folder = Path(shutil.copytree(sound, tmp_path / "release"))
    tar = Path(shutil.copy(sound.with_name("release.tar"), tmp_path / "release.tar"))
    return folder, tar


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_model_signing_verifies_what_was_written(places: tuple[Path, Path], tmp_path: Path, curve: Any) -> None:
    private, public = elliptic_key(tmp_path / "keys", curve)
    theirs = their_verifier(public)
    signer = ModelSigner(private, nobody)
    for place in places:
        signature = signer.sign(place)
        assert signature == place.with_name(f"{place.name}.sig")
        theirs.verify(place, signature)
        assert check(place, [KEY.public], OPTIONS).digest, "the bundle itself stays as it was"
    assert not list(tmp_path.glob(".*"))


def test_model_signing_refuses_what_was_changed(places: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = elliptic_key(tmp_path / "keys", ec.SECP256R1())
    theirs = their_verifier(public)
    signature = ModelSigner(private, nobody).sign(places[0])
    (places[0] / "scales.json").write_bytes(b"{}\n")
    with pytest.raises(ValueError, match=r"scales\.json"):
        theirs.verify(places[0], signature)


def test_an_encrypted_key_asks_for_its_passphrase(places: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = elliptic_key(tmp_path / "keys", ec.SECP256R1(), SECRET)
    theirs = their_verifier(public)
    theirs.verify(places[1], ModelSigner(private, lambda: SECRET).sign(places[1]))
    with pytest.raises(BadInputError, match="cannot be used"):
        ModelSigner(private, lambda: "wrong")


def test_our_own_keys_are_not_what_it_takes(tmp_path: Path) -> None:
    pytest.importorskip("model_signing.signing", reason='needs "edgekit[model-signing]"', exc_type=ImportError)
    private, _ = write_key_pair(KEY, tmp_path, "release")
    with pytest.raises(BadInputError, match="cannot be used") as raised:
        ModelSigner(private, nobody)
    assert "P-256" in (raised.value.expected or "")


def test_the_command_writes_both(places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_key, public = elliptic_key(tmp_path / "keys", ec.SECP256R1())
    theirs = their_verifier(public)
    key, _ = write_key_pair(KEY, tmp_path / "keys", "release")
    assert run(["release", str(places[0]), "--key", str(key), "--model-signing", str(model_key)]) == 0
    assert "release.tar.sig" in capsys.readouterr().out
    for place in places:
        theirs.verify(place, place.with_name(f"{place.name}.sig"))


def test_without_the_package_nothing_is_signed(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    model_key, _ = elliptic_key(tmp_path / "keys", ec.SECP256R1())
    with pytest.raises(UnavailableError, match="model-signing"):
        ModelSigner(model_key, nobody)
    key, _ = write_key_pair(KEY, tmp_path / "keys", "release")
    before = (places[0] / "release.intoto.json").read_bytes()
    assert run(["release", str(places[0]), "--key", str(key), "--model-signing", str(model_key)]) == 5
    assert "edgekit[model-signing]" in capsys.readouterr().err
    assert (places[0] / "release.intoto.json").read_bytes() == before
