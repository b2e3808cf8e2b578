"""What stands beside a bundle's scores when its policy is judged: what the engine costs, and the release before it.

A build and a gate make it of the same files by the same lines, so that the stored verdict is found again exactly: by
arithmetic whose results do not depend on a library's version, and only from what the bundle holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.bench.result import LatencyReport
from edgekit.bundle.layout import BASELINE, CANDIDATES, LATENCY, MODEL, PLAN
from edgekit.bundle.open import Bundle
from edgekit.errors import IntegrityError
from edgekit.metrics.statistics import quantiles
from edgekit.policy.clauses import BaselineClause, BudgetClause
from edgekit.policy.context import Baseline, Context
from edgekit.policy.policy import Policy

__all__ = ["bundle_context", "counts_as_shipped", "latency_costs", "power_round_s", "stored_baseline"]

_TOLD_ABOUT = ("evidence/", "report/")
_BY_A_SENSOR = {"power-w", "energy-mj"}
# Forty readings of the quickest sensors, and five of one that averages for a third of a second.
_SENSOR_ROUND_S = 2.0


def counts_as_shipped(name: str) -> bool:
    """Whether a file of a bundle counts for "bundle-bytes": evidence and report do not, since they hold the verdict."""
    return not name.startswith(_TOLD_ABOUT)


def power_round_s(policy: Policy) -> float:
    """Shortest round in seconds, for `LatencyOptions.round_s`: long where power or energy is demanded, else 0."""
    demanded = {clause.cost for clause in policy.clauses if isinstance(clause, BudgetClause)}
    return _SENSOR_ROUND_S if demanded & _BY_A_SENSOR else 0.0


def latency_costs(report: LatencyReport, name: str, partner: str | None) -> dict[str, float]:
    """What an engine takes, by the names of `edgekit.policy.release_clauses.COSTS`.

    Args:
        report: The times.
        name: Of the engine's candidate.
        partner: Of FP32 on the same engine; None where it was not timed, and then there is no ratio.

    Returns:
        Costs by name, those that were measured; nothing where the candidate was not timed. Power and energy are there
        where a sensor saw every round, and the peak of memory of engines that compute on the processor.
    """
    if name not in report.results:
        return {}
    times = np.array(report.results[name].samples_ms, dtype=np.float64)
    median, slowest = quantiles(times, (0.5, 0.99))
    costs = {"latency-p50-ms": median, "latency-p99-ms": slowest}
    if partner in report.results:
        pairs = zip(report.results[name].rounds, report.results[str(partner)].rounds, strict=True)
        ratios = [_median(above) / _median(below) for above, below in pairs]
        costs["latency-ratio"] = _median(tuple(ratios))
    further = report.results[name].further_costs()
    return costs | {key.replace("_", "-"): value for key, value in further.items()}


def _median(values: tuple[float, ...]) -> float:
    return quantiles(np.array(values, dtype=np.float64), (0.5,))[0]


def bundle_context(bundle: Bundle, policy: Policy, baseline: Baseline | None = None) -> Context:
    """What a policy may look at beside a bundle's scores.

    Args:
        bundle: Opened.
        policy: What is demanded; only what it asks for is read.
        baseline: In place of the one that the bundle was judged by.

    Raises:
        IntegrityError: What the bundle holds is malformed, or its own baseline is said to be that very release and is
            not.
    """
    kinds = {type(clause) for clause in policy.clauses}
    return Context(
        baseline=_baseline(bundle, baseline) if BaselineClause in kinds else None,
        costs=_costs(bundle) if BudgetClause in kinds else {},
    )


def _baseline(bundle: Bundle, named: Baseline | None) -> Baseline | None:
    stored = stored_baseline(bundle)
    if named is None or stored is None:
        return named or stored
    # A stored baseline only claims to be the release it names. Here that release is at hand.
    if stored.digest == named.digest and stored.to_dict() != named.to_dict():
        raise IntegrityError(
            "The bundle was judged beside other scores than those of the release it names.",
            where=str(bundle.path(BASELINE)),
            expected=f"the scores of the bundle with digest {named.digest}",
            found="others",
            hint="build it again with that release as --baseline",
        )
    return named


def stored_baseline(bundle: Bundle) -> Baseline | None:
    """The release that a bundle was judged beside; None where it was judged by itself."""
    if BASELINE not in bundle:
        return None
    return Baseline.from_dict(bundle.read_json(BASELINE), where=str(bundle.path(BASELINE)))


def _costs(bundle: Bundle) -> dict[str, float]:
    files = bundle.manifest.files
    costs: dict[str, float] = {
        "artifact-bytes": float(files[PLAN if PLAN in bundle else MODEL].size),
        "bundle-bytes": float(sum(ref.size for name, ref in files.items() if counts_as_shipped(name))),
    }
    if LATENCY in bundle:
        report = LatencyReport.from_dict(bundle.read_json(LATENCY), where=str(bundle.path(LATENCY)))
        name, partner = _timed_as(bundle)
        costs |= latency_costs(report, name, partner)
    return costs


def _timed_as(bundle: Bundle) -> tuple[str, str | None]:
    """What the latency report calls the shipped engine, and FP32 on the same runtime."""
    if CANDIDATES not in bundle:
        return bundle.manifest.precision, "fp32"
    stored = bundle.read_json(CANDIDATES)
    try:
        entries: list[dict[str, Any]] = list(stored["candidates"])
        chosen = next(entry for entry in entries if entry["name"] == stored["chosen"])
        # Bundles of before engines competed name no engine: there is one.
        beside = [entry for entry in entries if entry.get("engine") == chosen.get("engine")]
        partner = next((str(entry["name"]) for entry in beside if entry.get("precision") == "fp32"), None)
        return str(chosen["name"]), partner
    except (KeyError, TypeError, AttributeError, StopIteration) as cause:
        raise IntegrityError(
            "The bundle's list of candidates is malformed.", where=str(bundle.path(CANDIDATES)), found=repr(cause)
        ) from cause
