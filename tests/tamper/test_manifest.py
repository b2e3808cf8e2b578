"""Every change to a manifest is refused, and so is every unsound manifest however well it is forged."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle.manifest import MAX_FILE_BYTES, Manifest
from edgekit.bundle.open import open_bundle
from edgekit.core.canonical import dump_canonical
from edgekit.errors import IntegrityError

Refused = Callable[[Path], IntegrityError]
Forge = Callable[[dict[str, Any]], bytes]

EMPTY_FILE = {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "size": 0}


def read(data: bytes) -> Manifest:
    return Manifest.from_bytes(data, where="manifest.json")


def paths_into(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a JSON document."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, child in items:
        yield (*prefix, key)
        yield from paths_into(child, (*prefix, key))


def replaced(raw: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    result = copy.deepcopy(raw)
    inside(result, path[:-1])[path[-1]] = value
    return result


def inside(raw: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        raw = raw[key]
    return raw


def test_every_bit_of_the_manifest_counts(sound: Path) -> None:
    data = (sound / "manifest.json").read_bytes()
    for position in range(len(data)):
        for bit in (0, 5):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(IntegrityError):
                read(bytes(damaged))


def test_every_value_counts(raw_manifest: dict[str, Any]) -> None:
    for path in paths_into(raw_manifest):
        for value in (None, "other", 7, 0.5, True, [], {}, "cpu", "blocked", "fp32", "0" * 64):
            edited = replaced(raw_manifest, path, value)
            if edited == raw_manifest and repr(edited) == repr(raw_manifest):
                continue
            with pytest.raises(IntegrityError):
                read(dump_canonical(edited))


def test_a_forged_digest_does_not_hide_a_wrong_type(raw_manifest: dict[str, Any], forge: Forge) -> None:
    # The tap may be unknown, a bundle may come from nowhere, and the map's sign is what it already was.
    sound = [(("card", "tap"), None), (("lineage",), {}), (("map", "nonnegative"), True)]
    for path in paths_into(raw_manifest):
        for value in (None, [], {}, True, -1):
            if path != ("digest",) and (path, value) not in sound:
                with pytest.raises(IntegrityError):
                    read(forge(replaced(raw_manifest, path, value)))


def test_every_key_is_needed(raw_manifest: dict[str, Any], forge: Forge) -> None:
    # The report is for people, and which arrays a golden set has is its own business.
    optional = {"report/report.html", *(f"golden/{name}.npy" for name in ("labels", "logits", "maps", "pixels"))}
    for path in paths_into(raw_manifest):
        if isinstance(path[-1], int) or path[-1] in optional or path in (("lineage", "teacher"), ("digest",)):
            continue
        shorter = copy.deepcopy(raw_manifest)
        del inside(shorter, path[:-1])[path[-1]]
        with pytest.raises(IntegrityError):
            read(forge(shorter))


def test_no_other_key_is_known(raw_manifest: dict[str, Any], forge: Forge) -> None:
    for path in [(), ("card",), ("card", "input"), ("map",), ("files", "policy.json")]:
        longer = copy.deepcopy(raw_manifest)
        inside(longer, path)["comment"] = "harmless"
        with pytest.raises(IntegrityError):
            read(forge(longer))


def test_a_file_taken_out_of_a_forged_manifest_is_an_extra_file(
    raw_manifest: dict[str, Any], forge: Forge, victim: Path, refused: Refused
) -> None:
    for name in raw_manifest["files"]:
        edited = copy.deepcopy(raw_manifest)
        del edited["files"][name]
        (victim / "manifest.json").write_bytes(forge(edited))
        refused(victim)


def test_a_file_put_into_a_forged_manifest_is_missing(
    raw_manifest: dict[str, Any], forge: Forge, victim: Path, refused: Refused
) -> None:
    raw_manifest["files"]["more.json"] = EMPTY_FILE
    (victim / "manifest.json").write_bytes(forge(raw_manifest))
    assert "missing" in refused(victim).message


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "engine/../../evil.json",
        "..",
        ".",
        "",
        "/etc/passwd",
        "//server/share",
        "C:/evil.json",
        "C:evil.json",
        "engine\\model2.onnx",
        "engine//model2.onnx",
        "./model.onnx",
        "engine/",
        "engine/.",
        ".hidden",
        "engine/.hidden",
        "name.",
        "name ",
        " name",
        "na me",
        "tab\there",
        "line\nbreak",
        "nul\0byte",
        "bell\x07",
        "del\x7f",
        "~root",
        "star*",
        "stream:hidden",
        "caf\u00e9.json",
        "cafe\u0301.json",
        "p\u043elicy.json",
        "policy\u200b.json",
        "\u202egnp.json",
        "\uff0e\uff0e/evil",
        "con",
        "CON",
        "aux.json",
        "engine/NUL.onnx",
        "com1.txt",
        "lpt9",
        "POLICY.json",
        "Engine/model2.onnx",
        "ENGINE",
        "engine",
        "policy.json/inside",
        "manifest.json",
        "MANIFEST.JSON",
        "a" * 101,
        "/".join(["a"] * 60),
    ],
    ids=lambda name: ascii(name)[:30],
)
def test_an_unsafe_name_is_refused_even_with_a_right_digest(
    raw_manifest: dict[str, Any], forge: Forge, victim: Path, refused: Refused, name: str
) -> None:
    raw_manifest["files"][name] = EMPTY_FILE
    (victim / "manifest.json").write_bytes(forge(raw_manifest))
    outside = {path.name for path in victim.parent.iterdir()}
    # For its name, that is, and not because no such file is there.
    assert refused(victim).message.startswith(("A bundle names a file unsafely", "A bundle holds two names"))
    assert {path.name for path in victim.parent.iterdir()} == outside


@pytest.mark.parametrize("size", [-1, MAX_FILE_BYTES + 1, 1.0, 1.5, "1", True, None, 10**30])
def test_an_impossible_size(raw_manifest: dict[str, Any], forge: Forge, size: object) -> None:
    raw_manifest["files"]["policy.json"]["size"] = size
    with pytest.raises(IntegrityError):
        read(forge(raw_manifest))


def test_too_many_bytes_in_all(raw_manifest: dict[str, Any], forge: Forge) -> None:
    for number in range(3):
        raw_manifest["files"][f"big{number}"] = {"sha256": "0" * 64, "size": MAX_FILE_BYTES}
    with pytest.raises(IntegrityError, match="implausibly large"):
        read(forge(raw_manifest))


def test_too_many_files(raw_manifest: dict[str, Any], forge: Forge) -> None:
    raw_manifest["files"] |= {f"f{number}": EMPTY_FILE for number in range(5000)}
    with pytest.raises(IntegrityError, match="too many"):
        read(forge(raw_manifest))


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, " " + "0" * 63, "\u0660" * 64])
def test_a_digest_that_is_none(raw_manifest: dict[str, Any], forge: Forge, digest: str) -> None:
    for path in (("files", "policy.json", "sha256"), ("lineage", "teacher")):
        with pytest.raises(IntegrityError):
            read(forge(replaced(raw_manifest, path, digest)))


def test_a_repeated_key(sound: Path) -> None:
    text = (sound / "manifest.json").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.lstrip().startswith('"') and '": ' in line and line.endswith(","):
            with pytest.raises(IntegrityError, match="key twice"):
                read(text.replace(line, f"{line}\n{line}", 1).encode())


@pytest.mark.parametrize(
    "spelling",
    [
        lambda raw: json.dumps(raw, sort_keys=True, indent=1, ensure_ascii=False).encode(),
        lambda raw: json.dumps(raw, sort_keys=True, indent=2, ensure_ascii=False).encode() + b"\n",
        lambda raw: json.dumps(raw, sort_keys=True, indent=1).encode() + b"\n",
        lambda raw: json.dumps(raw, sort_keys=True).encode() + b"\n",
        lambda raw: json.dumps(dict(reversed(raw.items())), indent=1, ensure_ascii=False).encode() + b"\n",
        lambda raw: dump_canonical(raw).replace(b"\n", b"\r\n"),
        lambda raw: dump_canonical(raw) + b"\n",
        lambda raw: b"\xef\xbb\xbf" + dump_canonical(raw),
        lambda raw: dump_canonical(raw).replace(b"255.0", b"2.55e2"),
        lambda raw: dump_canonical(raw).replace(b"0.0", b"-0.0", 1),
        lambda raw: dump_canonical(raw).decode().encode("utf-16"),
    ],
    ids=[
        "no newline",
        "wider",
        "escaped",
        "one line",
        "other order",
        "carriage returns",
        "two newlines",
        "byte order mark",
        "exponent",
        "minus zero",
        "utf-16",
    ],
)
def test_the_same_values_spelt_otherwise(
    raw_manifest: dict[str, Any], spelling: Callable[[dict[str, Any]], bytes]
) -> None:
    assert read(dump_canonical(raw_manifest))
    with pytest.raises(IntegrityError):
        read(spelling(raw_manifest))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b"\xff\xfe",
        b"{" * 100_000,
        b'{"format": NaN}',
        b'{"format": 1e999}',
        b'{"format": "\\ud800"}',
        b'{"format": ' + b"1" * 5000 + b"}",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_a_manifest_that_is_none(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        read(data)


def test_a_huge_manifest_is_not_read(victim: Path, refused: Refused) -> None:
    with (victim / "manifest.json").open("r+b") as stream:
        stream.truncate(64 * 1024**3)  # a hole: it takes no room on the disk
    assert "implausibly large" in refused(victim).message


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({"precision": "fp32"}, "scale table"),
        ({"format": "edgekit.bundle/2"}, "malformed"),
        ({"status": "RELEASED"}, "malformed"),
        ({"precision": "int4"}, "malformed"),
        ({"engine": "../ort"}, "malformed"),
        ({"target": ""}, "malformed"),
        ({"created_with": "1" * 101}, "malformed"),
    ],
)
def test_a_forged_claim_that_cannot_be(
    raw_manifest: dict[str, Any], forge: Forge, changes: dict[str, Any], needs: str
) -> None:
    with pytest.raises(IntegrityError, match=needs):
        read(forge(raw_manifest | changes))


@pytest.mark.parametrize("name", ["evidence/scores.json", "evidence/verdict.json"])
def test_a_release_without_evidence(raw_manifest: dict[str, Any], forge: Forge, name: str) -> None:
    del raw_manifest["files"][name]
    for status in ("released", "blocked", "inconclusive"):
        with pytest.raises(IntegrityError, match="incomplete"):
            read(forge(raw_manifest | {"status": status}))
    assert read(forge(raw_manifest | {"status": "unverified"})).status == "unverified"


def test_a_golden_set_of_another_network(raw_manifest: dict[str, Any], forge: Forge, victim: Path) -> None:
    for path, value in (
        (("card", "classes"), ["cat", "dog", "owl", "horse"]),
        (("card", "input", "mean"), [0.5, 0.5, 0.5]),
        (("map", "method"), "saliency"),
        (("map", "height"), 5),
    ):
        (victim / "manifest.json").write_bytes(forge(replaced(raw_manifest, path, value)))
        with open_bundle(victim) as opened, pytest.raises(IntegrityError, match="another network"):
            opened.golden()


def test_what_a_digest_without_a_signature_cannot_find(raw_manifest: dict[str, Any], forge: Forge) -> None:
    """A limit, stated: whoever recomputes the digest can rename the target. The bundle's identity then changes."""
    forged = read(forge(raw_manifest | {"target": "another"}))
    assert forged.digest != raw_manifest["digest"]
