"""A program of `torch.export.save` (.pt2): the forward pass as a graph, without the classes it was written in."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx

from edgekit.core.canonical import parse_strict
from edgekit.errors import BadInputError, IntegrityError
from edgekit.teacher.capabilities import GRAPH_ONLY
from edgekit.teacher.formats.graph_network import check_batch, graph_network
from edgekit.teacher.formats.model_path import CARD_NAME, ModelPath, rebuilt_archive
from edgekit.teacher.formats.protocol import Content
from edgekit.teacher.formats.pt2_checks import safe_program
from edgekit.teacher.load_options import LoadOptions

__all__ = ["FORMAT", "ExportedProgram", "quiet_torch", "stored_card"]


class ExportedProgram:
    """A torch.export program."""

    name = "torch.export program"
    capabilities = GRAPH_ONLY

    def recognises(self, found: ModelPath) -> bool:
        """A zip with the members that torch.export.save writes."""
        return found.is_exported_program

    def load(self, found: ModelPath, options: LoadOptions) -> Content:  # noqa: ARG002 - it says all there is to say
        """Check the archive, load what is left of it, and give its graph modules that hooks can hold on to."""
        card = stored_card(found, "extra/")
        safe = safe_program(found)
        try:
            with quiet_torch():
                program = torch.export.load(rebuilt_archive(safe.members))
                graph: Any = program.module()
        except Exception as cause:  # torch raises nearly anything on a program that is not what it expects
            raise found.damaged(cause) from cause
        size = _input_size(graph, found.path)
        network, notes = graph_network(graph, safe.outputs, found.path)
        return Content(network, card, self.name, size=size, notes=notes)


def _input_size(graph: fx.GraphModule, path: Path) -> tuple[int, int] | None:
    """Height and width where the program fixes them.

    Raises:
        BadInputError: It takes no batch of images, or a batch of one size only.
    """
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    shapes: list[Any] = [getattr(node.meta.get("val"), "shape", ()) for node in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3:
        raise BadInputError(
            "The program does not take a batch of images.",
            where=str(path),
            expected="one input [N, 3, H, W]",
            found=", ".join(str(list(shape)) for shape in shapes) or "no input",
        )
    check_batch(shapes[0][0], path)
    _, _, height, width = shapes[0]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def stored_card(found: ModelPath, folder: str) -> Mapping[str, Any]:
    """The card that lies in the file as "edgekit.card.json", or nothing.

    Raises:
        BadInputError: It is there and not JSON.
    """
    if folder + CARD_NAME not in found.members:
        return {}
    data = found.archive()[folder + CARD_NAME]
    try:
        content = parse_strict(data, where=f"{found.path}: {CARD_NAME}")
    except IntegrityError as cause:
        raise BadInputError(
            "The card in the model file cannot be read.", where=f"{found.path}: {CARD_NAME}", found=cause.message
        ) from cause
    if not isinstance(content, Mapping):
        raise BadInputError("The card in the model file is no mapping.", where=f"{found.path}: {CARD_NAME}")
    return content


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Without torch's advice and logs: what fails is raised, and told in our words."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


FORMAT = ExportedProgram()
