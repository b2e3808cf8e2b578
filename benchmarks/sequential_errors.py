"""How often a sequential verification decides wrongly, and how many samples it takes: simulated, not measured.

    python benchmarks/sequential_errors.py [--runs N]

Engines with a known truth are drawn sample by sample and judged by the very functions that judge a sequential policy
(`edgekit.policy.judging`), after every `LOOK` samples, until they decide or the golden set of `MOST` ends. Beside it:
one look at the end with bounds of fixed size, and the fault that sequential bounds are there to prevent, bounds of
fixed size looked at until they decide. Writes `benchmarks/results/sequential_errors.json` and `.md`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import mean, median

import click
import numpy as np

from edgekit.core.canonical import write_json
from edgekit.core.environment import environment_print
from edgekit.policy.judging import Rule, Scale, judge_mean, judge_share

RESULTS = Path(__file__).resolve().parent / "results"
CONFIDENCE = 0.95
MINIMUM = 50
LOOK = 16
MOST = 2048
SHARE = Scale(0.95, "higher")
MEAN = Scale(0.9, "higher", -1.0, 1.0)
# What each line is: its truth, whether that meets the demand, and how a run of MOST samples is drawn.
SHARES = {0.95: "at the bound", 0.94: "below", 0.9: "far below", 0.97: "above", 0.99: "far above", 1.0: "faultless"}
MEANS = {0.9: "at the bound", 0.88: "below", 0.8: "far below", 0.92: "above", 0.96: "far above"}
WAYS = {"sequential": (True, True), "one look at the end": (False, False), "fixed bounds, watched": (False, True)}


def rule(*, sequential: bool) -> Rule:
    """The rule of a policy with 95 % confidence and at least 50 samples."""
    return Rule(CONFIDENCE, MINIMUM, (0,) * 8, sequential)


@cache
def share_outcome(good: int, count: int, sequential: bool) -> str:
    """What the share of so many of so many says."""
    flags = np.arange(count) < good
    return judge_share(flags, SHARE, rule(sequential=sequential)).outcome


def looks(watched: bool) -> range:
    """Numbers of samples at which somebody looks."""
    return range(LOOK, MOST + 1, LOOK) if watched else range(MOST, MOST + 1)


def run_share(random: np.random.RandomState, truth: float, way: tuple[bool, bool]) -> tuple[str, int]:
    """One verification of a share clause: its outcome, and the samples it took."""
    sequential, watched = way
    good = np.cumsum(random.random_sample(MOST) < truth)
    for count in looks(watched):
        outcome = share_outcome(int(good[count - 1]), count, sequential)
        if outcome != "inconclusive":
            return outcome, count
    return "inconclusive", MOST


def run_mean(random: np.random.RandomState, truth: float, way: tuple[bool, bool]) -> tuple[str, int]:
    """One verification of a mean of cosines, which scatter as a Beta distribution does."""
    sequential, watched = way
    values = 2 * random.beta(12 * (1 + truth) / 2, 12 * (1 - truth) / 2, size=MOST) - 1
    for count in looks(watched):
        outcome = judge_mean(values[:count], MEAN, "exact", rule(sequential=sequential)).outcome
        if outcome != "inconclusive":
            return outcome, count
    return "inconclusive", MOST


def simulate(
    run: Callable[[np.random.RandomState, float, tuple[bool, bool]], tuple[str, int]], truth: float, runs: int
) -> dict[str, object]:
    """Shares of outcomes and numbers of samples of each way, on the same draws."""
    result: dict[str, object] = {}
    for name, way in WAYS.items():
        random = np.random.RandomState(20)
        ended = [run(random, truth, way) for _ in range(runs)]
        outcomes = Counter(outcome for outcome, _ in ended)
        taken = [count for _, count in ended]
        result[name] = {
            **{outcome: outcomes[outcome] / runs for outcome in ("pass", "fail", "inconclusive")},
            "samples_mean": mean(taken),
            "samples_median": median(taken),
        }
    return result


def table(title: str, found: dict[str, dict[str, object]]) -> list[str]:
    """A Markdown table."""
    header = ("truth", "way", "pass", "fail", "inconclusive", "samples, mean (median)")
    lines = [f"## {title}", "", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for truth, ways in found.items():
        for way, told in ways.items():
            assert isinstance(told, dict)
            shares = " | ".join(f"{told[name]:.2%}" for name in ("pass", "fail", "inconclusive"))
            lines.append(f"| {truth} | {way} | {shares} | {told['samples_mean']:.0f} ({told['samples_median']:.0f}) |")
    return [*lines, ""]


@click.command()
@click.option("--runs", default=4000, show_default=True, help="Simulated verifications of a share.")
@click.option("--mean-runs", default=400, show_default=True, help="Simulated verifications of a mean; slower.")
def main(runs: int, mean_runs: int) -> None:
    """Simulate, and write the tables."""
    shares = {f"{truth:.0%}, {words}": simulate(run_share, truth, runs) for truth, words in SHARES.items()}
    click.echo("shares done")
    means = {f"{truth:.2f}, {words}": simulate(run_mean, truth, mean_runs) for truth, words in MEANS.items()}
    document = {
        "simulated": True,
        "confidence": CONFIDENCE,
        "looks_every": LOOK,
        "most": MOST,
        "runs": {"share": runs, "mean": mean_runs},
        "share_at_least_0.95": shares,
        "mean_at_least_0.90": means,
        "environment": environment_print(),
    }
    write_json(RESULTS / "sequential_errors.json", document)
    lines = [
        "# Error rates of sequential verification (simulated)",
        "",
        "Made by `benchmarks/sequential_errors.py`: drawn samples with a known truth, which are looked at after every",
        f"{LOOK}, {MOST} at most; confidence {CONFIDENCE:.0%}, {MINIMUM} samples at least. At and below the bound each",
        "pass is wrong, and may happen in 5 % of the runs at most; at and above it every fail is. A mean is of values",
        "that scatter as a Beta distribution with 12 pseudo-counts.",
        "",
        *table(f"Share of samples with cosine >= t is at least 95 % ({runs} runs)", shares),
        *table(f"Mean cosine is at least 0.90, interval: exact ({mean_runs} runs)", means),
    ]
    (RESULTS / "sequential_errors.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
