"""Which file is built: the graph that was named, or the same one with FP16 types where types are all that counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekit.core.digests import digest_bytes
from edgekit.core.files import read_bytes
from edgekit.engines.half_graph import SOURCE_KEY
from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.network import GraphSource
from edgekit.engines.tensorrt.onnx_outline import read_outline
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.errors import BadInputError, IntegrityError

__all__ = ["builds_typed", "read_source", "typed_source"]


def read_source(graph: Path) -> GraphSource:
    """Read a graph.

    Raises:
        BadInputError: No ONNX graph, or one that keeps weights in another file.
    """
    data, where = read_bytes(graph), str(graph)
    outline = read_outline(data, where)
    if outline.external:
        raise BadInputError(
            "The engine 'tensorrt' cannot be built from this graph. It keeps weights in another file, which no digest "
            "of this one covers.",
            where=where,
            hint="save it as one file",
        )
    return GraphSource(where, data, outline)


def builds_typed(tensorrt: TensorRt, options: BuildOptions) -> bool:
    """Whether a graph with FP16 types is built where there is one.

    Weakly typed networks choose FP16 by a flag and take the graph as it is.
    """
    strong = tensorrt.always_strong or (options.typing == "strong" and tensorrt.may_be_strong)
    return strong and options.float_type != "fp32"


def typed_source(tensorrt: TensorRt, source: GraphSource, options: BuildOptions) -> GraphSource:
    """The file that is built: `options.half_graph` where `builds_typed`, else `source` itself.

    Raises:
        IntegrityError: The FP16-typed graph was made from another graph, or holds no FP16.
    """
    path = options.half_graph
    if path is None or not builds_typed(tensorrt, options) or source.outline.typed:
        return source
    typed = read_source(path)
    wanted, found = digest_bytes(source.data), typed.outline.metadata.get(SOURCE_KEY)
    if found != wanted or not typed.outline.typed:
        raise IntegrityError(
            "The graph with FP16 types does not stand for the graph that is built.",
            where=str(path),
            expected=f"FP16 types, and {SOURCE_KEY} {wanted}",
            found=f"{'FP16' if typed.outline.typed else 'FP32'} types, and {SOURCE_KEY} {found}",
            hint="calibrate again, which writes both, or leave half_graph away to build with FP32 types",
        )
    return replace(typed, stands_for=wanted)
