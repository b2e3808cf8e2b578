"""`edgekit device`: what a device does for a release that its host could only prepare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import FILE, bundle_argument, json_option, quiet_option
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from edgekit.device.evidence import CandidateEvidence, DeviceEvidence

__all__ = ["build", "command"]


@click.group("device")
def command() -> None:
    """Build, verify and time a candidate's engines on the device that will run them."""


@command.command("build")
@bundle_argument
@click.option(
    "-o",
    "--output",
    type=FILE,
    default="edgekit-evidence",
    show_default=True,
    help="Folder for engines and evidence; bring the whole of it back to 'edgekit attach'.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0.0),
    default=0.0,
    metavar="SECONDS",
    help="End TensorRT's process after so long without a sign of life. [default: what the plan says]",
)
@quiet_option
@json_option
def build(bundle: Path, output: Path, patience: float, quiet: bool, as_json: bool) -> ExitCode:
    """Build the engines of BUNDLE's plan, run them over its golden set, time them, and write evidence of it.

    BUNDLE is the candidate that 'edgekit build' made on the host, a folder or its tar file. Needs numpy, TensorRT and
    pycuda or cuda-python. Whether the maps held is in the evidence; 'edgekit attach' on the host decides by it.
    """
    from edgekit.cli.progress import make_observer
    from edgekit.cli.tables import print_json
    from edgekit.device.build import DeviceBuildRequest, device_build

    with make_observer(quiet) as observer:
        evidence = device_build(DeviceBuildRequest(bundle, output, patience_s=patience), observer)
    if as_json:
        print_json(_summary(evidence, output))
    else:
        click.echo(_rendered(evidence, output))
    return ExitCode.OK


def _summary(evidence: DeviceEvidence, output: Path) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "evidence": str(output),
        "digest": evidence.digest,
        "device": asdict(evidence.device),
        "outcomes": {name: item.verdict["outcome"] for name, item in evidence.candidates.items()},
        "ran": {name: _ran(item) for name, item in evidence.candidates.items()},
        "p50_ms": {name: result.percentile_ms(50) for name, result in evidence.latency.results.items()},
        "notice": evidence.notice,
    }


def _ran(candidate: CandidateEvidence) -> str:
    """How an engine ran, and whether as a CUDA graph."""
    from edgekit.engines.tensorrt.running import ran_in_words

    return ran_in_words(candidate.runtime["details"]) or "not told"


def _rendered(evidence: DeviceEvidence, output: Path) -> str:
    from edgekit.cli.tables import render_facts, render_table

    device = evidence.device
    rows = [
        (name, str(item.verdict["outcome"]), f"{evidence.latency.results[name].percentile_ms(50):.3f}")
        for name, item in evidence.candidates.items()
    ]
    facts = {
        "device": f"{device.module or device.base_module}, {device.power_mode or 'unknown power mode'}",
        "TensorRT": f"{device.tensorrt}, CUDA {device.cuda}, Jetson Linux {device.l4t or 'unknown'}",
        "ran": "; ".join(sorted({_ran(item) for item in evidence.candidates.values()})),
        "evidence": output,
        "then, on the host": f"edgekit attach BUNDLE {output.name}",
        "notice": evidence.notice,
    }
    return render_table(("engine", "verdict", "p50 ms"), rows, right=("p50 ms",)) + "\n\n" + render_facts(facts)
