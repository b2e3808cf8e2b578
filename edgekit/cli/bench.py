"""`edgekit bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import FILE, bundle_argument, json_option, quiet_option, threads_option
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgekit.bench.result import LatencyReport

__all__ = ["command"]

# Heading and divisor of what was measured beside the times.
_FURTHER = {"power_w": ("W", 1.0), "energy_mj": ("mJ/image", 1.0), "peak_memory_bytes": ("peak MB", 1e6)}
_HOST_MEMORY = "what it holds on the GPU is not told, and its process alone would be a part"


@click.command("bench")
@bundle_argument
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images a run.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Turns each engine takes.")
@click.option("--iterations", type=click.IntRange(1), default=20, show_default=True, help="Timed runs a turn.")
@click.option(
    "--power/--no-power", default=True, help="Read this machine's power sensors beside the runs.  [default: power]"
)
@click.option(
    "--round-seconds",
    type=click.FloatRange(0, 120),
    default=0.0,
    show_default=True,
    help="Shortest turn; sensors want a second or two.",
)
@threads_option
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Also write every measured time to this JSON file.")
@quiet_option
@json_option
def command(
    bundle: Path,
    batch: int,
    rounds: int,
    iterations: int,
    power: bool,
    round_seconds: float,
    threads: int,
    output: Path | None,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Measure the latency of a bundle's engine on this machine, FP32 beside INT8.

    Engines run in processes of their own and take turns; warm-up is not counted. p50, p90 and p99 are of single runs.

    Beside them stand mean power, energy for one image and the most memory that an engine's process held, each where
    it was measured; nothing is estimated. 'edgekit doctor' says which power sensors there are.
    """
    from edgekit.api import bench
    from edgekit.bench.options import LatencyOptions
    from edgekit.cli.progress import make_observer
    from edgekit.cli.tables import print_json
    from edgekit.core.canonical import write_json

    options = LatencyOptions(
        batch=batch, rounds=rounds, iterations=iterations, threads=threads, power=power, round_s=round_seconds
    )
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

    measured = {name: result.further_costs() for name, result in report.results.items()}
    further = [key for key in _FURTHER if any(key in costs for costs in measured.values())]
    header = (
        "engine",
        *(f"p{percent} ms" for percent in PERCENTILES),
        "images/s",
        *(_FURTHER[key][0] for key in further),
    )
    rows = [
        (
            name,
            *(f"{result.percentile_ms(percent):.3f}" for percent in PERCENTILES),
            f"{result.throughput:.1f}",
            *(_amount(measured[name], key) for key in further),
        )
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
    lines += _remarks(report)
    return "\n".join(lines)


def _amount(costs: Mapping[str, float], key: str) -> str:
    return f"{costs[key] / _FURTHER[key][1]:.4g}" if key in costs else "-"


def _remarks(report: LatencyReport) -> list[str]:
    """What the numbers of power include, and why others are not there; each said once."""
    from edgekit.bench.power.record import EnginePower, PowerNotMeasured

    said: dict[str, None] = {}
    for name, result in report.results.items():
        power = result.power
        if isinstance(power, EnginePower):
            idle = [f"{watts:.3g} W" for watts in (power.idle_before_w, power.idle_after_w) if watts is not None]
            remark = f"; {power.remark}" if power.remark else ""
            said[
                f"power is of {power.scope}; at rest before and after: {', '.join(idle) or 'not measured'}{remark}"
            ] = None
        elif isinstance(power, PowerNotMeasured):
            said[f"power and energy are not measured: {power.reason}"] = None
        if "peak_memory_bytes" not in result.further_costs():
            why = "this system does not tell it" if result.peak_memory_bytes is None else _HOST_MEMORY
            said[f"peak memory of {name} is not measured: {why}"] = None
    return ["", *said] if said else []
