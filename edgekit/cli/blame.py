"""`edgekit blame`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import (
    FILE,
    bundle_argument,
    json_option,
    output_option,
    policy_option,
    quiet_option,
    student_option,
    threads_option,
)
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from edgekit.blame.bundled import BlameReport
    from edgekit.blame.exclusion import Exclusion
    from edgekit.blame.ledger import Ledger
    from edgekit.blame.tensors import Blame

__all__ = ["command"]

_ORDERS = ("overall", "cosine", "spearman", "iou", "logits")
_MEASURES = ("cosine", "spearman", "iou", "logits", "flips")
_SHOWN = 20
_CLASS_COLUMNS = 4


@click.command("blame")
@bundle_argument
@click.option("--images", type=FILE, metavar="DIR", help="Measure on these images. [default: the bundle's golden set]")
@click.option(
    "--samples",
    type=click.IntRange(0),
    default=128,
    show_default=True,
    help="Images to measure on, classes taking turns; 0 for all. Each tensor costs two runs over them.",
)
@click.option(
    "--build", type=FILE, metavar="DIR", help="--output of the build: lets the student in torch answer as well."
)
@student_option
@policy_option
@click.option(
    "--by",
    "order",
    type=click.Choice(_ORDERS),
    default=_ORDERS[0],
    show_default=True,
    help="What puts a tensor first; overall takes maps by three measures and the answers together.",
)
@click.option("--per-class", is_flag=True, help="Show the drift class by class too.")
@click.option(
    "--exclude-worst", type=click.IntRange(1), metavar="N", help="Write exclude.yaml: the N worst stay in float."
)
@click.option(
    "--until",
    type=(click.Choice(_MEASURES), float),
    metavar="MEASURE DRIFT",
    help="Write exclude.yaml: worst first, until the mean drift is no more, as in '--until cosine 0.0005'.",
)
@click.option("--hops-only", is_flag=True, help="Only follow the map from teacher to engine; FP32 bundles too.")
@threads_option
@output_option("edgekit-blame", "Folder for blame.json, blame.csv, blame.html and the exclude list.")
@quiet_option
@json_option
def command(  # one parameter an option
    bundle: Path,
    images: Path | None,
    samples: int,
    build: Path | None,
    student_code: str | None,
    policy: str | None,
    order: str,
    per_class: bool,
    exclude_worst: int | None,
    until: tuple[str, float] | None,
    hops_only: bool,
    threads: int,
    output: Path,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Say which rounding moved a bundle's maps, and at which hop from teacher to engine they were lost.

    Each tensor that INT8 rounds is rounded alone, and everything but it; the table has the worst first, with drifts
    that are 0 where nothing moved. Then the golden images go through teacher, student (with --build), FP32 graph,
    FP16, Q/DQ graph and engine, and the first hop that breaks the policy is named. Exit code 0; 1 where --until was
    not reached.
    """
    from edgekit.api import blame
    from edgekit.blame.options import BlameOptions
    from edgekit.cli.progress import make_observer
    from edgekit.cli.tables import print_json
    from edgekit.config.documents import read_policy

    options = BlameOptions(samples, order, exclude_worst, until, threads)
    with make_observer(quiet) as observer:
        report = blame(
            bundle,
            output=output,
            options=options,
            images=images,
            build=build,
            student_code=student_code,
            policy=None if policy is None else read_policy(policy),
            hops_only=hops_only,
            observer=observer,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(_render(report, output, per_class=per_class))
    missed = report.exclusion is not None and report.exclusion.reached is False
    return ExitCode.GATE_FAILED if missed else ExitCode.OK


def _render(report: BlameReport, output: Path, *, per_class: bool) -> str:
    parts = []
    if report.blame is not None:
        parts.append(_render_tensors(report.blame))
        if per_class:
            parts.append(_render_classes(report.blame, report.class_names))
    if report.exclusion is not None and report.blame is not None:
        parts.append(_render_exclusion(report.exclusion, report.blame))
    parts.append(_render_hops(report.ledger))
    parts.append(f"written to {output}")
    return "\n\n".join(parts)


def _render_tensors(found: Blame) -> str:
    from edgekit.cli.tables import render_table

    drifts = _MEASURES[:-1]
    right = ("place", "range", "depth", *(f"only: {name}" for name in drifts), *(f"but: {name}" for name in drifts[:1]))
    header = ("place", "range", "tensor", "kind", "operation", "module", "depth", *right[3:])
    rows = [
        (
            item.rank,
            f"{item.ranks.first}-{item.ranks.last}",
            _shown(item.unit.name),
            item.unit.kind,
            _shown(item.unit.operation),
            _shown(item.unit.module or "-"),
            item.unit.depth,
            *(_drift(item.only[name].mean) for name in drifts),
            *(_drift(item.all_but[name].mean) for name in drifts[:1]),
        )
        for item in found.units[:_SHOWN]
    ]
    together = ", ".join(f"{name} {_drift(found.together[name].mean)}" for name in _MEASURES)
    ratios = ", ".join(
        f"{name} {'n/a' if item.ratio is None else format(item.ratio, '.2f')}"
        for name, item in found.interactions.items()
    )
    lines = [
        f"{len(found.units)} tensors rounded as {found.number_format}, on {found.samples} images, worst first by "
        f"{found.order}",
        "",
        render_table(header, rows, right=right),
        *([f"... {len(found.units) - _SHOWN} more in blame.csv"] if len(found.units) > _SHOWN else []),
        "",
        f"everything together: {together}",
        f"together / sum of each alone: {ratios}",
    ]
    return "\n".join(lines)


def _render_classes(found: Blame, names: tuple[str, ...]) -> str:
    from edgekit.cli.tables import render_table

    worst = [item.unit.name for item in found.units[:_CLASS_COLUMNS]]
    header = ("class", "images", "everything", *(f"only {number}" for number in range(1, len(worst) + 1)))
    rows = [
        (
            _shown(names[item.index]),
            item.samples,
            _drift(item.together["cosine"]),
            *(_drift(item.only[name]["cosine"]) for name in worst),
        )
        for item in found.classes
    ]
    return "1 - cosine of the maps, class by class; the numbers are places in the table above\n\n" + render_table(
        header, rows, right=header[1:]
    )


def _render_exclusion(exclusion: Exclusion, found: Blame) -> str:
    lines = ["left in float (exclude.yaml):"]
    before = found.together
    for step in exclusion.steps:
        nodes = ", ".join(map(_shown, step.nodes))
        change = f"cosine {_drift(before['cosine'].mean)} -> {_drift(step.left['cosine'].mean)}"
        lines.append(f"  {_shown(step.unit)}: {nodes}; {change}")
        before = step.left
    if not exclusion.steps:
        lines.append("  nothing more than the bundle's recipe says already")
    lines += [f"  not {_shown(name)}: {why}" for name, why in exclusion.skipped.items()]
    if exclusion.reached is False:
        lines.append(click.style("the drift asked for was not reached", fg="red"))
    return "\n".join(lines)


def _render_hops(ledger: Ledger) -> str:
    from edgekit.cli.tables import render_table, style_outcome

    metrics = ("cosine", "spearman", "iou-top20")
    header = ("hop", "policy", *metrics, "own cosine", "flips", "against", *(f"{name} there" for name in metrics))
    rows, notes = [], []
    for hop in ledger.hops:
        if hop.reason:
            notes.append(f"not measured: {hop.title}: {_shown(hop.reason)}")
        if hop.against_teacher is None or hop.reason:
            continue
        there = None if hop.against_source is None else hop.against_source.means
        rows.append(
            (
                hop.title if hop.on_path else f"({hop.title})",
                style_outcome(hop.outcome or "-"),
                *(_score(hop.against_teacher.means[name]) for name in metrics),
                _score(hop.against_teacher.own_means["cosine"]),
                f"{hop.against_teacher.flips:.1%}",
                hop.compared_with or "-",
                *(_score(None if there is None else there[name]) for name in metrics),
            )
        )
        if hop.note:
            notes.append(f"{hop.title}: {hop.note}")
    right = (*metrics, "own cosine", "flips", *(f"{name} there" for name in metrics))
    title = f"hop by hop on {len(ledger.samples)} golden images, maps of the teacher's class"
    return "\n".join([title, "", render_table(header, rows, right=right), "", *notes, "", ledger.in_words()])


def _score(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _drift(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def _shown(text: str) -> str:
    """A name out of a file, with what a terminal would obey escaped, and cut where it would push the table apart."""
    plain = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return plain if len(plain) <= 60 else f"{plain[:28]}...{plain[-29:]}"
