"""Where the matched maps live: in the teacher, in the torch student, and in the graph that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from edgekit.calibrate.graph import ExplainedGraph
from edgekit.compress.options import MatchingOptions
from edgekit.errors import BadInputError
from edgekit.export.origin import output_tensors
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.discovery import resolve_tap
from edgekit.teacher.tap import Tap

__all__ = ["GraphTaps", "graph_taps", "matched_modules"]


@dataclass(frozen=True)
class GraphTaps:
    """Taps of the interpreted graph.

    Attributes:
        tensors: The tapped tensors, for `Interpreter`.
        taps: The interpreter's modules behind them.
    """

    tensors: tuple[str, ...]
    taps: tuple[Tap, ...]


def matched_modules(
    teacher: LoadedModel, student: LoadedModel, options: MatchingOptions, images: torch.Tensor
) -> tuple[tuple[Tap, ...], tuple[Tap, ...]]:
    """The matched taps of teacher and student.

    Raises:
        BadInputError: A tap is no module with a map, or the two name different numbers of them.
    """
    names: Sequence[str | None] = options.taps or (teacher.card.tap,)
    theirs = tuple(resolve_tap(teacher.model, name, images) for name in names)
    if options.student_taps and len(options.student_taps) != len(theirs):
        raise BadInputError(
            "Teacher and student must be matched at as many taps.",
            expected=", ".join(tap.name for tap in theirs),
            found=", ".join(options.student_taps),
        )
    ours = options.student_taps or tuple(tap.name for tap in theirs)
    return theirs, tuple(resolve_tap(student.model, name, images) for name in ours)


def graph_taps(graph: ExplainedGraph, taps: Sequence[Tap]) -> GraphTaps:
    """The same taps in the graph.

    Raises:
        BadInputError: The export merged a tapped module into another, so that its output is no tensor of the graph.
    """
    inside = set(graph.forward)
    known = {name: tensor for name, tensor in output_tensors(graph.model).items() if graph.producer[tensor] in inside}
    for tap in taps:
        if tap.name not in known:
            raise BadInputError(
                f"The output of {tap.name!r} is no tensor of the exported graph, so no map can be held there.",
                expected="one of " + ", ".join(list(known)[-8:]) + ", or an earlier one",
                hint="set compress.matching.taps to the module behind it",
            )
    return GraphTaps(
        tensors=tuple(known[tap.name] for tap in taps),
        taps=tuple(replace(tap, name=f"taps.{place}") for place, tap in enumerate(taps)),
    )
