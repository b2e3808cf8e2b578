"""Pictures of the tables, and maps of the same images under every loss and method."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekit.attribution.normalise import unit_max
from edgekit.attribution.upsample import upsample_bilinear
from edgekit.core.files import write_bytes
from paper.context import Context
from paper.units import Unit, teacher_of
from paper.verdicts import Results
from paper.work import read_maps, read_unit

__all__ = ["draw_figures"]

_SHOWN = ("grad-cam/agreement/cosine", "grad-cam/agreement/spearman", "grad-cam/pixel-auc")
_COLOURS = {"ewa": "#7f7f7f", "swa": "#1f77b4", "sswa": "#d95f02", "none": "#333333"}
_IMAGES = 4
# As bright as it is high to the eye, and readable without colour.
_MAP_COLOURS = "viridis"


def draw_figures(context: Context, found: Results, results: Path) -> tuple[str, ...]:
    """Draw what there is into a folder, and return the names of the files."""
    mpl.use("Agg")
    mpl.rcParams.update({"figure.dpi": 110, "savefig.bbox": "tight", "font.size": 8, "svg.hashsalt": "paper"})
    names = [_margins(found, results), _centre(found, results)]
    if found.sweeps:
        names.append(_betas(found, results))
    for key, kinds in context.settings.kinds.items():
        names += [_maps(context, (*key, kind), losses, results) for kind, losses in kinds.items() if len(losses) > 2]
        names.append(_methods(context, key, kinds, results))
    return tuple(name for name in names if name)


def _saved(figure: Any, results: Path, name: str) -> str:
    import matplotlib.pyplot as plt

    drawn = io.BytesIO()
    figure.savefig(drawn, metadata={"Software": None})
    plt.close(figure)
    # 256 colours that cover all there are, bright peaks included, are as good to the eye and a third of the bytes.
    reduced = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        reduced, "PNG", optimize=True
    )
    write_bytes(results / name, reduced.getvalue())
    return name


def _margins(found: Results, results: Path) -> str:
    """How much better than no matching, one point a seed."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(_SHOWN), figsize=(11, 0.28 * len(found.groups) + 1), sharey=True)
    labels = [f"{group.dataset}, {group.network}, {group.kind}" for group in found.groups]
    for axis, metric in zip(axes, _SHOWN, strict=True):
        for place, group in enumerate(found.groups):
            for verdict in found.verdicts:
                if (verdict.dataset, verdict.network, verdict.kind) == (group.dataset, group.network, group.kind):
                    values = verdict.margins.get(metric, [])
                    shift = {"ewa": -0.2, "swa": 0.0, "sswa": 0.2}[verdict.loss]
                    axis.plot(values, [place + shift] * len(values), "o", ms=3.5, color=_COLOURS[verdict.loss])
        axis.axvline(0, color="black", lw=0.6)
        axis.set_title(metric.replace("grad-cam/", "").replace("agreement/", "") + ", margin over no matching")
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].invert_yaxis()
    handles = [
        plt.Line2D([], [], marker="o", ls="", color=_COLOURS[loss], label=loss) for loss in ("ewa", "swa", "sswa")
    ]
    axes[-1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return _saved(figure, results, "paper-margins.png")


def _centre(found: Results, results: Path) -> str:
    """Localisation beside the map of somebody who has not seen the image."""
    import matplotlib.pyplot as plt

    metric, scope = "grad-cam/pixel-auc", "held-out/common"
    references = [each for each in found.references if metric in each.values[scope]["teacher"]]
    if not references:
        return ""
    figure, axes = plt.subplots(1, len(references), figsize=(2.6 * len(references), 2.8), sharey=True, squeeze=False)
    for axis, each in zip(axes[0], references, strict=True):
        groups = [g for g in found.groups if (g.dataset, g.network) == (each.dataset, each.network)]
        for place, group in enumerate(groups):
            for shift, loss in enumerate(group.losses):
                values = group.values[scope][loss][metric]
                axis.plot([place + 0.15 * shift - 0.2] * len(values), values, "o", ms=3, color=_COLOURS[loss])
        for name, style in (("teacher", "-"), ("centre", "--")):
            axis.axhline(np.mean(each.values[scope][name][metric]), color="black", lw=0.8, ls=style, label=name)
        axis.set_xticks(range(len(groups)), [group.kind for group in groups], rotation=30)
        axis.set_title(f"{each.dataset}, {each.network}")
    axes[0][0].set_ylabel("pixel AUC")
    handles = [plt.Line2D([], [], marker="o", ls="", color=colour, label=loss) for loss, colour in _COLOURS.items()]
    lines = [plt.Line2D([], [], color="black", ls=s, label=n) for n, s in (("teacher", "-"), ("centre prior", "--"))]
    figure.legend(handles=[*handles, *lines], loc="center left", bbox_to_anchor=(0.92, 0.5))
    return _saved(figure, results, "paper-centre-prior.png")


def _betas(found: Results, results: Path) -> str:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5, 3.2))
    for sweep, style in zip(found.sweeps, ("-", "--", ":", "-.") * len(found.sweeps), strict=False):
        for colour, (metric, values) in enumerate(sweep.values.items()):
            label = f"{sweep.dataset}, {sweep.network}, {sweep.kind}, {sweep.loss}: {metric.rsplit('/', 1)[-1]}"
            axis.plot(sweep.betas, values, style, marker="o", ms=3, color=f"C{colour}", label=label)
    axis.set_xscale("symlog", linthresh=10)
    axis.set_xlabel("beta (0: no matching)")
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return _saved(figure, results, "paper-beta.png")


