"""A second signature over the whole bundle, in the form of OpenSSF's model-signing, for whoever checks models by that.

It lies beside the bundle as BUNDLE.sig. model-signing signs with keys of NIST's curves and not with Ed25519, so its key
is one of its own; and it says which bytes they are, nothing of a verdict. `edgekit check` does not look at it.
Format: a sigstore bundle around an in-toto statement of every file (github.com/sigstore/model-transparency).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.core.files import STAGING_PREFIX, foreign_os_errors
from edgekit.errors import BadInputError, UnavailableError
from edgekit.signing.private import check_private_file

__all__ = ["ModelSigner"]

_SUFFIX = ".sig"


class ModelSigner:
    """Signs folders and tar files; made before anything is written, so that a key that cannot be used is found first.

    Args:
        key: PEM of an elliptic-curve private key: P-256, P-384 or P-521.
        passphrase: Asked only where the key is encrypted.

    Raises:
        BadInputError: The key cannot be read, others can read it, it is of another kind, or the passphrase is wrong.
        UnavailableError: model-signing is not installed.
    """

    def __init__(self, key: Path, passphrase: Callable[[], str]) -> None:
        signing = _signing()
        encrypted = b"ENCRYPTED" in check_private_file(key)
        # Bytes, though its signature says text: version 1.1 hands them to `cryptography` as they are.
        secret = passphrase().encode("utf-8") if encrypted else None
        # Nothing of the cause is handed on: what a parser says of a secret may quote it.
        config: Any = None
        try:
            config = signing.Config().use_elliptic_key_signer(private_key=key, password=secret)
        except Exception:
            config = None
        if config is None:
            raise BadInputError(
                "A private key for model-signing cannot be used.",
                where=str(key),
                expected="PEM of an elliptic-curve key on P-256, P-384 or P-521; it signs with no Ed25519 key",
                found="a key of another kind, a damaged one, or a wrong passphrase",
                hint="openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out model.key",
            )
        self._config = config

    def sign(self, place: Path) -> Path:
        """Sign a bundle's folder or tar file as it is; an older signature is replaced.

        Returns:
            The signature's path, `place` with ".sig" behind its name.

        Raises:
            BadInputError: It cannot be read or written.
        """
        whole = place.resolve()
        signature = whole.with_name(f"{whole.name}{_SUFFIX}")
        staging = whole.with_name(f"{STAGING_PREFIX}{os.getpid()}-{signature.name}")
        with foreign_os_errors(signature, "write a signature of model-signing"):
            try:
                self._config.sign(whole, staging)
                staging.replace(signature)
            finally:
                staging.unlink(missing_ok=True)
        return signature


def _signing() -> Any:
    try:
        from model_signing import signing
    except ImportError as cause:
        raise UnavailableError(
            "The option --model-signing needs the package 'model-signing', which is not installed or not whole.",
            found=str(cause),
            hint='python -m pip install "edgekit[model-signing]"',
        ) from cause
    return signing
