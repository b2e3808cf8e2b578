"""`precision.json`: everything a precision budget found, and the points of its plot."""

from __future__ import annotations

from typing import Any

from edgekit.bundle.golden import GoldenSet
from edgekit.core.environment import environment_print
from edgekit.precision.budget import Budget, Prepared
from edgekit.precision.candidate import Candidate
from edgekit.precision.request import BudgetRequest
from edgekit.report.pareto import ParetoChart, ParetoPoint

__all__ = ["PRECISION_FORMAT", "PRECISION_NAME", "budget_document", "candidate_rows", "plotted"]

PRECISION_NAME = "precision.json"
PRECISION_FORMAT = "edgekit.precision/1"


def budget_document(request: BudgetRequest, prepared: Prepared, golden: GoldenSet, budget: Budget) -> dict[str, Any]:
    """The document, JSON-ready. But for latencies and the environment, equal requests give equal documents."""
    return {
        "format": PRECISION_FORMAT,
        "policy": request.policy.to_dict(),
        "teacher": request.yardstick.teacher,
        "judged": {"images": list(golden.digests), "labelled": int((golden.labels >= 0).sum())},
        "engine": dict(vars(request.engine)),
        "environment": environment_print(),
        "number_format": prepared.fmt.name,
        "outside_int8": list(prepared.float_precisions),
        "method": {
            "name": prepared.table.provenance.method,
            "parameters": dict(prepared.table.provenance.parameters),
            "exclude": list(prepared.table.provenance.exclude),
        },
        "operations": [{"name": item.name, "kind": item.kind} for item in prepared.operations],
        "ranking": [item.to_dict() for item in budget.ranking],
        "search": [
            {"phase": step.phase, "lifted": sorted(step.lifted), "holds": step.holds}
            for step in (budget.search.steps if budget.search else ())
        ],
        "candidates": candidate_rows(budget),
        "frontier": list(budget.front),
        "latency": budget.latency.to_dict(),
        "chosen": budget.choice.name,
        "outcome": budget.choice.outcome,
        "reason": budget.choice.reason,
        "notes": list(budget.notes),
    }


def candidate_rows(budget: Budget) -> list[dict[str, Any]]:
    """Every candidate, JSON-ready, from full INT8 to FP32."""
    return [_row(name, candidate, budget) for name, candidate in budget.candidates.items()]


def _row(name: str, candidate: Candidate, budget: Budget) -> dict[str, Any]:
    return {
        "name": name,
        **candidate.to_dict(),
        "latency_ms": budget.latency.milliseconds.get(name),
        "frontier": name in budget.front,
        "chosen": name == budget.choice.name,
    }


def plotted(budget: Budget, policy: str) -> ParetoChart:
    """The plot: map drift against latency, or against size where no latency is known."""
    by_latency = budget.latency.known
    points = []
    for name in budget.kept if by_latency else budget.candidates:
        candidate = budget.candidates[name]
        cost = budget.latency.milliseconds[name] if by_latency else candidate.bytes / 1e6
        points.append(
            ParetoPoint(
                name=name,
                cost=cost,
                drift=candidate.drift["cosine"],
                holds=candidate.holds,
                chosen=name == budget.choice.name,
            )
        )
    source = f" ({budget.latency.source})"
    return ParetoChart(
        points=tuple(points),
        cost_label="latency, ms" + source if by_latency else "size, MB (latency is not measured)",
        drift_label="map drift, mean 1 - cosine",
        title=f"Precision budget under the policy {policy!r}",
    )
