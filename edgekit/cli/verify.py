"""`edgekit verify`."""

from __future__ import annotations

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
@threads_option
@click.option("-o", "--output", type=FILE, metavar="DIR", help="Also write scores, verdict and maps to this folder.")
@quiet_option
@json_option
def command(
    path: Path,
    golden: Path | None,
    engine: str,
    policy: str | None,
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
    from edgekit.cli.verdicts import render_findings, render_verdict
    from edgekit.config.documents import read_policy
    from edgekit.verify.stage import write_verification

    demanded = None if policy is None else read_policy(policy)
    with make_observer(quiet) as observer:
        if golden is None:
            done = _verify_bundle(path, demanded, threads, observer)
        else:
            done = _verify_file(path, golden, engine, demanded or read_policy("default"), threads, observer)
    if output is not None:
        write_verification(done, output)
    if as_json:
        findings = [finding.to_dict() for finding in done.findings]
        print_json(
            {
                "engine": done.info.to_dict(),
                "verdict": done.verdict.to_dict_in_words(),
                "findings": findings,
            }
        )
    else:
        click.echo(f"{done.info.engine} on {done.info.device} ({done.info.runtime})\n")
        click.echo("\n".join(part for part in (render_verdict(done.verdict), render_findings(done.findings)) if part))
    return done.verdict.exit_code


def _verify_bundle(path: Path, policy: Policy | None, threads: int, observer: Observer) -> Verification:
    from edgekit.bundle.open import open_bundle
    from edgekit.engines.protocol import EngineOptions
    from edgekit.verify.gate import bundle_policy
    from edgekit.verify.stage import VerifyRequest, verify_engine

    if path.suffix == ".onnx":
        raise UsageError("An engine file is verified against a golden set.", hint="give its folder with --golden")
    with open_bundle(path) as opened:
        request = VerifyRequest(
            engine=opened.manifest.engine,
            artifact=opened.model_path,
            golden=opened.folder / "golden",
            policy=policy or bundle_policy(opened),
            options=EngineOptions(threads=threads),
        )
        _note_left(request.policy, observer)
        return verify_engine(request, opened.golden(), observer)


def _verify_file(
    path: Path, golden: Path, engine: str, policy: Policy, threads: int, observer: Observer
) -> Verification:
    from edgekit.bundle.golden import read_golden
    from edgekit.engines.protocol import EngineOptions
    from edgekit.verify.stage import VerifyRequest, verify_engine

    request = VerifyRequest(engine, path, golden, policy, EngineOptions(threads=threads))
    _note_left(policy, observer)
    return verify_engine(request, read_golden(golden), observer)


def _note_left(policy: Policy, observer: Observer) -> None:
    """Say what a verification cannot judge, so that nobody takes its pass for that of the gate."""
    left = len(policy.clauses) - len(policy.of_scores().clauses)
    if left:
        observer.noted(f"{left} demands of {policy.name!r} about costs or a baseline are left to 'edgekit gate'.")
