"""The strict reader of a bundle's tar file: it recognises one byte sequence, and refuses every other.

The manifest comes first and names every member with its size and digest, so each byte that follows is known in
advance: headers are compared with the ones edgekit would write, contents with their digests, padding with zeros. Only
the envelope of a signed bundle, the last member, is known by name alone: it signs the manifest, so the manifest cannot
name it. What tar can say beyond that (links, devices, sparse files, extended headers, paths out of the folder) is never
interpreted.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edgekit.bundle.assemble import check_replaceable
from edgekit.bundle.folder import MAX_MANIFEST_BYTES, not_a_bundle
from edgekit.bundle.layout import ENVELOPE, MANIFEST, MAX_ENVELOPE_BYTES
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.ustar import BLOCK, END_OF_ARCHIVE, archive_size, member_order, padding_after, ustar_header
from edgekit.core.files import atomic_directory, foreign_os_errors, write_bytes
from edgekit.core.stages import FileRef
from edgekit.errors import IntegrityError

__all__ = ["unpack_tar"]

_CHUNK = 1024 * 1024
_MAGIC = slice(257, 262)
_TYPE = slice(156, 157)
_SIZE = slice(124, 136)
_NAME = slice(0, 100)

_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a folder",
    b"6": "a named pipe",
    b"g": "an extended header",
    b"x": "an extended header",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"S": "a sparse file",
}
_FOREIGN_HINT = "if another program packed this bundle, unpack it with that program and open the folder"


def unpack_tar(tar_path: Path, destination: Path) -> Manifest:
    """Unpack a bundle's tar file; nothing stands at `destination` unless every byte was right.

    Args:
        tar_path: A file that `write_tar` wrote.
        destination: The folder to make; an older bundle there is replaced as a whole.

    Returns:
        The manifest of the unpacked bundle.

    Raises:
        BadInputError: `tar_path` is not a tar file, or something that is not a bundle stands at `destination`.
        IntegrityError: Any difference from what `write_tar` would have written.
        UnavailableError: The disk is full.
    """
    check_replaceable(destination)
    with foreign_os_errors(tar_path, "read a bundle's tar file"):
        if not stat.S_ISREG(tar_path.stat().st_mode):
            raise not_a_bundle(tar_path, "no plain file")
        with tar_path.open("rb") as stream:
            reader = _Reader(tar_path, stream)
            encoded = reader.manifest()
            manifest = Manifest.from_bytes(encoded, where=f"{tar_path}: {MANIFEST}")
            beyond = reader.size_beyond(archive_size(encoded, manifest.files))
            with atomic_directory(destination) as staging:
                for name in member_order(manifest.files):
                    reader.member(name, manifest.files[name], staging / name)
                if beyond:
                    write_bytes(staging / ENVELOPE, reader.envelope(beyond))
                reader.end()
                write_bytes(staging / MANIFEST, encoded)
    return manifest


class _Reader:
    """Reads one archive front to back.

    Args:
        path: Named in messages.
        stream: Positioned at the start.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path = path
        self._stream = stream

    def manifest(self) -> bytes:
        """The first member, whose size is the one thing not known in advance."""
        header = self._stream.read(BLOCK)
        # One damaged byte must not turn a bundle into "never was one": either mark is enough to go on.
        if header[_MAGIC] != b"ustar" and not header.startswith(f"{MANIFEST}\0".encode()):
            raise not_a_bundle(self._path, "a file that does not start like a tar file")
        if len(header) < BLOCK:
            raise self._refused("a part missing at its end", f"a header of {BLOCK} bytes", f"{len(header)} bytes")
        return self._sized(header, MANIFEST, MAX_MANIFEST_BYTES, "a manifest with an impossible size")

    def size_beyond(self, expected: int) -> int:
        """Bytes beyond what the manifest tells of, before anything is written anywhere: an envelope's, or none."""
        beyond = os.fstat(self._stream.fileno()).st_size - expected
        largest = BLOCK + MAX_ENVELOPE_BYTES + len(padding_after(MAX_ENVELOPE_BYTES))
        if beyond and not (2 * BLOCK <= beyond <= largest and beyond % BLOCK == 0):
            problem = "a part missing at its end" if beyond < 0 else "something after its end"
            raise self._refused(problem, f"{expected} bytes, or an envelope more", f"{expected + beyond} bytes")
        return beyond

    def envelope(self, beyond: int) -> bytes:
        """The last member of a signed bundle, which takes up `beyond` bytes of the archive."""
        content = self._sized(self._exactly(BLOCK), ENVELOPE, beyond - BLOCK, "something after its end")
        if BLOCK + len(content) + len(padding_after(len(content))) != beyond:
            raise self._refused("something after its end", f"an envelope of {beyond} bytes", f"{len(content)} bytes")
        return content

    def _sized(self, header: bytes, name: str, largest: int, problem: str) -> bytes:
        """A member whose size only its header tells."""
        digits = header[_SIZE].rstrip(b"\0")
        size = int(digits, 8) if digits and all(digit in b"01234567" for digit in digits) else -1
        if not 0 <= size <= largest:
            raise self._refused(problem, f"{name}, 0 to {largest} bytes", ascii(bytes(header[_SIZE])))
        self._check_header(header, name, size)
        content = self._exactly(size)
        self._check_padding(size)
        return content

    def member(self, name: str, ref: FileRef, target: Path) -> None:
        """Copy the next member to `target` if it is the one the manifest names."""
        self._check_header(self._exactly(BLOCK), name, ref.size)
        digest = hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as output:

            def keep(chunk: bytes) -> None:
                digest.update(chunk)
                output.write(chunk)

            self._pour(ref.size, keep)
        if digest.hexdigest() != ref.sha256:
            raise self._refused(f"a changed file, {name}", f"SHA-256 {ref.sha256}", f"SHA-256 {digest.hexdigest()}")
        self._check_padding(ref.size)

    def end(self) -> None:
        """Check that the archive ends here."""
        if self._stream.read(len(END_OF_ARCHIVE) + 1) != END_OF_ARCHIVE:
            raise self._refused("no proper end", "two blocks of zeros and nothing after them", "something else")

    def _check_header(self, header: bytes, name: str, size: int) -> None:
        if header == ustar_header(name, size):
            return
        kind = _KINDS.get(header[_TYPE], "a file")
        found_name = ascii(header[_NAME].rstrip(b"\0").decode("utf-8", "replace"))
        raise self._refused(
            "a header that is not the expected one",
            f"the header edgekit writes for {name!r} of {size} bytes",
            f"{kind} called {found_name}",
        )

    def _check_padding(self, size: int) -> None:
        padding = padding_after(size)
        if self._exactly(len(padding)) != padding:
            raise self._refused("data hidden between its files", "zeros", "something else")

    def _exactly(self, size: int) -> bytes:
        pieces: list[bytes] = []
        self._pour(size, pieces.append)
        return b"".join(pieces)

    def _pour(self, size: int, sink: Callable[[bytes], object]) -> None:
        left = size
        while left:
            chunk = self._stream.read(min(left, _CHUNK))
            if not chunk:
                raise self._refused("a part missing at its end", f"{left} more bytes", "the end of the file")
            left -= len(chunk)
            sink(chunk)

    def _refused(self, problem: str, expected: str, found: str) -> IntegrityError:
        return IntegrityError(
            f"A bundle's tar file has {problem}.",
            where=str(self._path),
            expected=expected,
            found=found,
            hint=_FOREIGN_HINT,
        )
