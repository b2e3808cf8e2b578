"""`edgekit policy suggest`: tolerances from what was measured, and the numbers they came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import FILE, bundle_argument, json_option, quiet_option
from edgekit.errors import BadInputError, DefectError, ExitCode

if TYPE_CHECKING:
    from edgekit.bundle.manifest import Manifest
    from edgekit.bundle.open import Bundle
    from edgekit.policy.floors import Measurement
    from edgekit.policy.policy import Policy
    from edgekit.policy.suggest import Suggestion
    from edgekit.policy.suggested_clauses import SuggestOptions
    from edgekit.policy.verdict import Verdict
    from edgekit.verify.noise import NoiseReport

__all__ = ["suggest"]

_NOTHING_SUGGESTED = (
    "Nothing is suggested about localisation on masks, the drop of accuracy, wrong evidence, own classes, classes by "
    "themselves, a baseline or costs: noise does not say what of those is enough. Add such demands by hand."
)


@click.command("suggest")
@bundle_argument
@click.option(
    "--runs",
    type=click.IntRange(2),
    default=3,
    show_default=True,
    metavar="N",
    help="How often each graph is opened and run without any difference.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="Where a threshold stands on the way from noise (0) to maps that say nothing of the image (1).",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, max_open=True),
    default=0.95,
    show_default=True,
    metavar="SHARE",
    help="Confidence of every bound of the policy.",
)
@click.option("--engine", default="", metavar="NAME", help="Engine to measure on. [default: the bundle's]")
@click.option(
    "-o", "--output", type=FILE, metavar="FILE", help="Write the policy here, by its ending as YAML or as JSON."
)
@quiet_option
@json_option
def suggest(
    bundle: Path,
    runs: int,
    margin: float,
    confidence: float,
    engine: str,
    output: Path | None,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Measure how far the maps of BUNDLE move through noise alone, and write a policy that lies beyond it.

    The FP32 graph and the one that ships are run again, with other batch sizes and threads and on every other engine
    that is installed. A threshold stands between that noise and what maps reach that say nothing of the image. What
    the engine that ships reached decides nothing; what the policy makes of it is told. Exit code 0 where there is a
    policy, 6 where the golden set is too small for one or its maps cannot be told apart.
    """
    from edgekit.bundle.open import open_bundle
    from edgekit.cli.progress import make_observer
    from edgekit.cli.tables import print_json
    from edgekit.core.canonical import dump_canonical
    from edgekit.core.files import write_bytes
    from edgekit.policy.suggest import suggest as made_of
    from edgekit.policy.suggested_clauses import SuggestOptions
    from edgekit.verify.noise import NoiseOptions, measure_noise

    options, kind = SuggestOptions(margin, confidence), _format_of(output)
    with open_bundle(bundle) as opened:
        with make_observer(quiet) as observer:
            report = measure_noise(opened, NoiseOptions(runs=runs, engine=engine), observer)
        if not as_json:
            click.echo(_measured(report), err=True)
        suggestion = made_of(report.measurements, options, report.grids)
        verdict = _judged(opened, suggestion.policy)
        text = _as_text(opened.manifest, report, suggestion, options, verdict)
        document = {**suggestion.to_dict(), "noise": report.to_dict(), "bundle": opened.manifest.digest}
    data = dump_canonical(suggestion.policy.to_dict()) if kind == "json" else text.encode("utf-8")
    _read_back(suggestion.policy, data, kind)
    if output is not None:
        write_bytes(output, data)
    if as_json:
        document["verdict"] = None if verdict is None else verdict.to_dict_in_words()
        print_json(document)
        return ExitCode.OK
    if output is None:
        click.echo(text, nl=False)
    click.echo(_told(suggestion, verdict), err=True)
    return ExitCode.OK


def _judged(bundle: Bundle, policy: Policy) -> Verdict | None:
    """What the policy makes of the scores that the bundle holds; None where it holds none yet."""
    from edgekit.bundle.layout import SCORES
    from edgekit.policy.verdict import judge
    from edgekit.verify.gate import bundle_scores

    return judge(policy, bundle_scores(bundle, bundle.golden())) if SCORES in bundle else None


def _as_text(
    manifest: Manifest, report: NoiseReport, suggestion: Suggestion, options: SuggestOptions, verdict: Verdict | None
) -> str:
    from edgekit.policy.suggested_text import policy_as_yaml

    found = () if verdict is None else [f"{each.outcome}, {each.explanation}" for each in verdict.clauses]
    return policy_as_yaml(suggestion, _heading(manifest, report, suggestion, options), found)


