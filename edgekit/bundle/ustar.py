"""The one form a bundle's tar file has: USTAR headers written field by field, so that equal bundles are equal files.

The standard library's tarfile writes headers that differ between Python versions, and its reader forgives much; a
reader that only has to recognise this one form has no links, devices, sparse maps or extensions to defend against.
Format: POSIX.1-1988 ustar interchange format (IEEE Std 1003.1, pax utility).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgekit.core.stages import FileRef

__all__ = ["BLOCK", "END_OF_ARCHIVE", "archive_size", "member_order", "padding_after", "ustar_header"]

BLOCK: Final = 512
END_OF_ARCHIVE: Final = bytes(2 * BLOCK)

_CHECKSUM_OFFSET = 148


def ustar_header(name: str, size: int) -> bytes:
    """The header block of a regular file: mode 0644, owner 0, time 0, no names of people.

    Args:
        name: At most 100 ASCII characters.
        size: Bytes, below 8 GiB.
    """
    fields = (
        (name.encode("ascii"), 100),
        (b"0000644", 8),
        (b"0000000", 8),
        (b"0000000", 8),
        (b"%011o" % size, 12),
        (b"%011o" % 0, 12),
        (b" " * 8, 8),  # the checksum counts itself as spaces
        (b"0", 1),
        (b"", 100),
        (b"ustar", 6),
        (b"00", 2),
    )
    header = b"".join(value.ljust(width, b"\0") for value, width in fields).ljust(BLOCK, b"\0")
    checksum = b"%06o\0 " % sum(header)
    return header[:_CHECKSUM_OFFSET] + checksum + header[_CHECKSUM_OFFSET + len(checksum) :]


def padding_after(size: int) -> bytes:
    """The zeros that fill a member's last block."""
    return bytes(-size % BLOCK)


def member_order(files: Mapping[str, FileRef]) -> list[str]:
    """Names as they follow the manifest in the archive; that comes first so that it can judge them."""
    return sorted(files)


def archive_size(manifest: bytes, files: Mapping[str, FileRef]) -> int:
    """Bytes of the whole archive of a bundle with this manifest."""
    sizes = [len(manifest), *(ref.size for ref in files.values())]
    return sum(BLOCK + size + -size % BLOCK for size in sizes) + len(END_OF_ARCHIVE)
