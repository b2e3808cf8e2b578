"""`edgekit verify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import FILE, json_option, policy_option, quiet_option, threads_option
from edgekit.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from edgekit.core.progress import Observer
    from edgekit.policy.policy import Policy
    from edgekit.verify.stage import Verification

__all__ = ["command"]


@click.command("verify")
@click.argument("path", type=FILE, metavar="BUNDLE|ENGINE")
@click.option("--golden", type=FILE, metavar="DIR", help="Golden set, when an engine file is verified.")
@click.option("--engine", default="ort-cpu", show_default=True, metavar="NAME", help="Runtime of an engine file.")
@policy_option
@click.option(
    "--controls/--no-controls",
    default=True,
    show_default=True,
    help="Score random weights, permuted maps and a centre prior too, none of which may pass the policy.",
)
@threads_option
@click.option("-o", "--output", type=FILE, metavar="DIR", help="Also write scores, verdict and maps to this folder.")
@quiet_option
@json_option
def command(
    path: Path,
    golden: Path | None,
    engine: str,
    policy: str | None,
    controls: bool,
    threads: int,
    output: Path | None,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Run the engine on its golden set here and now, and judge its maps; the exit code is the verdict.

    BUNDLE is a release folder or its tar file. An ENGINE file alone needs --golden. Needs no torch. What the policy
    says of costs or of a baseline is not judged here but by 'edgekit gate'.
    """
    from edgekit.cli.progress import make_observer
    from edgekit.cli.tables import print_json
    from edgekit.cli.verdicts import render_controls, render_findings, render_verdict
    from edgekit.config.documents import read_policy
    from edgekit.verify.stage import write_verification

    options = _Options(threads, controls)
    demanded = None if policy is None else read_policy(policy)
    with make_observer(quiet) as observer:
        if golden is None:
            done = _verify_bundle(path, demanded, options, observer)
        else:
            done = _verify_file(path, golden, engine, demanded or read_policy("default"), options, observer)
    judged = done.judged
    if output is not None:
        write_verification(done, output)
    if as_json:
        findings = [finding.to_dict() for finding in done.findings]
        print_json(
            {
                "engine": done.info.to_dict(),
                **judged.to_dict(),
                "findings": findings,
            }
        )
    else:
        click.echo(f"{done.info.engine} on {done.info.device} ({done.info.runtime})\n")
        parts = (render_verdict(done.verdict), render_controls(judged), render_findings(done.findings))
        click.echo("\n".join(part for part in parts if part))
    return judged.exit_code


@dataclass(frozen=True)
class _Options:
    """How the engine is verified."""

    threads: int
    controls: bool


def _verify_bundle(path: Path, policy: Policy | None, options: _Options, observer: Observer) -> Verification:
    from edgekit.bundle.open import open_bundle
    from edgekit.engines.protocol import EngineOptions
    from edgekit.verify.gate import bundle_policy
    from edgekit.verify.stage import verify_bundle

    if path.suffix == ".onnx":
        raise UsageError("An engine file is verified against a golden set.", hint="give its folder with --golden")
    with open_bundle(path) as opened:
        run = EngineOptions(threads=options.threads)
        _note_left(policy or bundle_policy(opened), observer)
        return verify_bundle(opened, policy, run, controls=options.controls, observer=observer)


def _verify_file(
    path: Path, golden: Path, engine: str, policy: Policy, options: _Options, observer: Observer
) -> Verification:
    from edgekit.bundle.golden import read_golden
    from edgekit.engines.protocol import EngineOptions
    from edgekit.verify.stage import VerifyRequest, verify_engine

    _note_left(policy, observer)
    request = VerifyRequest(
        engine=engine,
        artifact=path,
        golden=golden,
        policy=policy,
        options=EngineOptions(threads=options.threads),
        controls=options.controls,
    )
    return verify_engine(request, read_golden(golden), observer)


def _note_left(policy: Policy, observer: Observer) -> None:
    """Say what a verification cannot judge, so that nobody takes its pass for that of the gate."""
    left = len(policy.clauses) - len(policy.of_scores().clauses)
    if left:
        observer.noted(f"{left} demands of {policy.name!r} about costs or a baseline are left to 'edgekit gate'.")
