"""Which files of a build go into the bundle of a candidate, by `edgekit.bundle.layout`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from edgekit.bundle import layout
from edgekit.bundle.assemble import contents_from_folder
from edgekit.config.recipe import recipe_to_dict
from edgekit.core.canonical import dump_canonical
from edgekit.pipeline.candidates import CandidateId, float_partner
from edgekit.pipeline.engine_files import engine_contents
from edgekit.pipeline.release_request import ReleaseRequest
from edgekit.verify.beside import counts_as_shipped
from edgekit.verify.control_files import CONTROLS_NAME, control_file
from edgekit.verify.gate import GateResult

__all__ = ["controls_contents", "shipped_bytes", "shipped_contents"]


def shipped_contents(request: ReleaseRequest, item: CandidateId) -> dict[str, Path | bytes]:
    """What a bundle of this candidate holds beside evidence, report and what travels with every bundle."""
    folders = request.folders
    partner = None if item.precision == "fp32" else float_partner(item, request.engines.candidates).name
    contents: dict[str, Path | bytes] = {
        **engine_contents(folders, item, partner),
        layout.POLICY: dump_canonical(request.policy.to_dict()),
        layout.RECIPE: dump_canonical(recipe_to_dict(request.recipe)),
        layout.LINEAGE: dump_canonical({stage: record.to_dict() for stage, record in request.records.items()}),
        **contents_from_folder(layout.GOLDEN, folders.golden),
    }
    contents.pop(f"{layout.GOLDEN}/record.json", None)
    if item.precision == "int8":
        contents[layout.SCALES] = folders.final_calibrate / "scales.json"
    return contents


def shipped_bytes(request: ReleaseRequest, item: CandidateId) -> int:
    """Size of what counts of the bundle that this candidate would make."""
    contents = {**shipped_contents(request, item), **request.contents}
    return sum(
        len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in contents.items()
        if counts_as_shipped(name)
    )


def controls_contents(verified: Path, judged: GateResult) -> dict[str, Path]:
    """The controls' document, and the scores of each beside it."""
    place = PurePosixPath(layout.CONTROLS).parent
    files = (control_file(control.name) for control in judged.controls)
    return {layout.CONTROLS: verified / CONTROLS_NAME} | {f"{place}/{file}": verified / file for file in files}
