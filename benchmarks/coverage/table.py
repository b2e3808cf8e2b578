"""The coverage table as people read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["summary_of", "text_of"]

_COLUMNS = (
    "network",
    "family",
    "input",
    "tap",
    "map",
    "gradient",
    "logits",
    "maps",
    "INT8 cosine",
    "INT8 top-1",
    "map costs",
    "nodes",
    "TensorRT tables",
    "s",
)
_NOTHING = ""


def summary_of(row: Mapping[str, Any]) -> str:
    """One line for the console."""
    red = reasons(row)
    taken = "" if row.get("seconds") is None else f", {row['seconds']:.0f} s"
    if "skipped" in row:
        return f"skipped: {row['skipped']}"
    return ("; ".join(f"{step} failed: {why}" for step, why in red.items()) or "green") + taken


def reasons(row: Mapping[str, Any]) -> dict[str, str]:
    """The steps that failed, with why; empty for a green row. Steps that were not reached are not named."""
    if "stopped" in row:
        return {"row": row["stopped"]}
    return {name: step["reason"] for name, step in row.get("steps", {}).items() if not step["ok"] and step["reason"]}


def text_of(document: Mapping[str, Any]) -> str:
    """The whole page as markdown."""
    rows = document["rows"]
    measured = {key: row for key, row in rows.items() if "skipped" not in row}
    green = [key for key, row in measured.items() if not reasons(row)]
    parts = [
        "# What edgekit explains, exports and quantises",
        f"{len(green)} of {len(measured)} architectures came through every step.",
        _introduction(document),
        _table(measured),
    ]
    red = {key: reasons(row) for key, row in measured.items() if reasons(row)}
    if red:
        lines = [f"- {key}, {step}: {why}" for key, found in red.items() for step, why in found.items()]
        parts += ["## What failed", "\n".join(lines)]
    skipped = [f"- {key}: {row['skipped']}" for key, row in rows.items() if "skipped" in row]
    if skipped:
        parts += ["## Not measured", "\n".join(skipped)]
    parts += ["## Operators of the exported graphs", _operators(measured)]
    return "\n\n".join(parts) + "\n"


def _introduction(document: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    sources = sorted({row["steps"]["load"]["images"] for row in document["rows"].values() if _done(row, "load")})
    return (
        "Made by benchmarks/coverage/run.py; every number is in coverage.json. Measured on "
        f"{document['environment']['processor']} with {document['environment']['logical_cpus']} logical processors, "
        f"{versions}. Nothing here ran on TensorRT or a GPU: the TensorRT column says which versions' operator tables "
        "the graph satisfies, in operator set 17 for 8.5 and 8.6 and in 18 for the others.\n\n"
        "Networks of torchvision and timm have random weights from a seed, so a row says that the machinery is right "
        "for the architecture, not how good its maps or its INT8 answers are. Parameters that the factory leaves all "
        "zero, such as the heads of vision transformers and the last batch norms of residual blocks, are drawn from "
        "N(0, 0.02), since behind them neither logits nor maps would depend on anything; the statistics of batch norms "
        "are those of the parity images, so that activations neither vanish nor explode. Rows of edgekit have real "
        f"weights. Images: {'; '.join(sources)}; resized to the input.\n\n"
        "Logits and maps: largest error of any of 64 images against torch in float64, relative to the largest value "
        "of that image, of the worse of the gradient's forms; at most 1e-4 is required. At kinks: images left out of "
        "the maps' error, since the float64 map itself jumps when pixels move by rounding, as the gradient of a ReLU "
        "does at zero. INT8: min-max over 16 other "
        "images, uint8 activations; mean cosine of the map (least) and share of equal answers, INT8 against FP32. "
        "Map costs: median over rounds of the time of the whole FP32 graph over that of the same graph cut down to "
        "the logits, ONNX Runtime, batch 1, in turns, with its quartiles; it moves by some per cent on a busy machine."
    )


def _table(rows: Mapping[str, Any]) -> str:
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + " --- |" * len(_COLUMNS)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows.values()]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    case = row["case"]
    taken = _NOTHING if row.get("seconds") is None else f"{row['seconds']:.0f}"
    head = (f"{case['package']} {case['name']}", case["family"], str(case["side"]))
    return (*head, *_tap(row), _forms(row), *_parity(row), *_int8(row), _cost(row), *_graph(row), taken)


def _done(row: Mapping[str, Any], step: str) -> bool:
    return bool(row.get("steps", {}).get(step, {}).get("ok"))


def _missing(row: Mapping[str, Any], step: str) -> str:
    return "failed" if step in reasons(row) else _NOTHING


def _tap(row: Mapping[str, Any]) -> tuple[str, str]:
    if not _done(row, "tap"):
        return _missing(row, "tap"), _NOTHING
    found = row["steps"]["tap"]
    prefix = f" behind {found['prefix_tokens']}" if found["prefix_tokens"] else ""
    height, width = found["map"]
    return f"`{found['module']}` ({found['layout']}{prefix})", f"{height} x {width}"


def _forms(row: Mapping[str, Any]) -> str:
    if not _done(row, "export"):
        return _missing(row, "export")
    return " and ".join(form.split()[0] for form in row["steps"]["export"]["forms"])


def _parity(row: Mapping[str, Any]) -> tuple[str, str]:
    if not _done(row, "parity"):
        return _missing(row, "parity"), _NOTHING
    forms = row["steps"]["parity"]["forms"].values()
    logits = max(found["logits"] for found in forms)
    maps = max(max(found["attribution"], found["own_class"]) for found in forms)
    kinks = max(found.get("kinks", 0) for found in forms)
    return f"{logits:.0e}", f"{maps:.0e}" + (f", {kinks} at kinks" if kinks else "")


def _int8(row: Mapping[str, Any]) -> tuple[str, str]:
    if not _done(row, "int8"):
        return _missing(row, "int8"), _NOTHING
    found = row["steps"]["int8"]
    cosine = "no map" if found["cosine_mean"] is None else f"{found['cosine_mean']:.3f} ({found['cosine_min']:.2f})"
    return cosine, f"{found['agreement']:.2f}"


def _cost(row: Mapping[str, Any]) -> str:
    if not _done(row, "cost"):
        return _missing(row, "cost")
    ratio = row["steps"]["cost"]["ratio"]["logits and map"]
    low, middle, high = ((ratio[name] - 1) * 100 for name in ("q1", "median", "q3"))
    return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"


def _graph(row: Mapping[str, Any]) -> tuple[str, str]:
    nodes, tables = _NOTHING, _NOTHING
    if _done(row, "export"):
        export = row["steps"]["export"]
        nodes = " / ".join(str(found["nodes"]) for found in export["forms"].values())
    if _done(row, "tensorrt"):
        forms = row["steps"]["tensorrt"]["forms"].values()
        tables = " / ".join(_span(found) for found in dict.fromkeys(tuple(form["versions"]) for form in forms))
    return nodes, tables or _missing(row, "tensorrt")


def _span(versions: tuple[str, ...]) -> str:
    return ", ".join(versions) or "none"


def _operators(rows: Mapping[str, Any]) -> str:
    lines = []
    for form in ("closed form", "traced gradient"):
        graphs = [
            row["steps"]["export"]["forms"][form]
            for row in rows.values()
            if _done(row, "export") and form in row["steps"]["export"]["forms"]
        ]
        used = Counter(operator for graph in graphs for operator in graph["operators"])
        listed = ", ".join(f"{operator} {count}" for operator, count in sorted(used.items()))
        lines.append(f"- {form}, {len(graphs)} graphs: {listed or 'none'}")
    return "How many graphs use each.\n\n" + "\n".join(lines)