def _heading(manifest: Manifest, report: NoiseReport, suggestion: Suggestion, options: SuggestOptions) -> list[str]:
    bounded = suggestion.policy.bounded
    together = max(0.0, 1 - bounded * (1 - options.confidence))
    network = "the teacher's own" if report.teachers_own else "not the teacher's own (compressed, or not told)"
    return [
        f"Suggested by 'edgekit policy suggest' from bundle {manifest.digest}: {suggestion.samples} samples, of which "
        f"{suggestion.misses} may miss a threshold.",
        "Measured on " + "; ".join(f"{name} ({runtime})" for name, runtime in report.runtimes.items()) + ".",
        f"The FP32 network is {network}: noise is what it differs from itself"
        + (" and from the teacher's stored answers." if report.teachers_own else ", and not from its teacher."),
        f"Thresholds stand {100 * options.margin:g} % of the way from noise to maps that say nothing of the image, and "
        f"one cell from noise at least. "
        f"{bounded} bounds of {100 * options.confidence:g} % confidence each hold together with at least "
        f"{100 * together:.0f} %; family_confidence asks for more.",
        *(f"Not measured on {line}" for line in _absent(report)),
        *(f"No clause about {name}: {reason}" for name, reason in suggestion.left_out.items()),
        _NOTHING_SUGGESTED,
    ]


def _absent(report: NoiseReport) -> list[str]:
    """One line for every engine and reason: most engines are absent for all graphs alike."""
    graphs: dict[tuple[str, str], list[str]] = {}
    for each in report.absent:
        graphs.setdefault((each.engine, each.reason), []).append(each.graph)
    return [f"{engine} ({', '.join(names)}): {reason}" for (engine, reason), names in graphs.items()]


def _format_of(output: Path | None) -> str:
    """Whether a file is of "yaml" or of "json", by its ending; raises `BadInputError` where it is of neither."""
    suffix = ".yaml" if output is None else output.suffix.lower()
    if suffix in {".yaml", ".yml", ".json"}:
        return "json" if suffix == ".json" else "yaml"
    raise BadInputError(
        "The name of the policy's file does not say what it is.",
        where=str(output),
        expected="a name in .yaml, .yml or .json",
        found=suffix or "no ending",
        hint="-o policy.yaml",
    )


def _read_back(policy: Policy, data: bytes, kind: str) -> None:
    """Read a document as a gate would. Raises `DefectError` where it is not the policy."""
    from edgekit.config.documents import parse_yaml
    from edgekit.core.canonical import parse_strict
    from edgekit.policy.document import policy_from_dict

    raw: Any = parse_strict(data, where="policy") if kind == "json" else parse_yaml(data, where="policy")
    if policy_from_dict(raw, where="policy") != policy:
        raise DefectError("A suggested policy does not read back as itself.", found=data.decode("utf-8"))


_VARIED = {
    "first": "first run",
    "repeat": "run again",
    "batch": "other batch sizes",
    "threads": "other numbers of threads",
    "backend": "other engine",
    "control": "",
}


def _measured(report: NoiseReport) -> str:
    """One row for all runs of a kind: the worst sample of the worst of them."""
    from edgekit.cli.tables import render_table

    kinds: dict[tuple[str, ...], list[Measurement]] = {}
    for each in report.measurements:
        kinds.setdefault((each.graph, each.engine, each.source, each.against, each.role), []).append(each)
    rows = []
    for (graph, engine, source, against, role), runs in kinds.items():
        same = "yes" if all(run.identical for run in runs) else "no"
        agreeing = min(int(run.table.agrees.sum()) for run in runs)
        ran = " ".join(part for part in (graph, f"on {engine}:" if engine else "", _VARIED[source]) if part)
        worst = (_worst(metric, runs) for metric in ("cosine", "iou-top20"))
        rows.append((role, ran, len(runs), against, same, *worst, f"{agreeing}/{len(runs[0].table)}"))
    header = ("role", "what ran", "runs", "beside", "identical", "worst cosine", "worst IoU", "same answers")
    right = ("runs", "worst cosine", "worst IoU", "same answers")
    lines = [render_table(header, rows, right=right)]
    lines += [f"not measured on {line}" for line in _absent(report)]
    return "\n".join(lines) + "\n"


def _worst(metric: str, runs: list[Measurement]) -> str:
    from edgekit.policy.floors import gaps
    from edgekit.policy.written import written_value

    found = [gaps(metric, run.table.metrics[metric])[run.table.compared] for run in runs]
    widest = max((float(each.max()) for each in found if each.size), default=None)
    return "-" if widest is None else written_value(metric, widest)


def _told(suggestion: Suggestion, verdict: Verdict | None) -> str:
    from edgekit.cli.verdicts import render_verdict

    lines = [f"no clause about {name}: {reason}" for name, reason in suggestion.left_out.items()]
    if verdict is None:
        lines.append("The bundle holds no scores yet, so nothing was judged by this policy.")
    else:
        lines += ["What this policy, which was not made to fit, says about the bundle's stored scores:", ""]
        lines.append(render_verdict(verdict))
    return "\n" + "\n".join(lines)
