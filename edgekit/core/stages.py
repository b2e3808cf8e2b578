"""A stage run: inputs by digest, one folder of outputs, one record, skipped when nothing changed.

A stage's key is a digest over its name, its version, its options and the digests of its inputs. The record is written
last, into a folder that gets its final name only when it is whole; so a folder that exists and whose record matches
is finished work, whatever was killed in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.core.canonical import JsonValue, dump_canonical, parse_strict, read_json, write_json
from edgekit.core.digests import digest_bytes, digest_file, digest_path
from edgekit.core.files import atomic_directory, foreign_os_errors
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import BadInputError, IntegrityError

__all__ = [
    "RECORD_NAME",
    "FileRef",
    "Stage",
    "StageRecord",
    "finished_record",
    "read_record",
    "record_from_dict",
    "run_stage",
    "stage_key",
]

RECORD_NAME = "record.json"
_FORMAT = "edgekit.stage-record/1"


@dataclass(frozen=True)
class FileRef:
    """A file of a stage's output: SHA-256 in hexadecimal and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class StageRecord:
    """What a stage did: enough to skip it next time and to tell its story in a report.

    Attributes:
        stage: Name of the stage.
        key: Digest over everything that determines the outputs.
        options: The options as they were resolved.
        inputs: Input name to digest.
        outputs: Relative file name to reference.
        facts: Numbers and reasons found on the way, JSON-ready.
    """

    stage: str
    key: str
    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, FileRef]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "format": _FORMAT,
            "stage": self.stage,
            "key": self.key,
            "options": dict(self.options),
            "inputs": dict(self.inputs),
            "outputs": {name: {"sha256": ref.sha256, "size": ref.size} for name, ref in self.outputs.items()},
            "facts": dict(self.facts),
        }


@dataclass(frozen=True)
class Stage:
    """What is to be run.

    Attributes:
        name: Stage name, as the command is called.
        version: Raised when the stage's code changes its outputs, so that old results are not reused.
        options: Every option that changes the outputs, JSON-ready.
        inputs: Name to file or folder read. Use `digests` for inputs that are already known by digest.
        digests: Name to digest of further inputs.
    """

    name: str
    version: int
    options: Mapping[str, JsonValue]
    inputs: Mapping[str, Path]
    digests: Mapping[str, str] = field(default_factory=dict)


def run_stage(
    stage: Stage,
    destination: Path,
    body: Callable[[Path], Mapping[str, JsonValue]],
    observer: Observer = NULL_OBSERVER,
) -> StageRecord:
    """Run `body` unless `destination` already holds its result.

    A finished stage replaces its folder as a whole, so a folder with anything else in it is refused before `body` runs.

    Args:
        stage: Name, options and inputs.
        destination: The folder the stage fills; replaced as a whole.
        body: Writes the outputs into the folder it is given and returns the facts to record.
        observer: Told about start and end.

    Returns:
        The record, also stored as `record.json` in `destination`.

    Raises:
        BadInputError: An input cannot be read, or `destination` holds something other than a stage's result.
    """
    observer.stage_started(stage.name)
    begun = time.monotonic()
    inputs = _digested(stage)
    key = _key(stage, inputs)
    finished = finished_record(destination, key)
    if finished is not None:
        observer.stage_finished(
            stage.name, skipped=True, seconds=time.monotonic() - begun, summary=str(finished.facts.get("summary", ""))
        )
        return finished
    _check_replaceable(destination)
    with atomic_directory(destination) as staging:
        # Round-tripped so that the record of a fresh run and one read back compare equal.
        facts = parse_strict(dump_canonical(dict(body(staging))), where="facts")
        outputs = {
            path.relative_to(staging).as_posix(): FileRef(digest_file(path), path.stat().st_size)
            for path in sorted(staging.rglob("*"))
            if path.is_file()
        }
        options = parse_strict(dump_canonical(stage.options), where="options")
        record = StageRecord(stage.name, key, options, inputs, outputs, facts)
        write_json(staging / RECORD_NAME, record.to_dict())
    observer.stage_finished(
        stage.name, skipped=False, seconds=time.monotonic() - begun, summary=str(facts.get("summary", ""))
    )
    return record


def stage_key(stage: Stage) -> str:
    """The digest, SHA-256 in hexadecimal, over everything that determines a stage's outputs.

    Raises:
        BadInputError: An input cannot be read.
    """
    return _key(stage, _digested(stage))


def finished_record(destination: Path, key: str) -> StageRecord | None:
    """The record of finished, untouched work under `key`; anything else would simply be done again."""
    if not (destination / RECORD_NAME).is_file():
        return None
    try:
        record = read_record(destination)
    except IntegrityError:
        return None
    return record if record.key == key else None


def _digested(stage: Stage) -> dict[str, str]:
    return {name: digest_path(path) for name, path in stage.inputs.items()} | dict(stage.digests)


def _key(stage: Stage, inputs: Mapping[str, str]) -> str:
    identity: JsonValue = {
        "stage": stage.name,
        "version": stage.version,
        "edgekit": __version__,
        "options": stage.options,
        "inputs": dict(inputs),
    }
    return digest_bytes(dump_canonical(identity))


def record_from_dict(raw: Any, *, where: str) -> StageRecord:
    """What `StageRecord.to_dict` wrote. Raises `IntegrityError` where it is something else."""
    try:
        if raw["format"] != _FORMAT:
            raise IntegrityError(
                "A stage record has an unknown format.", where=where, expected=_FORMAT, found=str(raw["format"])
            )
        return StageRecord(
            stage=str(raw["stage"]),
            key=str(raw["key"]),
            options=dict(raw["options"]),
            inputs=dict(raw["inputs"]),
            outputs={name: FileRef(str(ref["sha256"]), int(ref["size"])) for name, ref in raw["outputs"].items()},
            facts=dict(raw["facts"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as cause:
        raise IntegrityError("A stage record is malformed.", where=where, found=repr(cause)) from cause


def read_record(folder: Path) -> StageRecord:
    """Read a stage's record and check that its files are the ones recorded.

    Raises:
        BadInputError: There is no record.
        IntegrityError: The record is malformed, or a file is missing or differs.
    """
    path = folder / RECORD_NAME
    record = record_from_dict(read_json(path), where=str(path))
    for name, ref in record.outputs.items():
        target = folder / name
        if not target.is_file():
            raise IntegrityError("A file of a finished stage is missing.", where=str(target))
        if digest_file(target) != ref.sha256:
            raise IntegrityError("A file of a finished stage was changed.", where=str(target))
    return record


def _check_replaceable(destination: Path) -> None:
    """Somebody's own files must not be replaced by a result."""
    with foreign_os_errors(destination, "use the output folder"):
        if not destination.exists() or (destination / RECORD_NAME).is_file():
            return
        if destination.is_dir() and not any(destination.iterdir()):
            return
    raise BadInputError(
        "The place for a stage's result holds something else, which would be lost.",
        where=str(destination),
        expected="an empty folder, an earlier result, or nothing yet",
        hint="choose another place with --output, or remove what is there",
    )
