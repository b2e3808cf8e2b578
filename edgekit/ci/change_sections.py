"""What changed since an older release, as sections, for the gate and for the comparison of two bundles."""

from __future__ import annotations

from edgekit.ci.changes import Changes
from edgekit.ci.sections import Cell, Name, Outcome, Section, Table

__all__ = ["change_sections"]

_NUMBERS = ("before", "after", "worse", "better", "pairs")


def change_sections(changes: Changes) -> list[Section]:
    """Verdict first, then clauses, metrics, and the samples that got worse most."""
    return [_summary(changes), _clauses(changes), _metrics(changes), *_samples(changes)]


def _summary(changes: Changes) -> Section:
    pairing = changes.pairing
    lines: list[tuple[Cell, ...]] = [
        ("Older release: ", Name(changes.baseline)),
        ("Under the same policy it was ", Outcome(changes.before), ", this one is ", Outcome(changes.after), "."),
        (f"Scores are paired on {len(pairing)} images that both were verified on.",),
    ]
    if pairing.only_before or pairing.only_after:
        lines.append(
            (
                f"The golden sets differ: {pairing.only_before} images are only in the older one, "
                f"{pairing.only_after} only in the newer one. They are not compared.",
            )
        )
    worse = changes.worse
    lines += [(f"Worse: {phrase}.",) for phrase in worse] or [("Nothing is shown to have got worse.",)]
    return Section("Since the older release", tuple(lines))


def _clauses(changes: Changes) -> Section:
    rows = tuple(
        (
            item.identity,
            Outcome(item.before.outcome),
            _number(item.before.observed),
            Outcome(item.after.outcome),
            _number(item.after.observed),
            "-" if item.counted is None else f"{item.counted.worse} lost, {item.counted.better} gained",
        )
        for item in changes.clauses
    )
    header = ("clause", "outcome before", "before", "outcome after", "after", "paired samples")
    return Section("Clauses, before and after", (), Table(header, rows, right=_NUMBERS))


def _metrics(changes: Changes) -> Section:
    agreement = changes.agreement
    rows = tuple(
        (
            item.metric,
            f"{item.before:.4f}",
            f"{item.after:.4f}",
            str(item.counted.worse),
            str(item.counted.better),
            str(item.pairs),
            "worse" if item.is_worse else "-",
        )
        for item in changes.metrics
    )
    line = f"Teacher's top-1: {agreement.worse} samples lost it, {agreement.better} gained it."
    header = ("metric", "before", "after", "worse", "better", "pairs", "shown")
    return Section("Metrics on the same images", ((line,),), Table(header, rows, right=_NUMBERS))


def _samples(changes: Changes) -> list[Section]:
    rows = tuple(
        (item.metric, Name(sample.name), f"{sample.before:.4f}", f"{sample.after:.4f}", sample.digest[:12])
        for item in changes.metrics
        for sample in item.worst
    )
    if not rows:
        return []
    header = ("metric", "sample", "before", "after", "SHA-256 begins")
    return [Section("Samples that got worse most", (), Table(header, rows, right=_NUMBERS), folded=True)]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    # Shares and metrics are at most 1; costs may be bytes.
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.10g}"
