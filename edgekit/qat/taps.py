"""Where the matched maps live: in the teacher, in the torch student, and in the graph that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from edgekit.calibrate.graph import ExplainedGraph
from edgekit.compress.matching.taps import MatchedTaps, matched_taps
from edgekit.compress.options import CompressOptions
from edgekit.errors import BadInputError
from edgekit.export.origin import output_tensors
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.discovery import resolve_taps
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
    teacher: LoadedModel, student: LoadedModel, compress: CompressOptions, images: torch.Tensor
) -> MatchedTaps:
    """The matched taps of teacher and student, as the compress stage had them; none where no map is matched.

    Raises:
        BadInputError: As `matched_taps`.
    """
    options = compress.matching
    # The agreement of maps is also what early stopping looks at.
    if (options.loss == "none" or options.beta == 0) and compress.finetune.patience == 0:
        return MatchedTaps((), ())
    card_taps = resolve_taps(teacher.model, teacher.card, images)
    if not (options.taps or options.student_taps) and student.card.tap is not None:
        # A student of another architecture has had its own taps settled, and its card names them.
        options = replace(options, student_taps=(student.card.tap, *student.card.further_taps))
    return matched_taps(teacher.model, student.model, card_taps, options, images)


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
