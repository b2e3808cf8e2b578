"""The hop ledger and the tensors that moved the map most, as a report retells them from a `blame.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.errors import IntegrityError
from edgekit.metrics.agreement import METRICS, Metric
from edgekit.report.clauses import interval_axis

__all__ = ["BLAME_FORMAT", "describe_hops"]

BLAME_FORMAT = "edgekit.blame/1"
_TENSORS = 10


def describe_hops(blame: Mapping[str, Any] | None, metric: str | None) -> dict[str, Any] | None:
    """What a report tells of blame, JSON-ready.

    Args:
        blame: The document of `blame.json`; None where nothing was blamed.
        metric: The metric that the report ranks by; the cosine where the ledger does not hold it.

    Returns:
        "bundle" (its digest), "in_words", "policy", "samples", "metric", "axis" ("ticks"), "hops": title, on_path,
        broken (the first that breaks the policy), outcome, reason, note, observed (mean of the metric against the
        teacher), step (against the network it was made from) and flips; "tensors": the worst, with name, kind,
        operation, module, rank, ranks and the drift of its cosine, observed, lower and upper, and "tensors_total".
        None where there is no document.

    Raises:
        IntegrityError: The document is not what `edgekit blame` writes.
    """
    if blame is None:
        return None
    if blame.get("format") != BLAME_FORMAT:
        raise IntegrityError(
            "A report was given a blame document it cannot read.",
            where="blame.json",
            expected=BLAME_FORMAT,
            found=repr(blame.get("format")),
            hint="run 'edgekit blame' again",
        )
    try:
        return _described(blame, metric)
    except (KeyError, TypeError, IndexError) as cause:
        raise IntegrityError(
            "A blame document is malformed.",
            where="blame.json",
            expected="ledger and tensors as 'edgekit blame' writes them",
            found=repr(cause),
            hint="run 'edgekit blame' again",
        ) from cause


def _described(blame: Mapping[str, Any], metric: str | None) -> dict[str, Any]:
    ledger, found = blame["ledger"], blame["blame"]
    measured = [hop["against_teacher"]["means"] for hop in ledger["hops"] if hop["against_teacher"] is not None]
    chosen = metric if metric is not None and all(metric in means for means in measured) else "cosine"
    hops = [_hop(hop, chosen, ledger["first_broken"]) for hop in ledger["hops"]]
    tensors = [] if found is None else found["tensors"]
    return {
        "bundle": str(blame["bundle"]),
        "in_words": str(ledger["in_words"]),
        "policy": str(ledger["policy"]),
        "samples": len(ledger["samples"]),
        "metric": chosen,
        "axis": {"ticks": _axis([hop["observed"] for hop in hops], METRICS[chosen])},
        "hops": hops,
        "tensors": [_tensor(item) for item in tensors[:_TENSORS]],
        "tensors_total": len(tensors),
    }


def _axis(values: list[float | None], metric: Metric) -> list[float]:
    low, high = sorted((metric.worst, metric.best))
    return interval_axis(values, unit="score", best=metric.best, limits=(low, high))


def _hop(hop: Mapping[str, Any], metric: str, broken: str | None) -> dict[str, Any]:
    teacher, source = hop["against_teacher"], hop["against_source"]
    return {
        "title": str(hop["title"]),
        "on_path": bool(hop["on_path"]),
        "broken": hop["name"] == broken,
        "outcome": hop["outcome"],
        "reason": str(hop["reason"]),
        "note": "; ".join(str(hop[key]) for key in ("note", "ran_on") if hop[key]),
        "observed": None if teacher is None else teacher["means"][metric],
        "step": None if source is None else source["means"][metric],
        "flips": None if teacher is None else teacher["flips"],
    }


def _tensor(item: Mapping[str, Any]) -> dict[str, Any]:
    drift = item["only"]["cosine"]
    return {
        "name": str(item["name"]),
        "kind": str(item["kind"]),
        "operation": str(item["operation"]),
        "module": None if item["module"] is None else str(item["module"]),
        "rank": item["rank"],
        "ranks": list(item["ranks"]),
        "observed": drift["mean"],
        "lower": drift["low"],
        "upper": drift["high"],
    }
