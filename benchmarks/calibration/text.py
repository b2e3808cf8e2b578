"""The tables as markdown: what does not hold first, then what does, then every number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from calibration.collect import Found
from calibration.methods import TOOLS, is_claimed
from calibration.prepared import Prepared
from calibration.profiles import REAL_FORMAT, Profile
from calibration.verdicts import AGREEMENT_POINTS, GOAL, Row, Verdict
from edgekit.calibrate.formats import number_format

__all__ = ["markdown_table", "text_of"]

_HEADER = (
    "method",
    "1 - cosine",
    "cosine mean / p5 / p1",
    "Spearman mean / p5 / p1",
    "IoU mean / p5",
    "own class, cosine",
    "agreement",
    "accuracy",
    "KL",
    "seconds (x min-max)",
    "peak MiB",
    "against the best baseline: 1 - cosine, 1 - IoU, agreement",
)


def text_of(found: Found, profile: Profile, machine: str, figures: Sequence[str]) -> str:
    """The whole document."""
    lines = ["# Calibrators, by what they leave of maps and answers", "", *_preface(found, profile, machine), ""]
    lines += _networks(found.networks)
    lines += _claims(found.main_verdicts(profile.calibrated), found.of(REAL_FORMAT, profile.calibrated))
    for network in found.networks:
        rows = [row for row in found.of(REAL_FORMAT, profile.calibrated) if row.network == network.network.name]
        lines += _network(network, rows, found.main_verdicts(profile.calibrated))
    lines += _bits(found, profile)
    lines += _few(found, profile)
    lines += _memory(found, profile)
    lines += _not_run([*found.rows, *found.memory])
    if figures:
        lines += ["", "## Figures", "", *(f"![{name}]({name})\n" for name in figures)]
    return "\n".join(lines).rstrip() + "\n"


def _preface(found: Found, profile: Profile, machine: str) -> Iterable[str]:
    versions = {TOOLS[row.tool]: row.version for row in found.rows if row.tool in TOOLS and row.version}
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    yield (
        f"Made by `benchmarks/run_calibration.py`, profile {profile.name}, on {machine}; how to read and repeat it "
        "stands in [calibration/README.md](../calibration/README.md), every number in `calibration.json`. "
        f"{profile.calibrated} calibration images from the training split, classes taking turns, the same for every "
        "tool; answers to held-out images, compared with the FP32 graph's. Maps are those of the FP32 graph's class, "
        "but for the column that says own class. IoU is that of the strongest 20 % of the cells, KL in nats."
    )
    yield ""
    yield (
        f"Beside edgekit's calibrators: {named or 'no other tool'}. ONNX models run on ONNX Runtime's integer kernels, "
        "NNCF's on OpenVINO's; ModelOpt writes symmetric int8 for TensorRT, which nothing here is. The map's own part "
        'of the graph is left in float; rows called "whole graph" are what a tool does unasked. A time is that of one '
        "calibration from file to file, and its ratio to our min-max was taken in turns; memory is the peak beyond "
        "what importing took."
    )
    if found.missing:
        yield ""
        yield f"**Not finished: {found.missing} units are missing.**"


def _networks(networks: Sequence[Prepared]) -> list[str]:
    rows = []
    for each in networks:
        told, cells = each.told, "x".join(map(str, each.told["map"]))
        accuracy, count = f"{told['accuracy']:.3f}", str(len(told["evaluation"]))
        rows.append([each.network.name, each.network.about, f"{cells}, {told['form']}", accuracy, count])
    return ["## Networks", "", *markdown_table(["name", "what", "map", "FP32 accuracy", "held-out images"], rows)]


def _claims(claims: Sequence[Verdict], rows: Sequence[Row]) -> list[str]:
    said = (
        "The claim, at real eight bits: mean (1 - cosine) and mean (1 - top-20 % IoU) at least "
        f"{100 * GOAL:.0f} % below the best baseline of all tools, each number's own best; agreement with the FP32 "
        f"graph at most {AGREEMENT_POINTS} points below the best; the quick method at most three times min-max. Beside "
        "a difference in agreement stands its standard error on the same images; the best of many baselines is lucky "
        "by about as much."
    )
    lines = ["", "## What does not hold", "", said, ""]
    missed = [f"- {claim.network}, {claim.method}: {', '.join(claim.misses)}" for claim in claims if claim.misses]
    missed += [f"- {row.network}, {row.method}: not run" for row in rows if is_claimed(row.method) and row.not_run]
    if not claims and not missed:
        return [*lines, "No method with the map in its objective was run."]
    lines += missed or ["Nothing."]
    header = [
        "network",
        "method",
        "1 - cosine",
        "1 - IoU",
        "1 - Spearman",
        "agreement, best",
        "agreement, best maps",
        "x min-max",
        "holds",
    ]
    rows = [
        [
            claim.network,
            claim.method,
            f"{_less(claim.cosine)} ({claim.best_cosine})",
            f"{_less(claim.iou)} ({claim.best_iou})",
            _less(claim.spearman),
            f"{claim.agreement:+.2f} ± {claim.agreement_error:.2f} pp ({claim.best_agreement})",
            f"{claim.beside:+.2f} pp",
            _number(claim.ratio, ".1f"),
            "no" if claim.misses else "yes",
        ]
        for claim in sorted(claims, key=lambda claim: not claim.misses)
    ]
    return [*lines, "", "## Against the best of the others", "", *markdown_table(header, rows)]


def _network(network: Prepared, rows: Sequence[Row], claims: Sequence[Verdict]) -> list[str]:
    told = {(claim.network, claim.method): claim for claim in claims}
    ran = [row for row in rows if row.numbers]
    best = {name: min((row.drift(name) for row in ran), default=math.nan) for name in ("cosine", "iou-top20")}
    body = [_row(row, told.get((row.network, row.method)), best) for row in ran]
    return [
        "",
        f"## {network.network.name}, eight bits",
        "",
        network.network.about + ".",
        "",
        *markdown_table(_HEADER, body),
    ]


def _row(row: Row, claim: Verdict | None, best: dict[str, float]) -> list[str]:
    n = row.numbers
    cosine, iou = f"{row.drift('cosine'):.2e}", f"{n['iou-top20']:.4f}"
    cosine = f"**{cosine}**" if row.drift("cosine") == best["cosine"] else cosine
    iou = f"**{iou}**" if row.drift("iou-top20") == best["iou-top20"] else iou
    verdict = ""
    if claim is not None:
        met = "missed" if claim.misses else "met"
        verdict = f"{_less(claim.cosine)}, {_less(claim.iou)}, {claim.agreement:+.2f} pp: {met}"
    return [
        row.method,
        cosine,
        f"{n['cosine']:.5f} / {n['cosine/p5']:.4f} / {n['cosine/p1']:.4f}",
        f"{n['spearman']:.4f} / {n['spearman/p5']:.3f} / {n['spearman/p1']:.3f}",
        f"{iou} / {n['iou-top20/p5']:.3f}",
        f"{n['own-cosine']:.5f}",
        f"{n['agrees']:.4f}",
        f"{n['correct']:.4f}",
        f"{n['divergence']:.2e}",
        f"{_number(row.seconds, '.2f')} ({_number(row.ratio, '.1f')})",
        _number(row.peak_bytes / 2**20, ".0f"),
        verdict,
    ]


def _bits(found: Found, profile: Profile) -> list[str]:
    formats = [name for name in profile.formats if any(row.number_format == name for row in found.rows)]
    if len(formats) < 2:
        return []
    lines = [
        "",
        "## Fewer bits",
        "",
        "1 - cosine, 1 - IoU and agreement. Formats called simulated are rounded in float, to see the trend: no engine "
        "computes them. Other tools have neither six nor four bits and are left out. Behind a method that claims it, "
        "1 - cosine and 1 - IoU against the best of our baselines (at eight bits: of all).",
    ]
    claims = {
        (each.network, each.method, each.number_format): each
        for each in found.verdicts
        if each.images == profile.calibrated
    }
    for network in found.networks:
        name = network.network.name
        rows = {
            (row.method, row.number_format): row
            for form in formats
            for row in found.of(form, profile.calibrated)
            if row.network == name and row.tool == "edgekit" and row.numbers
        }
        methods = list(dict.fromkeys(method for method, _ in rows))
        body = [
            [method, *(_trend(rows.get((method, form)), claims.get((name, method, form))) for form in formats)]
            for method in methods
        ]
        header = ["method", *(form + (", simulated" if number_format(form).simulated else "") for form in formats)]
        lines += ["", f"### {name}", "", *markdown_table(header, body)]
    return lines


def _few(found: Found, profile: Profile) -> list[str]:
    if not profile.few:
        return []
    counts = (*profile.few, profile.calibrated)
    lines = ["", "## Few images", "", "1 - cosine, 1 - IoU and agreement by the number of calibration images."]
    claims = {
        (each.network, each.method, each.images): each for each in found.verdicts if each.number_format == REAL_FORMAT
    }
    for name in profile.few_networks:
        rows = {
            (row.method, row.images): row
            for count in counts
            for row in found.of(REAL_FORMAT, count)
            if row.network == name and row.numbers
        }
        methods = [method for method in dict.fromkeys(method for method, _ in rows) if (method, profile.few[0]) in rows]
        body = [
            [method, *(_trend(rows.get((method, count)), claims.get((name, method, count))) for count in counts)]
            for method in methods
        ]
        if body:
            lines += [
                "",
                f"### {name}",
                "",
                *markdown_table(["method", *(f"{count} images" for count in counts)], body),
            ]
    return lines


def _trend(row: Row | None, claim: Verdict | None) -> str:
    if row is None:
        return ""
    said = f"{row.drift('cosine'):.2e}, {row.drift('iou-top20'):.4f}, {row.numbers['agrees']:.4f}"
    return said if claim is None else f"{said} ({_less(claim.cosine)}, {_less(claim.iou)})"


def _memory(found: Found, profile: Profile) -> list[str]:
    rows = {(row.method, row.images): row for row in found.memory}
    if not rows:
        return []
    counts = sorted({images for _, images in rows})
    body = []
    for method in dict.fromkeys(method for method, _ in rows):
        peaks = {count: rows[method, count].peak_bytes for count in counts if (method, count) in rows}
        growth = peaks[max(peaks)] / peaks[min(peaks)]
        cells = [_number(peaks.get(count, math.nan) / 2**20, ".0f") for count in counts]
        body.append([method, *cells, f"{growth:.2f} from {min(peaks)} to {max(peaks)}"])
    header = ["method", *(f"{count} images" for count in counts), "times as much"]
    said = f"Peak memory of a calibration in MiB, beyond what importing took, on {profile.memory_network}."
    return ["", "## Memory", "", said, "", *markdown_table(header, body)]


def _not_run(rows: Sequence[Row]) -> list[str]:
    failed = [row for row in rows if row.not_run]
    lines = ["", "## Not run", ""] if failed else []
    for reason in dict.fromkeys((row.method, row.not_run) for row in failed):
        where = dict.fromkeys(row.network for row in failed if (row.method, row.not_run) == reason)
        lines.append(f"- {reason[0]} on {', '.join(where)}: {reason[1]}")
    return lines


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a markdown table."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + " --- |" * len(header),
        *("| " + " | ".join(cells) + " |" for cells in rows),
    ]


def _less(share: float) -> str:
    """A reduction, as a change: 0.3 is "-30 %"."""
    return f"{-100 * share:+.0f} %" if math.isfinite(share) else "worse than none"


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else ""
