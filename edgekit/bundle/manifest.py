"""The manifest: what a bundle is, and the digest of every file in it.

The manifest carries a digest over its own canonical form, so that no byte of a bundle can change without being
noticed. That finds accidents and careless edits. It does not find somebody who recomputes it: only a signature over
the digest does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.layout import ENVELOPE, MANIFEST, SCALES, required_files
from edgekit.bundle.names import check_names
from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.core.digests import digest_bytes
from edgekit.core.stages import FileRef
from edgekit.errors import BadInputError, IntegrityError
from edgekit.interface.card import ModelCard

__all__ = ["FORMAT", "MAX_FILE_BYTES", "MAX_TOTAL_BYTES", "PRECISIONS", "STATUSES", "Manifest"]

FORMAT = "edgekit.bundle/1"
PRECISIONS = ("fp32", "fp16", "int8")
# "unverified": complete, but the engine never ran on its target. The others are what the policy said.
STATUSES = ("blocked", "inconclusive", "released", "unverified")

# Below what a USTAR header can express (8 GiB); a bundle is meant for a small device.
MAX_FILE_BYTES = 4 * 1024**3
MAX_TOTAL_BYTES = 8 * 1024**3

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True)
class Manifest:
    """What a bundle is.

    Attributes:
        created_with: edgekit version that wrote the bundle.
        target: Name of the target it was built for.
        engine: Registry name of the engine that runs the artifact.
        precision: "int8", "fp16" or "fp32": of the artifact that ships.
        status: One of `STATUSES`.
        card: How to feed the engine and what its classes are called.
        map_spec: What its maps are.
        lineage: What the bundle came from: name, such as "teacher", to SHA-256.
        files: Bundle path to reference, for every file but the manifest.
    """

    created_with: str
    target: str
    engine: str
    precision: str
    status: str
    card: ModelCard
    map_spec: MapSpec
    lineage: Mapping[str, str]
    files: Mapping[str, FileRef]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical manifest without its `digest` key: the identity of the bundle."""
        return digest_bytes(dump_canonical(self._body()))

    def _body(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "created_with": self.created_with,
            "target": self.target,
            "engine": self.engine,
            "precision": self.precision,
            "status": self.status,
            "card": self.card.to_dict(),
            "map": self.map_spec.to_dict(),
            "lineage": dict(self.lineage),
            "files": {name: {"sha256": ref.sha256, "size": ref.size} for name, ref in self.files.items()},
        }

    def to_bytes(self) -> bytes:
        """The content of `manifest.json`: canonical JSON without a time, so equal bundles have equal bytes."""
        return dump_canonical(self._body() | {"digest": self.digest})

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Manifest:
        """Read an untrusted manifest.

        Raises:
            IntegrityError: Anything but the bytes `to_bytes` would write for a sound manifest: an unknown, missing or
                repeated key, a value of the wrong type or range, an unsafe name, a file missing that the precision or
                status needs, other spacing or order, or a wrong `digest`.
        """
        raw = _mapping(parse_strict(data, where=where), where, "the manifest")
        known = {"card", "digest", "map", "format", *(field.name for field in fields(cls) if field.name != "map_spec")}
        _same_keys(raw, known, where, "the manifest")
        if raw["format"] != FORMAT:
            raise _malformed(where, "format", FORMAT, raw["format"])
        manifest = cls(
            created_with=_plain(raw, "created_with", where),
            target=_plain(raw, "target", where),
            engine=_plain(raw, "engine", where),
            precision=_choice(raw, "precision", PRECISIONS, where),
            status=_choice(raw, "status", STATUSES, where),
            card=_card(raw["card"], where),
            map_spec=_map_spec(raw["map"], where),
            lineage=_lineage(raw["lineage"], where),
            files=_files(raw["files"], where),
        )
        _check_contents(manifest, where=where)
        # Parsing forgives spacing, key order and other spellings of a number; comparing the bytes forgives nothing.
        if manifest.to_bytes() != data:
            raise IntegrityError(
                "A bundle's manifest was changed.",
                where=where,
                expected=f"canonical JSON with digest {manifest.digest}",
                found=f"other bytes, with digest {raw['digest']!r}",
            )
        return manifest


