"""The tables as markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from paper.collect import AGREEMENT, Group, Numbers, margin
from paper.context import Context
from paper.verdicts import Results, Verdict

__all__ = ["text_of"]

_Beside = Mapping[str, Numbers]
_ANSWERS = ("accuracy", "class_map", "macro_f1")
_MAPS = tuple(f"grad-cam/agreement/{name}" for name in AGREEMENT)
_PLACES = tuple(f"grad-cam/{name}" for name in ("pixel-auc", "pointing", "pointing-near", "energy-inside"))
_CURVES = ("deletion", "insertion")
_OTHERS = tuple(
    f"{method}/{name}"
    for method in ("lrp", "ebp", "rap")
    for name in ("pixel-auc", "pointing", "energy-inside", "agreement/cosine", "agreement/spearman")
)
_RELEASED = ("released_map", "released_f1")
_WORDS = {
    "class_map": "class-wise mAP",
    "macro_f1": "F1",
    "released_map": 'per-sample "mAP" (released code)',
    "released_f1": 'per-sample "F1" (released code)',
}
_FLOOR_WORDS = {
    "teacher": "teacher itself",
    "retrained": "teacher, next seed",
    "random": "random weights",
    "centre": "centre prior",
    "permuted": "teacher, other images' maps",
    "int8": "teacher's INT8 engine, not trained",
}


def text_of(context: Context, found: Results, scope: str, figures: Sequence[str]) -> str:
    """The whole document."""
    lines = ["# Compression with and without matched maps", "", *_preface(context, scope), ""]
    lines += _verdict_table(found.verdicts)
    lines += _unmet(found.verdicts)
    lines += _scrambled(found.groups, scope)
    references = {(each.dataset, each.network): each for each in found.references}
    for key in dict.fromkeys((group.dataset, group.network) for group in found.groups):
        lines += ["", f"## {key[0]}, {key[1]}", ""]
        beside = references[key].values[scope] if key in references else {}
        lines += _reference_table(beside) if beside else ["Noise floors are not there yet."]
        for group in found.groups:
            if (group.dataset, group.network) == key:
                lines += _group_tables(group, beside, scope)
    lines += _sweeps(found)
    if figures:
        lines += ["", "## Figures", "", *(f"![{name}]({name})\n" for name in figures)]
    return "\n".join(lines).rstrip() + "\n"


def _preface(context: Context, scope: str) -> Iterable[str]:
    split, pairs = scope.split("/")
    profile, evaluation = context.settings, context.settings.evaluation
    yield (
        f"Made by `benchmarks/run_paper.py`, profile {profile.name}; how to read and repeat it stands in "
        f"[paper/README.md](../paper/README.md). Mean and standard deviation over seeds; {split} images, and {pairs} "
        "(image, class) pairs: those that the teacher and the students of all losses predict. Other choices, and every "
        f"seed, are in `paper.json`. Matching has beta {profile.beta:g}. Grad-CAM has all pairs; LRP, EBP and RAP "
        f"have the first {evaluation.relevance_pairs} test pairs, deletion and insertion the first "
        f"{evaluation.curve_pairs} in {evaluation.curve_steps} steps. A margin is the loss's value less that of no "
        "matching, seed by seed, turned so that above 0 is better; behind it, in how many seeds it is."
    )


def _verdict_table(verdicts: Sequence[Verdict]) -> list[str]:
    header = [
        "data",
        "network",
        "kind",
        "loss",
        "map metrics better",
        "cosine",
        "Spearman",
        "pixel AUC",
        "accuracy",
        "holds",
    ]
    rows = []
    for v in verdicts:
        won = [name for name in _MAPS if name in v.margins and name not in v.lost]
        cells = [_margin(v.margins.get(n)) for n in (_MAPS[1], f"{_MAPS[5]}", _PLACES[0])]
        cells.append(_margin(v.margins["accuracy"]))
        rows.append(
            [v.dataset, v.network, v.kind, v.loss, f"{len(won)} of {len(_MAPS)}", *cells, "yes" if v.holds else "no"]
        )
    said = (
        "Better maps by every agreement metric and by pixel AUC (where there are masks), at an accuracy of at most 0.5 "
        "points less than without matching:"
    )
    return ["## What holds", "", said, "", *_table(header, rows)]


def _unmet(verdicts: Sequence[Verdict]) -> list[str]:
    """What is lost by the losses of which it is claimed."""
    lines = ["", "## What was not met", ""]
    missed = [verdict for verdict in verdicts if verdict.loss in ("swa", "sswa") and not verdict.holds]
    for v in missed:
        what = [f"{name} ({_margin(v.margins[name])})" for name in v.lost]
        if not v.accuracy_held:
            what.append(f"accuracy ({_margin(v.margins['accuracy'])})")
        lines.append(f"- {v.dataset}, {v.network}, {v.kind}, {v.loss}: {', '.join(what)}")
    return lines + ([] if missed else ["Nothing."])


def _scrambled(groups: Sequence[Group], scope: str) -> list[str]:
    """The released code's head beside ours: how much of what pruning costs is that fault."""
    kinds = {(group.dataset, group.network, group.kind): group for group in groups}
    pairs = [
        (kinds[d, n, "structured"], group)
        for (d, n, k), group in kinds.items()
        if k == "scrambled" and (d, n, "structured") in kinds
    ]
    if not pairs:
        return []
    metrics = ("accuracy", _MAPS[1], _MAPS[5], _PLACES[0], _PLACES[1])
    lines = [
        "",
        "## The released code's scrambled head",
        "",
        "Structured pruning of a network that flattens its last map, with the head's columns kept where they belong "
        "(ours) and picked in the wrong order (released). Each with its own common pairs.",
        "",
    ]
    rows = []
    for ours, released in pairs:
        for name, group in (("ours", ours), ("released", released)):
            for loss in group.losses:
                numbers = group.values[scope][loss]
                rows.append([group.dataset, name, loss, *(_spread(numbers.get(metric)) for metric in metrics)])
        gaps = {
            name: margin("", g.values[scope]["swa"][_MAPS[1]], g.values[scope]["none"][_MAPS[1]])
            for name, g in (("ours", ours), ("released", released))
        }
        rows.append(
            [
                ours.dataset,
                "swa over none, cosine",
                "",
                "",
                f"ours {_margin(gaps['ours'])}, released {_margin(gaps['released'])}",
                "",
                "",
                "",
            ]
        )
    return lines + _table(["data", "head", "loss", *map(_word, metrics)], rows)


