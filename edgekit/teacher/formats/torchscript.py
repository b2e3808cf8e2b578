"""A TorchScript file (`torch.jit.save`): deprecated, and what many have. Turned into a graph as torch.export has them.

TorchScript is a language of its own that can do little but compute; what it can do besides, reading and writing files
and calling other machines, is looked for in the source before anything of it is run.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx

from edgekit.errors import BadInputError
from edgekit.teacher.capabilities import GRAPH_ONLY
from edgekit.teacher.card_entries import merged_entries
from edgekit.teacher.formats.exported_program import quiet_torch, stored_card
from edgekit.teacher.formats.graph_checks import check_graph
from edgekit.teacher.formats.graph_network import check_batch, graph_network
from edgekit.teacher.formats.model_path import ModelPath, rebuilt_archive
from edgekit.teacher.formats.protocol import Content
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.logits import named_outputs
from edgekit.teacher.weights import check_weights, raised_precision

__all__ = ["FORMAT", "TorchScript"]

# What may stand between two tokens. Texts and comments are searched like the rest: whoever could make them look like
# code, or code like them, would be believed otherwise.
_GAP = r"(?:\s|#[^\n]*\n|\\\r?\n)*"
_REFUSED = (
    # Calls with effects outside the program, of functions or of methods of a tensor.
    re.compile(rf"\b(from_file|load|save|rpc_\w+)(?={_GAP}\()"),
    # Classes and operations that are implemented outside of torch.
    re.compile(rf"\btorch{_GAP}\.{_GAP}(classes)\b"),
    re.compile(rf"(?<![\w.])(ops{_GAP}\.{_GAP}(?!aten\b|prim\b|prims\b|\s|#|\\)\w+)"),
)
_KEPT = ("byteorder", "code/", "constants.pkl", "constants/", "data.pkl", "data/", "version", ".data/")
_REMEDY = (
    "export the model with torch.export and dynamic_shapes for the batch, or save the state dict and pass "
    "--arch package.module:factory"
)


class TorchScript:
    """A traced or scripted network."""

    name = "TorchScript"
    capabilities = GRAPH_ONLY

    def recognises(self, found: ModelPath) -> bool:
        """A zip with code and constants."""
        return found.is_torchscript

    def load(self, found: ModelPath, options: LoadOptions) -> Content:
        """Look through its source, load it, convert it, and give its graph modules that hooks can hold on to."""
        card = stored_card(found, "extra/")
        archive = found.archive()
        for name, data in archive.items():
            if name.startswith("code/") and name.endswith(".py"):
                _check_source(data, name, found.path)
        size = _size(merged_entries(card, options.card, found.path), found.path)
        script = _loaded(archive, found)
        state = dict(script.state_dict())
        check_weights(state, found.path)
        raised = raised_precision(state)
        parameters = frozenset(name for name, _ in script.named_parameters())
        graph = _converted(script.float(), size, found.path)
        network, notes = graph_network(graph, _names(graph), found.path, parameters)
        return Content(network, card, self.name, notes=(*raised, *notes))


def _check_source(data: bytes, name: str, path: Path) -> None:
    source = data.decode("utf-8", errors="replace")
    found = next((match for pattern in _REFUSED if (match := pattern.search(source))), None)
    if found is not None:
        raise BadInputError(
            "The TorchScript file uses something that edgekit does not run from a file.",
            where=f"{path}: {name}",
            expected="operations of torch on tensors",
            found=found[1],
            hint="save the state dict and pass --arch package.module:factory",
        )


def _size(entries: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """The card's input size, which a TorchScript file does not know."""
    height, width = (entries["input"].get(name) for name in ("height", "width"))
    if not isinstance(height, int) or not isinstance(width, int) or not (0 < height <= 8192 and 0 < width <= 8192):
        raise BadInputError(
            "A TorchScript file does not tell the size of its input.",
            where=str(path),
            hint="give --input-size (and --mean, --std and --classes), or --card FILE",
        )
    return height, width


def _loaded(archive: Mapping[str, bytes], found: ModelPath) -> Any:
    # Debug files are pickles that nobody needs; extra files were read before.
    kept = {
        name: data
        for name, data in archive.items()
        if name.startswith(_KEPT) and not name.endswith((".debug_pkl", ".debug"))
    }
    try:
        with quiet_torch():
            script: Any = torch.jit.load(  # type: ignore[no-untyped-call]
                io.BytesIO(rebuilt_archive(kept).getvalue()), map_location="cpu"
            )
            script.eval()
            return script
    except Exception as cause:  # torch's reader raises nearly anything on bytes that are not what it expects
        raise found.damaged(cause) from cause


def _program(script: Any, probe: torch.Tensor) -> Any:
    # A private module of torch, needed for this format alone: without it every other format has to work.
    from torch._export.converter import TS2EPConverter

    class Converter(TS2EPConverter):
        """With a free batch and the sides of the image fixed: free sides fail for many networks."""

        def retrace_as_exported_program(self, gm: fx.GraphModule, name_to_constant: dict[str, Any]) -> Any:
            """Export what was converted; called by `convert`."""
            del name_to_constant  # As buffers they serve as well.
            return torch.export.export(gm, self.sample_args, dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False)

    return Converter(script, (probe,)).convert()


def _converted(script: Any, size: tuple[int, int], path: Path) -> fx.GraphModule:
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand((2, 3, *size), generator=generator)
    try:
        with quiet_torch(), torch.no_grad():
            expected = script(probe)
            program = _program(script, probe)
            graph: Any = program.module()
            given = graph(probe)
    except Exception as cause:  # the converter covers a part of the language, and says so in many ways
        raise BadInputError(
            "The TorchScript file cannot be turned into a graph.",
            where=str(path),
            expected=f"a network that runs on float32 [2, 3, {size[0]}, {size[1]}] without control flow on data",
            found=(str(cause).strip() or type(cause).__name__).splitlines()[0][:300],
            hint=_REMEDY,
        ) from cause
    # Before the answers are compared: where random numbers are drawn, they differ, and this says why.
    check_graph(graph.graph, path)
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    check_batch(inputs[0].meta["val"].shape[0], path)
    pairs = zip(named_outputs(expected).values(), named_outputs(given).values(), strict=True)
    if not all(isinstance(one, torch.Tensor) and torch.allclose(one, other, 1e-4, 1e-5) for one, other in pairs):
        raise BadInputError(
            "The graph made of the TorchScript file answers differently from the file.", where=str(path), hint=_REMEDY
        )
    return graph  # type: ignore[no-any-return]


def _names(graph: fx.GraphModule) -> tuple[str, ...]:
    output = next(node for node in graph.graph.nodes if node.op == "output")
    returned = output.args[0]
    count = len(returned) if isinstance(returned, (tuple, list)) else 1
    return tuple(str(index) for index in range(count))


FORMAT = TorchScript()
