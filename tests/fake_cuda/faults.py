"""What can be made to go wrong. All off by default; tests set fields, the fakes look when they get there."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Faults", "ParserFault"]


@dataclass(frozen=True)
class ParserFault:
    """One error that the ONNX parser reports.

    Attributes:
        node: Index of the node that is blamed.
        message: The parser's words.
        code: Member of the version's `ErrorCode`.
    """

    node: int
    message: str = "Assertion failed: injected"
    code: str = "UNSUPPORTED_NODE"


@dataclass
class Faults:
    """Switches.

    Attributes:
        driver: Key of `fake_cuda.errors.CODES` that the driver's start answers with, such as
            "cudaErrorInsufficientDriver" or "cudaErrorNoDevice"; empty for a sound one.
        null_factory: `Builder`, `Runtime` and `OnnxParser` cannot make their object.
        parser: Errors of the parser.
        build_fails: The message with which the builder gives up and returns None.
        build_memory: Bytes of device memory that a build takes while it runs.
        engine_memory: Bytes of device memory that an execution context takes; None for what the network asks for.
        enqueue_fails: `execute_async_v3` logs this and answers False.
        launch_fails: The kernel fails on the device: the error shows at the next synchronisation, and stays.
        nan_outputs: Every floating output is NaN.
        hang_build: Seconds that the builder sits in one tactic (the progress monitor can end it between two steps).
        hang_deserialise: Seconds that `deserialize_cuda_engine` takes.
        hang_execution: Seconds during which work on a stream is not done. Queries say "not ready", waits wait.
        skipped_tactics: That many warnings of the builder about too little memory for a tactic.
        fallback_layers: Names of layers (substrings) that stay in FP32 whatever was asked for.
    """

    driver: str = ""
    null_factory: bool = False
    parser: tuple[ParserFault, ...] = ()
    build_fails: str = ""
    build_memory: int = 0
    engine_memory: int | None = None
    enqueue_fails: str = ""
    launch_fails: bool = False
    nan_outputs: bool = False
    hang_build: float = 0.0
    hang_deserialise: float = 0.0
    hang_execution: float = 0.0
    skipped_tactics: int = 0
    fallback_layers: tuple[str, ...] = ()
