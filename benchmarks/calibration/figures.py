"""Pictures of the tables."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import NullFormatter
from PIL import Image

from calibration.collect import Found
from calibration.methods import is_claimed
from calibration.profiles import REAL_FORMAT, Profile
from calibration.verdicts import GOAL, Row
from edgekit.core.files import write_bytes

__all__ = ["draw_figures"]

_COLOURS: Mapping[str, str] = MappingProxyType(
    {"edgekit": "#7f7f7f", "onnxruntime": "#1f77b4", "nncf": "#2ca02c", "modelopt": "#9467bd"}
)
_CLAIMED = MappingProxyType({"attribution-quick": "#ff9a3c", "attribution": "#d62728"})
_DRIFTS = (("cosine", "1 - cosine"), ("iou-top20", "1 - top-20 % IoU"), ("agrees", "1 - agreement"))


def draw_figures(found: Found, profile: Profile, results: Path) -> tuple[str, ...]:
    """Draw what there is into a folder, and return the names of the files."""
    mpl.use("Agg")
    mpl.rcParams.update({"figure.dpi": 110, "savefig.bbox": "tight", "font.size": 8, "svg.hashsalt": "calibration"})
    names = [
        _drifts(found.of(REAL_FORMAT, profile.calibrated), results),
        _margins(found, profile, results),
        _trends(found, profile, results),
        _memory(found, results),
    ]
    return tuple(name for name in names if name)


def _saved(figure: Any, results: Path, name: str) -> str:
    import matplotlib.pyplot as plt

    drawn = io.BytesIO()
    figure.savefig(drawn, metadata={"Software": None})
    plt.close(figure)
    # 256 colours are as good to the eye and a third of the bytes.
    reduced = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        reduced, "PNG", optimize=True
    )
    write_bytes(results / name, reduced.getvalue())
    return name


def _colour(row: Row) -> str:
    return _CLAIMED.get(row.method, "#d62728") if is_claimed(row.method) else _COLOURS[row.tool]


def _drifts(rows: Sequence[Row], results: Path) -> str:
    """Every method on every network, one point each."""
    import matplotlib.pyplot as plt

    ran = [row for row in rows if row.numbers]
    if not ran:
        return ""
    networks = list(dict.fromkeys(row.network for row in ran))
    figure, axes = plt.subplots(1, len(_DRIFTS), figsize=(11, 0.5 * len(networks) + 1), sharey=True)
    for axis, (metric, title) in zip(axes, _DRIFTS, strict=True):
        for row in ran:
            marker, size = ("D", 5.0) if is_claimed(row.method) else ("o", 4.0)
            place = networks.index(row.network) + (0.0 if is_claimed(row.method) else _shift(row))
            axis.plot(row.drift(metric), place, marker, ms=size, color=_colour(row), alpha=0.8, mew=0)
        axis.set_xscale("log")
        # Ticks between powers of ten without numbers: they would lie on each other.
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(f"{title}, mean")
        axis.grid(axis="x", lw=0.3)
    axes[0].set_yticks(range(len(networks)), networks)
    axes[0].invert_yaxis()
    named = {"edgekit's baselines": _COLOURS["edgekit"], "ONNX Runtime": _COLOURS["onnxruntime"]}
    named |= {"NNCF": _COLOURS["nncf"], "ModelOpt": _COLOURS["modelopt"]}
    named |= {method: colour for method, colour in _CLAIMED.items() if any(row.method == method for row in ran)}
    handles = [plt.Line2D([], [], marker="o", ls="", color=colour, label=name) for name, colour in named.items()]
    axes[-1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return _saved(figure, results, "calibration-drift.png")


def _shift(row: Row) -> float:
    return {"edgekit": -0.24, "onnxruntime": -0.12, "nncf": 0.12, "modelopt": 0.24}[row.tool]


def _margins(found: Found, profile: Profile, results: Path) -> str:
    """How far below the best baseline, with the line that is claimed."""
    import matplotlib.pyplot as plt

    claims = found.main_verdicts(profile.calibrated)
    if not claims:
        return ""
    networks = list(dict.fromkeys(claim.network for claim in claims))
    figure, axes = plt.subplots(1, 3, figsize=(11, 0.4 * len(networks) + 1), sharey=True)
    shown = (("cosine", "1 - cosine", 100.0), ("iou", "1 - IoU", 100.0), ("agreement", "agreement, points", 1.0))
    for axis, (name, title, scale) in zip(axes, shown, strict=True):
        for claim in claims:
            place = networks.index(claim.network) + (0.12 if claim.method == "attribution" else -0.12)
            value = getattr(claim, name) * scale
            axis.barh(place, max(value, -100.0), 0.22, color=_CLAIMED.get(claim.method, "#d62728"))
        axis.axvline(0, color="black", lw=0.6)
        axis.set_title(title if scale == 1 else f"{title}, % below the best baseline")
        if scale > 1:
            axis.axvline(100 * GOAL, color="black", lw=0.8, ls="--")
    axes[0].set_yticks(range(len(networks)), networks)
    axes[0].invert_yaxis()
    handles = [plt.Line2D([], [], marker="s", ls="", color=c, label=n) for n, c in _CLAIMED.items()]
    axes[-1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return _saved(figure, results, "calibration-margins.png")


def _trends(found: Found, profile: Profile, results: Path) -> str:
    """Fewer bits, a panel a network."""
    import matplotlib.pyplot as plt

    ours = [row for row in found.rows if row.tool == "edgekit" and row.numbers and row.images == profile.calibrated]
    formats = [form for form in profile.formats if any(row.number_format == form for row in ours)]
    if len(formats) < 2:
        return ""
    networks = list(dict.fromkeys(row.network for row in ours))
    columns = min(4, len(networks))
    lines = -(-len(networks) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(2.8 * columns, 2.3 * lines), squeeze=False, sharey=True)
    methods = list(dict.fromkeys(row.method for row in ours))
    for axis, network in zip(axes.ravel(), networks, strict=False):
        for index, method in enumerate(methods):
            rows = {row.number_format: row for row in ours if (row.network, row.method) == (network, method)}
            places = [formats.index(form) for form in rows]
            colour = _CLAIMED.get(method, f"{0.75 - 0.12 * (index % 5):.2f}")
            axis.plot(
                places, [row.drift("cosine") for row in rows.values()], "o-", ms=3, lw=1, color=colour, label=method
            )
        axis.set_yscale("log")
        axis.set_xticks(range(len(formats)), [form.removeprefix("x86-") for form in formats])
        axis.set_title(network, fontsize=8)
    for axis in axes.ravel()[len(networks) :]:
        axis.set_axis_off()
    for row in axes:
        row[0].set_ylabel("mean 1 - cosine")
    figure.tight_layout()
    axes.ravel()[columns - 1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return _saved(figure, results, "calibration-bits.png")


def _memory(found: Found, results: Path) -> str:
    import matplotlib.pyplot as plt

    if not found.memory:
        return ""
    figure, axis = plt.subplots(figsize=(5, 3))
    for index, method in enumerate(dict.fromkeys(row.method for row in found.memory)):
        rows = [row for row in found.memory if row.method == method and not row.not_run]
        if rows:
            colour = (
                _colour(rows[0])
                if rows[0].tool != "edgekit" or is_claimed(method)
                else f"{0.75 - 0.12 * (index % 5):.2f}"
            )
            axis.plot(
                [r.images for r in rows],
                [r.peak_bytes / 2**20 for r in rows],
                "o-",
                ms=3,
                lw=1,
                color=colour,
                label=method,
            )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlabel("calibration images")
    axis.set_ylabel("peak memory, MiB")
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return _saved(figure, results, "calibration-memory.png")