def _maps(context: Context, key: tuple[str, str, str], losses: Sequence[str], results: Path) -> str:
    """The same images, first seed: the teacher's Grad-CAM and that of every student of one kind."""
    dataset, network, kind = key
    units = {loss: Unit("student", dataset, network, 0, kind, loss) for loss in losses}
    if not all(context.done(unit) for unit in units.values()):
        return ""
    teacher = teacher_of(units["none"])
    shown = _shown_pairs(context, [teacher, *units.values()])
    columns = {"teacher": read_maps(teacher, context)["grad-cam"][shown]}
    columns |= {loss: read_maps(unit, context)["grad-cam"][shown] for loss, unit in units.items()}
    return _grid(context, teacher, shown, columns, results / f"paper-maps-{dataset}-{network}-{kind}.png")


def _methods(context: Context, key: tuple[str, str], kinds: Any, results: Path) -> str:
    """The same images under every method, for the teacher and two students of structured pruning."""
    units = {loss: Unit("student", *key, 0, "structured", loss) for loss in ("none", "swa")}
    if "structured" not in kinds or not all(context.done(unit) for unit in units.values()):
        return ""
    teacher = teacher_of(units["none"])
    everything = {"teacher": teacher, **units}
    first = len(read_maps(teacher, context).get("lrp", ()))
    shown = _shown_pairs(context, list(everything.values()), first)
    columns = {
        f"{method}, {name}": read_maps(unit, context)[method][shown]
        for method in read_maps(teacher, context)
        for name, unit in everything.items()
    }
    return _grid(context, teacher, shown, columns, results / f"paper-methods-{'-'.join(key)}.png")


def _shown_pairs(context: Context, units: Sequence[Unit], first: int | None = None) -> list[int]:
    """The first pairs that all predict, of whichever classes; not chosen by how their maps look."""
    predicted = np.all([read_unit(unit, context).columns["predicted"] > 0 for unit in units], axis=0)[:first]
    return [int(index) for index in np.flatnonzero(predicted)[:_IMAGES]]


def _grid(
    context: Context, teacher: Unit, shown: Sequence[int], columns: dict[str, npt.NDArray[Any]], file: Path
) -> str:
    import matplotlib.pyplot as plt

    if not shown:
        return ""
    asked = context.setting(teacher).asked
    size = (1.15 * (len(columns) + 1), 1.2 * len(shown))
    figure, axes = plt.subplots(len(shown), len(columns) + 1, figsize=size, squeeze=False)
    side = asked.images.pixels.shape[1:3]
    for row, pair_index in enumerate(shown):
        image, kind = asked.pairs[pair_index]
        pixels = asked.images.pixels[image]
        axes[row][0].imshow(pixels)
        axes[row][0].set_ylabel(asked.images.classes[kind])
        for column, (name, maps) in enumerate(columns.items(), start=1):
            axis = axes[row][column]
            large = unit_max(upsample_bilinear(maps[row : row + 1], *side))[0]
            axis.imshow(pixels.mean(axis=2), cmap="gray")
            axis.imshow(large, cmap=_MAP_COLOURS, alpha=0.6, vmin=0, vmax=1)
            if row == 0:
                axis.set_title(name.replace(", ", "\n"), fontsize=7)
        if (image, kind) in asked.images.masks:
            for axis in axes[row]:
                axis.contour(asked.images.masks[image, kind], levels=[0.5], colors="white", linewidths=0.7)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
    return _saved(figure, file.parent, file.name)
