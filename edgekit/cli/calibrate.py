"""`edgekit calibrate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import (
    FILE,
    calib_root_option,
    json_option,
    output_option,
    quiet_option,
    recipe_option,
    seed_option,
    set_option,
    target_option,
)
from edgekit.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from edgekit.config.recipe import Recipe
    from edgekit.core.stages import StageRecord
    from edgekit.precision.options import Tolerance

__all__ = ["command"]

_CODES = {"pass": ExitCode.OK, "fail": ExitCode.GATE_FAILED, "inconclusive": ExitCode.INCONCLUSIVE}


@click.command("calibrate")
@click.argument("exported", type=FILE, metavar="EXPORT_DIR")
@click.option(
    "--calib",
    type=FILE,
    required=True,
    metavar="DIR|SET",
    help="Images that the INT8 ranges are found on, no labels; or the file of a calibration set, which decides alone.",
)
@calib_root_option("the folder of the set's file")
@target_option
@recipe_option
@set_option
# Named here and not read from the registry: help has to answer without numpy.
@click.option(
    "--method",
    metavar="NAME",
    help="How ranges are found, in place of the recipe's: minmax, moving-average, percentile, entropy or mse; "
    "attribution-quick and attribution have the map in their objective, the second takes minutes.",
)
@click.option(
    "--selection",
    metavar="NAME",
    help="How images are chosen, in place of the recipe's: balanced over classes, or diverse in their maps besides.",
)
@click.option(
    "--tolerance",
    metavar="FILE|PRESET",
    help="Policy to keep: operations are left in float, the fewest and cheapest, until it holds.",
)
@click.option(
    "--golden",
    type=FILE,
    metavar="DIR",
    help="With --tolerance: golden set to judge by. [default: half of --calib, against the FP32 graph]",
)
@click.option(
    "--cost-table",
    type=FILE,
    metavar="FILE",
    help="With --tolerance: milliseconds of each operation on a device that is not here, as JSON.",
)
@click.option(
    "--latency-runs",
    type=click.IntRange(0),
    metavar="N",
    help="With --tolerance: timed runs of each candidate; 0 for none, and the fewest lifted operations win. "
    "[default: 50]",
)
@output_option("calibrate", "Folder for scale table and Q/DQ graph.")
@seed_option
@quiet_option
@json_option
def command(
    exported: Path,
    calib: Path,
    calib_root: Path | None,
    target: str,
    recipe: str,
    assignments: tuple[str, ...],
    method: str | None,
    selection: str | None,
    tolerance: str | None,
    golden: Path | None,
    cost_table: Path | None,
    latency_runs: int | None,
    output: Path,
    seed: int,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Find INT8 ranges for an exported graph and write them as a scale table and explicit Q/DQ nodes.

    EXPORT_DIR is the folder that 'edgekit export' wrote. Needs no torch.

    With --tolerance the cheapest assignment of INT8 and float that keeps the policy is searched, measured on the engine
    itself, and told with the candidates beside it: precision.json, pareto.svg, pareto.png. The exit code is 1 where not
    even FP32 keeps the policy (the best candidates stay in candidates/), and 6 where there are too few images to tell.
    """
    from edgekit.api import calibrate
    from edgekit.cli.progress import make_observer
    from edgekit.cli.results import print_record
    from edgekit.config.overrides import overridden
    from edgekit.config.recipe import read_recipe

    kept = _tolerance(tolerance, golden, cost_table, latency_runs)
    chosen = _overridden(overridden(read_recipe(recipe), assignments), {"method": method, "selection": selection})
    with make_observer(quiet) as observer:
        record = calibrate(
            exported,
            calib,
            output,
            calib_root=calib_root,
            target=target,
            recipe=chosen,
            tolerance=kept,
            seed=seed,
            observer=observer,
        )
    if kept is not None and not as_json:
        click.echo(_render(record))
    print_record(record, output, as_json=as_json)
    return ExitCode.OK if kept is None else _CODES[str(record.facts["outcome"])]


def _overridden(recipe: Recipe, said: dict[str, str | None]) -> Recipe:
    changes: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    return replace(recipe, calibrate=replace(recipe.calibrate, **changes))


def _tolerance(policy: str | None, golden: Path | None, costs: Path | None, runs: int | None) -> Tolerance | None:
    given = {"--golden": golden, "--cost-table": costs, "--latency-runs": runs}
    if policy is None:
        idle = [name for name, value in given.items() if value is not None]
        if idle:
            raise UsageError(f"{', '.join(idle)} says how a tolerance is judged, and there is no --tolerance.")
        return None
    from edgekit.config.documents import read_policy
    from edgekit.precision.options import BudgetOptions, Tolerance

    options = BudgetOptions() if runs is None else BudgetOptions(latency_runs=runs)
    return Tolerance(read_policy(policy), golden, costs, options)


def _render(record: StageRecord) -> str:
    from edgekit.cli.tables import render_table, style_outcome

    facts = record.facts
    drift = ("1 - cosine", "1 - Spearman", "1 - IoU")
    numbers = ("lifted", *drift, "agreement", "accuracy", "p50 ms", "KiB")
    header = ("candidate", "policy", *numbers, "")
    shown = [item for item in facts["candidates"] if _is_shown(item)]
    rows, more = [_row(item) for item in shown], len(facts["candidates"]) - len(shown)
    lines = [
        render_table(header, rows, right=numbers),
        f"and {more} more in precision.json\n" if more else "",
        f"judged on {facts['judged']} images against {facts['teacher']}, policy {facts['policy']!r}",
        f"latency: {facts['latency']['told']}",
    ]
    lines += [f"note: {note}" for note in facts["notes"]]
    if facts["lifted"] and facts["chosen"] != "fp32":
        lines.append("lifted: " + ", ".join(facts["lifted"]))
    lines.append(f"chosen: {facts['chosen'] or 'none'}, {style_outcome(facts['outcome'])}: {facts['reason']}")
    return "\n".join(lines)


def _is_shown(item: dict[str, Any]) -> bool:
    """Both ends, and what is worth a choice: the others were asked on the way."""
    ends = item["is_fp32"] or not item["lifted"]
    return bool(ends or item["frontier"] or item["chosen"] or item["latency_ms"] is not None)


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    from edgekit.cli.tables import style_outcome

    drift = [item["drift"][name] for name in ("cosine", "spearman", "iou")]
    marks = [word for word in ("chosen", "frontier") if item[word]]
    return (
        item["name"],
        style_outcome(item["outcome"]),
        "all" if item["is_fp32"] else str(len(item["lifted"])),
        *("not finite" if value is None else f"{value:.2e}" for value in drift),
        f"{item['agreement']:.1%}",
        "-" if item["accuracy"] is None else f"{item['accuracy']:.1%}",
        "-" if item["latency_ms"] is None else f"{item['latency_ms']:.3f}",
        f"{item['bytes'] / 1024:.0f}",
        ", ".join(marks),
    )
