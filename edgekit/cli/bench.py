"""`edgekit bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import FILE, bundle_argument, json_option, quiet_option, threads_option
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from edgekit.bench.result import LatencyReport

__all__ = ["command"]


@click.command("bench")
@bundle_argument
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images a run.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Turns each engine takes.")
@click.option("--iterations", type=click.IntRange(1), default=20, show_default=True, help="Timed runs a turn.")
@threads_option
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Also write every measured time to this JSON file.")
@quiet_option
@json_option
def command(
    bundle: Path,
    batch: int,
    rounds: int,
    iterations: int,
    threads: int,
    output: Path | None,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Measure the latency of a bundle's engine on this machine, FP32 beside INT8.

    Engines run in processes of their own and take turns; warm-up is not counted. p50, p90 and p99 are of single runs.
    """
    from edgekit.api import bench
    from edgekit.bench.options import LatencyOptions
    from edgekit.cli.progress import make_observer
    from edgekit.cli.tables import print_json
    from edgekit.core.canonical import write_json

    options = LatencyOptions(batch=batch, rounds=rounds, iterations=iterations, threads=threads)
    with make_observer(quiet) as observer:
        report = bench(bundle, options=options, observer=observer)
    if output is not None:
        write_json(output, report.to_dict())
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(_render(report))
    return ExitCode.OK


def _render(report: LatencyReport) -> str:
    from edgekit.bench.result import PERCENTILES
    from edgekit.cli.tables import render_table

    header = ("engine", *(f"p{percent} ms" for percent in PERCENTILES), "images/s")
    rows = [
        (name, *(f"{result.percentile_ms(percent):.3f}" for percent in PERCENTILES), f"{result.throughput:.1f}")
        for name, result in report.results.items()
    ]
    lines = [
        f"{report.environment['processor']}, batch {report.options.batch}, "
        f"{report.options.rounds * report.options.iterations} timed runs each",
        "",
        render_table(header, rows, right=header[1:]),
    ]
    smaller = [name for name in report.results if name != "fp32"]
    if "fp32" in report.results and smaller:
        name = smaller[0]
        ratio = report.ratio(name, "fp32")
        low, high = ratio.quartiles
        lines += [
            "",
            f"{name} takes {ratio.median:.2f} times as long as fp32 (quartiles {low:.2f} to {high:.2f})",
        ]
    return "\n".join(lines)
