"""What the build cost and saved: parameters, bytes, milliseconds, and the candidates that were weighed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgekit.report.data import CandidateSummary, ReportData

__all__ = ["describe_candidates", "describe_compression", "describe_engines", "finite_or_none", "measured_on"]

_PERCENTILES = ("p50", "p90", "p99")
_FURTHER = ("power_w", "energy_mj", "peak_memory_bytes")
_RUNTIME_NAMES = {"onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT", "openvino": "OpenVINO"}
# Of ONNX Runtime, and of OpenVINO.
_CPU_PROVIDERS = {"CPUExecutionProvider", "CPU"}
_GPU_PACKAGES = ("tensorrt", "onnxruntime-gpu")


def finite_or_none(value: Any) -> float | None:
    """The number as float, None where there is none or it is not finite: JSON has no NaN."""
    if value is None or isinstance(value, (str, bool)):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def describe_compression(compression: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters, multiply-accumulates and zeros before and after, JSON-ready; why not, where there are none."""
    before, after = compression.get("before"), compression.get("after")
    rows = []
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key, words in (("parameters", "parameters"), ("macs", "multiply-accumulates per image")):
            old, new = finite_or_none(before.get(key)), finite_or_none(after.get(key))
            if old is not None and new is not None:
                rows.append({"what": words, "before": old, "after": new, "left": _ratio(new, old)})
    sparse = compression.get("sparsity")
    if isinstance(sparse, Mapping):
        weights, zeros = finite_or_none(sparse.get("weights")), finite_or_none(sparse.get("zeros"))
        if weights is not None and zeros is not None:
            row = {"what": "weights of sparse layers that are not zero", "before": weights, "after": weights - zeros}
            rows.append({**row, "left": _ratio(weights - zeros, weights)})
    skipped = compression.get("skipped")
    return {"rows": rows, "skipped": None if skipped is None else str(skipped)}


def describe_engines(data: ReportData) -> dict[str, Any]:
    """Size and latency of every engine, and each against the FP32 one, JSON-ready.

    Returns:
        "baseline" (name of the engine that the ratios are against, or None), "measured" (False without any latency),
        "further" (those of power_w, energy_mj and peak_memory_bytes that were measured of any engine) and "rows": name,
        precision, shipped, bytes, size_ratio, p50, p90, p99 (milliseconds), what "further" names, and speed_up, above 1
        where the engine is faster: one over the candidate's `latency_ratio`, else the ratio of the medians.
    """
    latency = dict(data.latency or {})
    further = [key for key in _FURTHER if any(finite_or_none(stats.get(key)) is not None for stats in latency.values())]
    measured = {name: {key: finite_or_none(stats.get(key)) for key in further} for name, stats in latency.items()}
    baseline = next((item for item in data.candidates if item.precision == "fp32"), None)
    ratios = {item.name: item.latency_ratio for item in data.candidates}
    rows: list[dict[str, Any]] = []
    for item in data.candidates:
        known = {"name": item.name, "precision": item.precision, "shipped": item.shipped, "bytes": item.bytes}
        rows.append({**known, **_percentiles(latency.pop(item.name, None), item.latency_p50_ms)})
    for name, stats in sorted(latency.items()):
        rows.append({"name": name, "precision": None, "shipped": False, "bytes": None, **_percentiles(stats, None)})
    reference: dict[str, Any] = next((row for row in rows if baseline and row["name"] == baseline.name), {})
    for row in rows:
        row.update(measured.get(row["name"], dict.fromkeys(further)))
        row["size_ratio"] = _ratio(row["bytes"], reference.get("bytes"))
        row["speed_up"] = _ratio(1.0, ratios.get(row["name"])) or _ratio(reference.get("p50"), row["p50"])
    return {
        "baseline": baseline.name if baseline else None,
        "measured": any(row["p50"] is not None for row in rows),
        "further": further,
        "rows": rows,
    }


def _percentiles(stats: Mapping[str, Any] | None, median: float | None) -> dict[str, float | None]:
    found = {name: finite_or_none((stats or {}).get(name, (stats or {}).get(f"{name}_ms"))) for name in _PERCENTILES}
    if found["p50"] is None:
        found["p50"] = finite_or_none(median)
    return found


def describe_candidates(candidates: tuple[CandidateSummary, ...]) -> list[dict[str, Any]]:
    """Every candidate, JSON-ready, in the order of preference."""
    return [
        {
            "name": item.name,
            "engine": item.engine,
            "precision": item.precision,
            "bytes": item.bytes,
            "outcome": item.outcome,
            "agreement": finite_or_none(item.agreement),
            "accuracy": finite_or_none(item.accuracy),
            "means": {name: finite_or_none(value) for name, value in sorted(item.means.items())},
            "latency_p50_ms": finite_or_none(item.latency_p50_ms),
            "latency_ratio": finite_or_none(item.latency_ratio),
            "shipped": item.shipped,
            "reason": item.reason,
        }
        for item in candidates
    ]


def measured_on(data: ReportData) -> str:
    """One honest sentence about where the numbers come from, made of what was recorded and nothing else."""
    packages = data.environment.get("packages") or {}
    processor = str(data.engine.get("device") or data.environment.get("processor") or "a machine that was not recorded")
    runtime = str(data.engine.get("runtime") or "")
    if not runtime and "onnxruntime" in packages:
        runtime = f"onnxruntime {packages['onnxruntime']}"
    name, _, version = runtime.partition(" ")
    runtime = f"{_RUNTIME_NAMES.get(name, name)} {version}".strip() or "a runtime that was not recorded"
    said = f"Measured on: {processor}, {runtime}"
    if _ran_on_cpu_only(data.engine, packages):
        return f"{said}; the engine ran on neither TensorRT nor a GPU."
    return f"{said}."


def _ran_on_cpu_only(engine: Mapping[str, Any], packages: Mapping[str, Any]) -> bool:
    """Whether the record shows it. Without an engine's own word only missing packages can."""
    if not engine:
        return "onnxruntime" in packages and not any(name in packages for name in _GPU_PACKAGES)
    details = engine.get("details")
    found = details if isinstance(details, Mapping) else {}
    ran_on = found.get("providers", found.get("devices"))
    return isinstance(ran_on, (list, tuple)) and bool(ran_on) and set(ran_on) <= _CPU_PROVIDERS
