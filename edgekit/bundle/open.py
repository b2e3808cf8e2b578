"""Opening a bundle: nothing is handed out before every byte was checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.folder import check_content, check_folder, not_a_bundle, read_envelope
from edgekit.bundle.golden import GoldenSet, read_golden
from edgekit.bundle.layout import GOLDEN, MODEL, PLAN, REFERENCE, REFERENCE_PLAN
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.unpack import unpack_tar
from edgekit.core.canonical import parse_strict
from edgekit.core.digests import digest_bytes
from edgekit.core.files import foreign_os_errors, read_bytes
from edgekit.engines.build import PLAN_ENGINES
from edgekit.errors import BadInputError, EvidenceNeededError, IntegrityError
from edgekit.interface.card import ModelCard

__all__ = ["Bundle", "open_bundle"]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was sound when it was opened. A context manager: leaving it removes what was unpacked for it.

    Attributes:
        folder: Where its files lie.
        manifest: What it is.
        source: The folder or tar file that was opened, for messages: a tar file's content lies in a temporary folder.
    """

    folder: Path
    manifest: Manifest
    source: Path = field(compare=False)
    _unpacked: TemporaryDirectory[str] | None = field(default=None, repr=False, compare=False)

    def __contains__(self, name: object) -> bool:
        return name in self.manifest.files

    def path(self, name: str) -> Path:
        """Where the file called `name` (see `layout`) lies. Raises `BadInputError` when the bundle has none."""
        if name not in self.manifest.files:
            raise BadInputError(
                f"This bundle has no {name}.",
                where=str(self.source),
                expected="one of " + ", ".join(sorted(self.manifest.files)),
            )
        return self.folder / name

    def envelope(self) -> bytes | None:
        """The signed statement about the bundle, unread; None where it was not signed. Raises like `read_envelope`."""
        return read_envelope(self.folder)

    @property
    def awaits_device(self) -> bool:
        """Its engine is yet to be built, on the device: status "unverified" without an artifact."""
        manifest = self.manifest
        return manifest.status == "unverified" and manifest.engine in PLAN_ENGINES and PLAN not in self

    @property
    def model_path(self) -> Path:
        """The artifact that ships.

        Raises:
            EvidenceNeededError: The device has yet to build it.
        """
        if self.awaits_device:
            raise EvidenceNeededError(
                "This bundle has no engine yet: the device builds it.",
                where=str(self.source),
                expected=f"a release that 'edgekit attach' completed for {self.manifest.target}",
                found="status unverified: needs device evidence",
                hint="run 'edgekit device build' with it on the device, then 'edgekit attach' here",
            )
        return self.path(PLAN if PLAN in self else MODEL)

    @property
    def reference_path(self) -> Path:
        """The FP32 explained graph; the shipped graph itself where that is FP32."""
        return self.path(REFERENCE if REFERENCE in self else MODEL)

    @property
    def partner_path(self) -> Path:
        """The FP32 artifact of the same engine, to time the shipped one beside."""
        return self.path(REFERENCE_PLAN) if REFERENCE_PLAN in self else self.reference_path

    def read_bytes(self, name: str) -> bytes:
        """The content of a file, checked again: what is used is what the manifest names, even if that was long ago.

        Raises:
            BadInputError: The bundle has no such file.
            IntegrityError: The file was changed since the bundle was opened.
        """
        data = read_bytes(self.path(name))
        if digest_bytes(data) != self.manifest.files[name].sha256:
            raise IntegrityError("A file of the bundle changed after it was opened.", where=str(self.folder / name))
        return data

    def read_json(self, name: str) -> Any:
        """A JSON document of the bundle, for the `from_dict` of whoever owns its format. Raises like `read_bytes`."""
        return parse_strict(self.read_bytes(name), where=str(self.folder / name))

    def golden(self) -> GoldenSet:
        """The golden set.

        Raises:
            IntegrityError: It changed since the bundle was opened, is malformed, or describes another network.
        """
        for name, ref in self.manifest.files.items():
            if name.startswith(f"{GOLDEN}/"):
                check_content(self.path(name), ref)
        golden = read_golden(self.folder / GOLDEN)
        if _answers(golden.card, golden.map_spec) != _answers(self.manifest.card, self.manifest.map_spec):
            raise IntegrityError(
                "The golden set of a bundle was made for another network: its card or its maps are not the manifest's.",
                where=str(self.folder / GOLDEN),
                expected=f"{self.manifest.card} {self.manifest.map_spec}",
                found=f"{golden.card} {golden.map_spec}",
            )
        return golden

    def close(self) -> None:
        """Remove the temporary folder, if there is one. May be called twice."""
        if self._unpacked is not None:
            self._unpacked.cleanup()

    def __enter__(self) -> Bundle:
        """The bundle itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bundle."""
        self.close()


def _answers(card: ModelCard, map_spec: MapSpec) -> tuple[ModelCard, MapSpec]:
    """What two networks must share for their answers to be comparable: everything but where the taps are inside."""
    inside: dict[str, Any] = {"tap": "", "layout": "nchw", "prefix_tokens": 0}
    further = tuple(replace(tap, **inside) for tap in map_spec.further_taps)
    return replace(card, tap=None, further_taps=()), replace(map_spec, **inside, further_taps=further)


def open_bundle(path: Path, *, unpack_to: Path | None = None) -> Bundle:
    """Open a bundle's folder or tar file after checking every byte of it.

    Args:
        path: The folder, or the tar file.
        unpack_to: Where a tar file is unpacked for good; by default into a temporary folder that `Bundle.close`
            removes. Not for folders.

    Raises:
        BadInputError: `path` does not exist or is not a bundle.
        IntegrityError: Something is missing, extra or changed.
        UnavailableError: The disk is full.
    """
    if path.is_dir():
        if unpack_to is not None:
            raise BadInputError("Only a bundle's tar file can be unpacked; this is a folder.", where=str(path))
        return Bundle(path, check_folder(path), path)
    if not path.exists():
        raise not_a_bundle(path, "nothing")
    if unpack_to is not None:
        return Bundle(unpack_to, unpack_tar(path, unpack_to), unpack_to)
    with foreign_os_errors(path, "unpack a bundle"):
        temporary = TemporaryDirectory(prefix="edgekit-bundle-")
    try:
        folder = Path(temporary.name) / "bundle"
        return Bundle(folder, unpack_tar(path, folder), path, temporary)
    except BaseException:
        temporary.cleanup()
        raise