def _reference_table(beside: _Beside) -> list[str]:
    metrics = (*_ANSWERS, *_MAPS, *_PLACES, *_CURVES)
    rows = [
        [_FLOOR_WORDS[name], *(_spread(numbers.get(metric)) for metric in metrics)] for name, numbers in beside.items()
    ]
    return ["What the numbers below are read against:", "", *_table(["map of", *map(_word, metrics)], rows)]


def _group_tables(group: Group, floors: _Beside, scope: str) -> list[str]:
    values, counts = group.values[scope], group.pairs[scope]
    lines = [
        "",
        f"### {group.kind}",
        "",
        f"{len(group.seeds)} seed{'s' * (len(group.seeds) > 1)}, {' + '.join(map(str, counts))} pairs.",
        "",
    ]
    agreement = {_FLOOR_WORDS[name]: floors[name] for name in ("retrained", "centre", "permuted") if name in floors}
    lines += _losses(group, (*_ANSWERS, *_MAPS), agreement, scope)
    located = {_FLOOR_WORDS[name]: floors[name] for name in ("teacher", "centre") if name in floors}
    places = _PLACES if _PLACES[0] in values["none"] else ()
    lines += ["", *_losses(group, (*places, *_CURVES), located, scope)]
    shown = [name for name in _OTHERS if name in values["none"]]
    return [*lines, "", *_losses(group, (*shown, *_RELEASED), located, scope)]


def _losses(group: Group, metrics: Sequence[str], beside: _Beside, scope: str) -> list[str]:
    values = group.values[scope]
    rows = [[loss, *(_spread(values[loss].get(metric)) for metric in metrics)] for loss in group.losses]
    for loss in group.losses:
        if loss != "none":
            margins = [_margin_of(values, loss, metric) for metric in metrics]
            rows.append([f"{loss} over none", *margins])
    rows += [[name, *(_spread(numbers.get(metric)) for metric in metrics)] for name, numbers in beside.items()]
    return _table(["", *map(_word, metrics)], rows)


def _margin_of(values: Mapping[str, Mapping[str, list[float]]], loss: str, metric: str) -> str:
    if metric not in values[loss]:
        return ""
    return _margin(margin(metric, values[loss][metric], values["none"][metric]))


def _sweeps(found: Results) -> list[str]:
    lines = ["", "## Weight of the matching term", ""] if found.sweeps else []
    for sweep in found.sweeps:
        lines += [f"{sweep.dataset}, {sweep.network}, {sweep.kind}, {sweep.loss}, seed {sweep.seed}:", ""]
        rows = [
            [f"{beta:g}", *(f"{row[index]:.3f}" for row in sweep.values.values())]
            for index, beta in enumerate(sweep.betas)
        ]
        lines += [*_table(["beta", *map(_word, sweep.values)], rows), ""]
    return lines


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|" + " --- |" * len(header),
        *("| " + " | ".join(r) + " |" for r in rows),
    ]


def _word(metric: str) -> str:
    return _WORDS.get(metric, metric.removeprefix("grad-cam/").replace("agreement/", "").replace("/", " "))


def _spread(values: Sequence[float] | None) -> str:
    if not values or np.isnan(values).all():
        return ""
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def _margin(values: Sequence[float] | None) -> str:
    if not values or np.isnan(values).all():
        return ""
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):+.3f}{deviation} ({sum(value > 0 for value in values)}/{len(values)})"
