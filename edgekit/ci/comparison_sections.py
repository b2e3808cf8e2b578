"""What a comparison of two bundles says to people, as sections."""

from __future__ import annotations

from edgekit.ci.change_sections import change_sections
from edgekit.ci.comparison import Comparison, Side
from edgekit.ci.latency_view import StoredLatency
from edgekit.ci.sections import Cell, Document, Name, Outcome, Section, Table

__all__ = ["comparison_document"]

_MOST_DIFFERENCES = 40
_NOTHING = "-"
# Heading and divisor of what was measured beside the times.
_FURTHER = {"power_w": ("W", 1.0), "energy_mj": ("mJ/image", 1.0), "peak_memory_bytes": ("peak MB", 1e6)}


def comparison_document(comparison: Comparison) -> Document:
    """Both bundles, then what changed, then how they were made."""
    sections = [_sides(comparison), _latency(comparison)]
    if comparison.changes is None:
        sections.append(Section("Scores", ((f"Not paired: {comparison.unpaired}.",),)))
    else:
        sections += change_sections(comparison.changes)
    sections += [_documents(comparison, name) for name in comparison.documents]
    return Document(("edgekit compare: ", _title(comparison)), tuple(sections))


def _title(comparison: Comparison) -> str:
    if comparison.changes is None:
        return "side by side, not paired"
    return "worse" if comparison.worse else "nothing shown to be worse"


def _sides(comparison: Comparison) -> Section:
    columns = [_facts(side) for side in (comparison.before, comparison.after)]
    rows = tuple((key, columns[0][key], columns[1][key]) for key in columns[0])
    return Section("", (), Table(("what", "older", "newer"), rows))


def _facts(side: Side) -> dict[str, Cell]:
    manifest, result = side.manifest, side.result
    return {
        "bundle": Name(side.source),
        "digest": Name(manifest.digest[:12]),
        "target": manifest.target,
        "engine": manifest.engine,
        "precision": manifest.precision,
        "status": manifest.status,
        "engine file": _NOTHING if side.engine_bytes is None else f"{side.engine_bytes} bytes",
        "all files": f"{side.total_bytes} bytes",
        "written by": f"edgekit {manifest.created_with}",
        "policy": _NOTHING if result is None else Name(result.verdict.policy.name),
        "samples": _NOTHING if result is None else str(result.verdict.samples),
        "verdict": Outcome(side.outcome),
    }


def _latency(comparison: Comparison) -> Section:
    rows: list[tuple[Cell, ...]] = []
    sides = [side.latency for side in (comparison.before, comparison.after) if side.latency is not None]
    further = [key for key in _FURTHER if any(key in side.further for side in sides)]
    for word, side in (("older", comparison.before), ("newer", comparison.after)):
        found = side.latency
        if found is not None:
            numbers = (f"{found.p50_ms:.3f}", f"{found.p90_ms:.3f}", str(found.batch))
            told = tuple(_further(found, key) for key in further)
            rows.append((word, Name(found.engine), *numbers, *told, Name(found.machine_words)))
    pair = comparison.latency
    line = (
        f"Newer over older: {pair.ratio:.2f} ({pair.reason})."
        if pair.ratio is not None
        else f"No ratio: {pair.reason}."
    )
    header = ("which", "engine", "p50 ms", "p90 ms", "batch", *(_FURTHER[key][0] for key in further), "machine")
    return Section("Latency as stored", ((line,),), Table(header, tuple(rows), right=header[2:-1]))


def _further(found: StoredLatency, key: str) -> str:
    return f"{found.further[key] / _FURTHER[key][1]:.4g}" if key in found.further else _NOTHING


def _documents(comparison: Comparison, name: str) -> Section:
    found = comparison.documents[name]
    title = f"Differences of the {name}"
    if not found:
        return Section(title, (("None.",),))
    rows = tuple((Name(item.key), Name(item.before), Name(item.after)) for item in found[:_MOST_DIFFERENCES])
    left = len(found) - len(rows)
    lines: tuple[tuple[Cell, ...], ...] = ((f"And {left} more; the JSON has all of them.",),) if left else ()
    return Section(title, lines, Table(("key", "older", "newer"), rows), folded=name == "lineage")