def _check_contents(manifest: Manifest, *, where: str) -> None:
    """Refuse a manifest whose set of files cannot be a bundle of its precision and status.

    Raises:
        IntegrityError: A name is unsafe, a file is missing or does not belong, or the whole is too large.
    """
    # The envelope lies beside these and is not named by them: a name that could be taken for it is a collision.
    check_names([MANIFEST, ENVELOPE, *manifest.files], where=where)
    missing = [name for name in required_files(manifest.precision, manifest.status) if name not in manifest.files]
    if missing:
        raise IntegrityError(
            f"A bundle with precision {manifest.precision!r} and status {manifest.status!r} is incomplete.",
            where=where,
            expected=", ".join(missing),
        )
    if manifest.precision != "int8" and SCALES in manifest.files:
        raise IntegrityError("A bundle that is not quantised holds a scale table.", where=where, found=SCALES)
    total = sum(ref.size for ref in manifest.files.values())
    if total > MAX_TOTAL_BYTES:
        raise IntegrityError(
            "A bundle is implausibly large.", where=where, expected=f"at most {MAX_TOTAL_BYTES} bytes", found=str(total)
        )


def _malformed(where: str, key: str, expected: str, found: object) -> IntegrityError:
    return IntegrityError(
        "A bundle's manifest is malformed.", where=f"{where}: {key}", expected=expected, found=ascii(found)[:200]
    )


def _mapping(value: object, where: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(where, what, "a mapping", value)
    return value


def _same_keys(raw: Mapping[str, Any], known: set[str], where: str, what: str) -> None:
    if set(raw) != known:
        raise _malformed(where, what, "exactly the keys " + ", ".join(sorted(known)), sorted(raw))


def _plain(raw: Mapping[str, Any], key: str, where: str) -> str:
    value = raw[key]
    if not isinstance(value, str) or _PLAIN.fullmatch(value) is None:
        raise _malformed(where, key, "a short plain name", value)
    return value


def _choice(raw: Mapping[str, Any], key: str, known: tuple[str, ...], where: str) -> str:
    value = raw[key]
    if not isinstance(value, str) or value not in known:
        raise _malformed(where, key, " or ".join(known), value)
    return value


def _sha256(value: object, key: str, where: str) -> str:
    if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
        raise _malformed(where, key, "64 lower-case hexadecimal digits", value)
    return value


def _card(value: object, where: str) -> ModelCard:
    try:
        card = ModelCard.from_dict(value, where=where)
    except BadInputError as cause:
        raise _malformed(where, "card", cause.expected or "a model card", cause.found or cause.message) from cause
    if not (card.tap is None or isinstance(card.tap, str)) or isinstance(card.input.divisor, bool):
        raise _malformed(where, "card", "text for tap and a number for divisor", value)
    return card


def _map_spec(value: object, where: str) -> MapSpec:
    # Which keys may be left out is the specification's own affair; the bytes are compared afterwards.
    return MapSpec.from_dict(_mapping(value, where, "map"), where=f"{where}: map")


def _lineage(value: object, where: str) -> dict[str, str]:
    raw = _mapping(value, where, "lineage")
    return {key: _sha256(digest, f"lineage.{key!a}", where) for key, digest in raw.items()}


def _files(value: object, where: str) -> dict[str, FileRef]:
    files = {}
    for name, raw in _mapping(value, where, "files").items():
        key = f"files.{name!a}"
        _same_keys(_mapping(raw, where, key), {"sha256", "size"}, where, key)
        size = raw["size"]
        if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
            raise _malformed(where, key, f"a size from 0 to {MAX_FILE_BYTES} bytes", size)
        files[name] = FileRef(_sha256(raw["sha256"], key, where), size)
    return files
