"""How often the bounds that policies decide by are right: simulated, for populations of scores whose truth is known.

    python benchmarks/policy_coverage.py [--trials N]

Of every population many samples are drawn, and counted is how often a lower bound lies above the truth, and an upper
one below it: each may at most as often as one minus the confidence. Counted too is how often a policy passes an engine
that violates one of several demands, and fails one that meets all of them: what `edgekit policy explain` states. All
populations are made up and stand for shapes that scores have; nothing here is measured on an engine. Writes
`policy_coverage.json` and `policy_coverage.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from edgekit.core.canonical import write_json
from edgekit.core.files import write_bytes
from edgekit.metrics.agreement import METRICS
from edgekit.metrics.intervals import (
    bernstein_bounds,
    bootstrap_mean_bounds,
    bootstrap_quantile_bounds,
    exact_quantile_bounds,
    seed_of,
)
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.statistics import Bounds
from edgekit.policy.clauses import AgreementClause, QuantileClause, ShareClause
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import judge

RESULTS = Path(__file__).resolve().parent / "results"
CONFIDENCE = 0.95
COUNTS = (30, 100, 500)
QUANTILE = 0.05
_Values = npt.NDArray[np.float64]


def _rare_disaster(rng: np.random.Generator, count: int) -> _Values:
    """Nearly all maps kept, one in two hundred lost: what an average hides, and a small sample does not hold."""
    return np.where(rng.uniform(size=count) < 0.005, -1.0, rng.beta(60, 1, count))


POPULATIONS: Mapping[str, tuple[str, Callable[[np.random.Generator, int], _Values], tuple[float, float]]] = {
    "even": ("uniform from 0.6 to 1", lambda rng, n: rng.uniform(0.6, 1, n), (-1.0, 1.0)),
    "kept": ("beta(30, 1): cosines of an engine that keeps its maps", lambda rng, n: rng.beta(30, 1, n), (-1.0, 1.0)),
    "drifted": ("beta(4, 1): a long tail", lambda rng, n: rng.beta(4, 1, n), (-1.0, 1.0)),
    "pointing": ("0 or 1, 0.9 on average", lambda rng, n: (rng.uniform(size=n) < 0.9).astype(float), (0.0, 1.0)),
    "rare disaster": ("beta(60, 1), and -1 once in two hundred", _rare_disaster, (-1.0, 1.0)),
}


@click.command()
@click.option("--trials", default=2000, show_default=True, help="Samples drawn of each population and size.")
def main(trials: int) -> None:
    """Simulate, and write what was counted."""
    means, quantiles = _coverage(trials)
    result = {
        "simulated": True,
        "trials": trials,
        "confidence": CONFIDENCE,
        "quantile": QUANTILE,
        "means": means,
        "quantiles": quantiles,
        "several": _several(trials),
    }
    write_json(RESULTS / "policy_coverage.json", result)
    write_bytes(RESULTS / "policy_coverage.md", _page(result).encode())
    click.echo(_page(result))


def _coverage(trials: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    means, quantiles = [], []
    for name, (_, draw, (low, high)) in POPULATIONS.items():
        large = draw(np.random.default_rng(1), 4_000_000)
        mean, quantile = float(large.mean()), float(np.quantile(large, QUANTILE))
        for count in COUNTS:
            rng = np.random.default_rng(count)
            samples = [draw(rng, count) for _ in range(trials)]
            seeds = [seed_of([name, str(count), str(trial)]) for trial in range(trials)]
            both = list(zip(samples, seeds, strict=True))
            found = {
                "bootstrap": [bootstrap_mean_bounds(values, CONFIDENCE, seed) for values, seed in both],
                "exact": [bernstein_bounds(values, CONFIDENCE, low, high) for values in samples],
            }
            means += [_row(name, count, how, bounds, mean) for how, bounds in found.items()]
            if name != "pointing":  # which has no quantile between 0 and 1
                found = {
                    "bootstrap": [
                        bootstrap_quantile_bounds(values, QUANTILE, CONFIDENCE, seed) for values, seed in both
                    ],
                    "exact": [exact_quantile_bounds(values, QUANTILE, CONFIDENCE, low, high) for values in samples],
                }
                quantiles += [_row(name, count, how, bounds, quantile) for how, bounds in found.items()]
    return means, quantiles


def _row(name: str, count: int, how: str, bounds: list[Bounds], truth: float) -> dict[str, Any]:
    return {
        "population": name,
        "samples": count,
        "bound": how,
        "truth": round(truth, 6),
        "lower_too_high": sum(each.lower > truth for each in bounds) / len(bounds),
        "upper_too_low": sum(each.upper < truth for each in bounds) / len(bounds),
        "mean_distance_of_lower": round(float(np.mean([truth - each.lower for each in bounds])), 6),
    }


def _several(trials: int) -> list[dict[str, Any]]:
    """A policy of four demands, on engines that lie exactly at the edge of them: where errors are most frequent."""
    demands = (
        ShareClause("cosine", 0.9, 0.9),
        ShareClause("ssim", 0.9, 0.9),
        QuantileClause("iou-top20", 0.1, 0.9, interval="exact"),
        AgreementClause(0.9),
    )
    edges = {
        # Of each demand the true share of good samples.
        "violates one, by a hair; meets the others with ease": (0.8999, 0.999, 0.999, 0.999),
        "violates all, by a hair": (0.8999, 0.8999, 0.8999, 0.8999),
        "meets all, by a hair": (0.9, 0.9, 0.9, 0.9),
    }
    rows = []
    for family in (None, CONFIDENCE):
        policy = Policy("four demands", CONFIDENCE, demands, 50, family)
        for name, shares in edges.items():
            rng = np.random.default_rng(9)
            outcomes = [judge(policy, _table(rng, 300, shares)).outcome for _ in range(trials)]
            rows.append(
                {
                    "family_confidence": family,
                    "engine": name,
                    **{outcome: outcomes.count(outcome) / trials for outcome in ("pass", "inconclusive", "fail")},
                }
            )
    return rows


def _table(rng: np.random.Generator, count: int, shares: tuple[float, ...]) -> ScoreTable:
    """Scores in which a share of the samples is good for each demand, independently: the worst case for several."""
    good = [rng.uniform(size=count) < share for share in shares]
    columns = {name: np.full(count, metric.best) for name, metric in METRICS.items()}
    for name, kept in zip(("cosine", "ssim", "iou-top20"), good, strict=False):
        columns[name] = np.where(kept, 0.95, 0.5)
    digest = hashlib.sha256(rng.bytes(16)).hexdigest()
    return ScoreTable(
        sample=tuple(f"{index:08x}{digest[8:]}" for index in range(count)),
        label=np.full(count, -1),
        teacher_class=np.zeros(count, np.int64),
        engine_class=np.where(good[3], 0, 1),
        state=("scored",) * count,
        metrics=columns,
        own_class_metrics={},
        localisation={},
    )


def _page(result: Mapping[str, Any]) -> str:
    risk = 1 - result["confidence"]
    lines = [
        "# How often bounds are right",
        "",
        f"Simulated, nothing measured: {result['trials']} samples of each population and size, bounds at "
        f"{result['confidence']:.0%}. A bound may be wrong in {risk:.0%} of the cases; with so many trials "
        f"{risk + 2 * (risk * (1 - risk) / result['trials']) ** 0.5:.1%} is within chance. *Distance* is how far the "
        "lower bound lies below the truth on average: what being sure costs. Made by benchmarks/policy_coverage.py; "
        "every number is in policy_coverage.json.",
        "",
        *(f"- *{name}*: {told}" for name, (told, _, _) in POPULATIONS.items()),
        "",
        "## Means",
        "",
        *_table_of(result["means"]),
        "",
        "*exact* is the empirical Bernstein bound. From about a hundred samples the bootstrap is as good as it says "
        "where samples show how values scatter, and wrong far too often where they do not: with one lost map in two "
        "hundred, most samples of 30 or 100 hold none, and no bootstrap knows of it.",
        "",
        f"## The {result['quantile']:.0%} quantile",
        "",
        *_table_of(result["quantiles"]),
        "",
        "*bootstrap* is the percentile bootstrap, and errs about twice as often as it says on the side of the near "
        "end, even with 500 samples. *exact* are order statistics, and do not; where samples are too few to bound the "
        "quantile from below, the bound is the end of the metric's range.",
        "",
        "## Several demands",
        "",
        "Four demands of shares with bounds, 300 samples, each demand's samples good or not independently of the "
        "others'.",
        "",
        "| family_confidence | engine | pass | inconclusive | fail |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row['family_confidence'] or 'none'} | {row['engine']} | {row['pass']:.1%} | "
            f"{row['inconclusive']:.1%} | {row['fail']:.1%} |"
            for row in result["several"]
        ),
        "",
    ]
    return "\n".join(lines)


def _table_of(rows: list[dict[str, Any]]) -> list[str]:
    return [
        "| population | samples | bound | lower too high | upper too low | distance |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row['population']} | {row['samples']} | {row['bound']} | {row['lower_too_high']:.1%} | "
            f"{row['upper_too_low']:.1%} | {row['mean_distance_of_lower']:.4f} |"
            for row in rows
        ),
    ]


if __name__ == "__main__":
    main()
