"""How builds are shown: the plan of a dry run, and the end of a build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.tables import print_json, render_facts, render_table, style_outcome
from edgekit.cli.verdicts import render_controls, render_verdict
from edgekit.core.stages import StageRecord
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from edgekit.pipeline.build import Plan
    from edgekit.pipeline.device_candidate import CandidateResult
    from edgekit.pipeline.release import BuildResult

__all__ = ["exit_code_of", "print_candidate", "print_plan", "print_record", "print_result", "result_to_dict"]

_CODES = {
    "released": ExitCode.OK,
    "blocked": ExitCode.GATE_FAILED,
    "inconclusive": ExitCode.INCONCLUSIVE,
    "unverified": ExitCode.INCONCLUSIVE,
}


def exit_code_of(result: BuildResult | CandidateResult) -> ExitCode:
    """0 for a release, 1 for a blocked build, 6 for an inconclusive one and for one that awaits its device."""
    return _CODES[result.manifest.status]


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Say what a build would do."""
    if as_json:
        print_json(plan.to_dict())
        return
    raw = plan.to_dict()
    images = ", ".join(f"{count} {use}" for use, count in raw["images"].items())
    facts = {
        "target": f"{plan.target.name} ({plan.target.title})",
        "engine": " or ".join(plan.engines.engines),
        "classes": ", ".join(plan.teacher.card.classes),
        "input": "x".join(map(str, plan.teacher.card.input.shape[1:])),
        "images": images,
        "student": raw["compress"],
        "policy": plan.policy.name,
        "stages": " -> ".join(raw["stages"]),
        "output": plan.request.output,
    }
    changed = plan.request.recipe.tensorrt.changed()
    if changed:
        heeded = (
            "" if {"tensorrt", "ort-tensorrt"} & set(plan.engines.engines) else " (no engine of this build heeds it)"
        )
        facts["tensorrt"] = ", ".join(f"{key}={json.dumps(value)}" for key, value in changed.items()) + heeded
    if plan.engines.absent:
        facts["not here"] = "; ".join(f"{item.engine}: {item.reason}" for item in plan.engines.absent)
    click.echo(render_facts(facts))
    click.echo("\nEverything needed is here. Nothing was built.")


def print_record(record: StageRecord, folder: Path, *, as_json: bool) -> None:
    """Say what one stage did and which files it left."""
    if as_json:
        print_json(record.to_dict())
        return
    click.echo(f"{record.stage}: {record.facts.get('summary', 'done')}")
    for name, ref in record.outputs.items():
        click.echo(f"  {folder / name}  {ref.size} bytes")


def result_to_dict(result: BuildResult) -> dict[str, Any]:
    """How a build ended, JSON-ready."""
    return {
        "status": result.manifest.status,
        "bundle": str(result.folder),
        "archive": str(result.archive),
        "report": str(result.report),
        "digest": result.manifest.digest,
        "verdict": result.verdict.to_dict_in_words(),
        "controls": result.judged.to_dict()["controls"],
        "selection": result.selection.to_dict(),
        "findings": [dict(finding) for finding in result.findings],
    }


def print_result(result: BuildResult, *, as_json: bool) -> None:
    """Say how a build ended and where its bundle lies."""
    if as_json:
        print_json(result_to_dict(result))
        return
    click.echo(_candidates(result))
    click.echo("")
    click.echo(render_verdict(result.verdict))
    click.echo(render_controls(result.judged))
    for finding in result.findings:
        click.echo(f"{click.style('diagnosis', fg='yellow')} [{finding['fault']}] {finding['text']}")
    click.echo("")
    released = result.manifest.status == "released"
    word = {"released": "pass", "blocked": "fail"}.get(result.manifest.status, "inconclusive")
    status = style_outcome(word).replace(word, result.manifest.status)
    click.echo(
        render_facts(
            {
                "status": status,
                "release" if released else "candidate": result.folder,
                "archive": result.archive,
                "report": result.report,
            }
        )
    )


def print_candidate(result: CandidateResult, *, as_json: bool) -> None:
    """Say what was made for the device, what the rehearsal said, and what to do next."""
    from edgekit.engines.tensorrt.status import NEVER_RUN

    archive = result.archive
    if as_json:
        print_json(
            {
                "status": result.manifest.status,
                "needs": result.status,
                "bundle": str(result.folder),
                "archive": str(archive),
                "digest": result.manifest.digest,
                "plan": result.plan.digest,
                "tensorrt": str(result.plan.tensorrt),
                "modules": list(result.plan.modules),
                "rehearsal": {name: dict(told) for name, told in result.rehearsal.items()},
                "notice": NEVER_RUN,
            }
        )
        return
    rows = [
        (name, told["outcome"], f"{told['agreement']:.1%}", _cosine(told["mean_cosine"]))
        for name, told in result.rehearsal.items()
    ]
    click.echo("Rehearsed by the reference engine on this machine, which says nothing of TensorRT:")
    click.echo(render_table(("graph", "verdict", "agreement", "mean cosine"), rows, right=("agreement", "mean cosine")))
    click.echo("")
    facts = {
        "status": click.style(result.status, fg="yellow"),
        "candidate": result.folder,
        "archive": archive,
        "for": f"{', '.join(result.plan.modules)}, TensorRT {result.plan.tensorrt}",
        "on the device": f"edgekit device build {archive.name} --output evidence",
        "then here": f"edgekit attach {archive} evidence",
    }
    click.echo(render_facts(facts))


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _candidates(result: BuildResult) -> str:
    rows = []
    for item in result.selection.judged:
        candidate = item.candidate
        latency = "-" if candidate.latency_p50_ms is None else f"{candidate.latency_p50_ms:.3f}"
        accuracy = "-" if candidate.accuracy is None else f"{candidate.accuracy:.1%}"
        size = f"{candidate.bytes / 1024:.0f}"
        row = (candidate.name, candidate.outcome, f"{candidate.agreement:.1%}", accuracy, latency, size, item.reason)
        rows.append(row)
    header = ("candidate", "verdict", "agreement", "accuracy", "p50 ms", "KiB", "decision")
    return render_table(header, rows, right=("agreement", "accuracy", "p50 ms", "KiB"))
