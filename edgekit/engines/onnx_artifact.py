"""What engines share whose artifact is the explained ONNX graph itself: reading it, its signature, storing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgekit.core.files import read_bytes, write_bytes
from edgekit.engines.asking import expected_outputs
from edgekit.engines.protocol import EngineInfo, Runner
from edgekit.errors import BadInputError, IntegrityError

__all__ = ["ENGINE_NODE", "check_signature", "opened_info", "read_graph", "refusing_graphs", "store_graph"]

ENGINE_NODE = "EPContext"
"""Operator of the node that holds a compiled engine, as ONNX Runtime calls it."""

_INPUTS = {"image": "float32", "class_index": "int32"}

# The key that starts every TensorProto.external_data, as protobuf writes it (length 8, then the text). A runtime would
# look for the file it names in the working directory, and take whatever lies there for the weights.
_EXTERNAL_DATA = b"\x08location"


def read_graph(artifact: Path) -> bytes:
    """The bytes of an ONNX file that keeps its weights to itself.

    Raises:
        BadInputError: There is no such file.
        IntegrityError: Weights are in another file, which no digest of this one covers.
    """
    if not artifact.is_file():
        raise BadInputError("The engine file is missing.", where=str(artifact))
    model = read_bytes(artifact)
    if _EXTERNAL_DATA in model:
        raise IntegrityError(
            "The ONNX graph keeps weights in another file, which no digest of this one covers.",
            where=str(artifact),
            hint="save it as one file",
        )
    return model


def check_signature(inputs: Mapping[str, str], outputs: Sequence[str], artifact: Path) -> None:
    """Raise `IntegrityError` unless these are an explained graph's.

    Args:
        inputs: Name to element type, such as "float32".
        outputs: Names in their order.
        artifact: The file, for the message.
    """
    wanted = expected_outputs(len(outputs))
    if dict(inputs) != _INPUTS or list(outputs) != wanted:
        raise IntegrityError(
            "The ONNX graph is not an explained graph.",
            where=str(artifact),
            expected=f"inputs {_INPUTS}, outputs {wanted}",
            found=f"inputs {dict(inputs)}, outputs {list(outputs)}",
            hint="make it with 'edgekit export' or 'edgekit build'",
        )


@contextmanager
def refusing_graphs(engine: str) -> Iterator[None]:
    """Turn what is wrong with an artifact into what is wrong with the graph that an engine is built from.

    Raises:
        BadInputError: In place of `IntegrityError`.
    """
    try:
        yield
    except IntegrityError as cause:
        raise BadInputError(
            f"The engine {engine!r} cannot be built from this graph. {cause.message}",
            where=cause.where,
            expected=cause.expected,
            found=cause.found,
            hint=cause.hint,
        ) from cause


def store_graph(engine: str, graph: Path, artifact: Path, look: Callable[[Path], EngineInfo]) -> EngineInfo:
    """Build for an engine whose artifact is the graph itself: store it, once it has shown that it opens.

    Args:
        engine: Name of the engine, for messages.
        graph: The explained graph.
        artifact: Where it goes.
        look: Opens the graph with the engine and says what ran.

    Raises:
        BadInputError: The graph cannot be opened, or is not an explained graph; nothing was written.
        UnavailableError: The runtime is not here.
    """
    with refusing_graphs(engine):
        info = look(graph)
    write_bytes(artifact, read_bytes(graph))
    return info


def opened_info(runner: Runner) -> EngineInfo:
    """What a runner says of itself, which is closed then."""
    with runner:
        return runner.info
