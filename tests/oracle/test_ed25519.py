"""Our verification of Ed25519 against RFC 8032's own vectors, OpenSSL's verification, and what is known to go wrong."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.signing.ed25519 import is_sound_key, verify_signature

ORDER = 2**252 + 27742317777372353535851937790883648493
PRIME = 2**255 - 19

# RFC 8032, section 7.1: public key, message, signature.
VECTORS = {
    "TEST 1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe2"
        "4655141438e7a100b",
    ),
    "TEST 2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302ae"
        "eb00d291612bb0c00",
    ),
    "TEST 3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28"
        "dc027beceea1ec40a",
    ),
    "TEST SHA(abc)": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17"
        "ad9bef1177331a704",
    ),
}

# The eight points whose order divides the cofactor, and every other spelling of them that decoders were seen to take.
SMALL_ORDER = (
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
)


def openssl_accepts(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def pair(seed: bytes) -> tuple[Ed25519PrivateKey, bytes]:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    return private, private.public_key().public_bytes_raw()


def secret_scalar(seed: bytes) -> int:
    """RFC 8032, 5.1.5: the number whose multiple of the base point is the public key."""
    digest = bytearray(hashlib.sha512(seed).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    return int.from_bytes(digest, "little")


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors_of_the_rfc(name: str) -> None:
    key, message, signature = (bytes.fromhex(text) for text in VECTORS[name])
    assert is_sound_key(key)
    assert verify_signature(key, message, signature)
    assert not verify_signature(key, message + b"\0", signature)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=300))
def test_what_openssl_signs_verifies(seed: bytes, message: bytes) -> None:
    private, key = pair(seed)
    assert is_sound_key(key)
    assert verify_signature(key, message, private.sign(message))


@settings(max_examples=400, derandomize=True, deadline=None)
@given(data=st.data(), message=st.binary(min_size=1, max_size=40))
def test_a_changed_bit_is_judged_as_openssl_judges_it(data: st.DataObject, message: bytes) -> None:
    private, key = pair(b"\7" * 32)
    parts = [bytearray(key), bytearray(message), bytearray(private.sign(message))]
    part = data.draw(st.sampled_from(parts))
    part[data.draw(st.integers(0, len(part) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    changed = tuple(map(bytes, parts))
    assert not openssl_accepts(*changed)
    assert not verify_signature(*changed)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(key=st.binary(max_size=40), message=st.binary(max_size=20), signature=st.binary(max_size=70))
def test_no_bytes_raise_and_none_of_them_verify(key: bytes, message: bytes, signature: bytes) -> None:
    assert not verify_signature(key, message, signature)
    assert not verify_signature(key.ljust(32, b"\1")[:32], message, signature.ljust(64, b"\0")[:64])


def test_every_multiple_of_the_order_added_to_s_is_refused() -> None:
    """Signatures would otherwise come in several spellings, and so would whole envelopes."""
    private, key = pair(b"\3" * 32)
    signature = private.sign(b"message")
    scalar = int.from_bytes(signature[32:], "little")
    refused = 0
    for times in range(1, 16):
        if scalar + times * ORDER < 2**256:
            other = signature[:32] + (scalar + times * ORDER).to_bytes(32, "little")
            assert not verify_signature(key, b"message", other)
            refused += 1
    assert refused >= 10
    assert not verify_signature(key, b"message", signature[:32] + ORDER.to_bytes(32, "little"))


@pytest.mark.parametrize("text", SMALL_ORDER)
def test_points_of_small_order_are_no_keys_and_no_commitments(text: str) -> None:
    point = bytes.fromhex(text)
    assert not is_sound_key(point)
    private, key = pair(b"\5" * 32)
    assert not verify_signature(key, b"message", point + private.sign(b"message")[32:])


def test_the_signature_that_a_key_of_small_order_gives_every_message_is_refused() -> None:
    """Under the neutral element as key, S and S times the base point are a signature of anything."""
    seed = b"\6" * 32
    commitment = pair(seed)[1]
    signature = commitment + (secret_scalar(seed) % ORDER).to_bytes(32, "little")
    neutral = bytes.fromhex(SMALL_ORDER[0])
    for message in (b"pay one", b"pay a thousand"):
        assert openssl_accepts(neutral, message, signature), "the attack is no attack"
        assert not verify_signature(neutral, message, signature)


def test_numbers_beyond_the_field_are_no_keys() -> None:
    """y and y + p are one point; only y is its encoding."""
    tried = 0
    for y in range(19):
        point, twin = y.to_bytes(32, "little"), (y + PRIME).to_bytes(32, "little")
        assert not is_sound_key(twin)
        tried += is_sound_key(point)
    assert tried >= 5, "some of the small numbers are sound, so it is the spelling that is refused"


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_another_length_is_no_key(size: int) -> None:
    assert not is_sound_key(b"\1" * size)


@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_another_length_is_no_signature(size: int) -> None:
    private, key = pair(b"\4" * 32)
    assert not verify_signature(key, b"m", private.sign(b"m").ljust(128, b"\0")[:size])
