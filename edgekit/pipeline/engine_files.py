"""Which files of a build are an engine: the one that ships, the graph it came from, and its FP32 partner."""

from __future__ import annotations

from pathlib import Path

from edgekit.bundle import layout
from edgekit.calibrate.stage import MODEL_NAME
from edgekit.engines.build import PLAN_ENGINES, artifact_name
from edgekit.engines.half_graph import FLOAT16_NAME, half_graph_beside
from edgekit.pipeline.candidates import CandidateId
from edgekit.pipeline.folders import BuildFolders

__all__ = ["artifact_path", "engine_contents", "graph_path", "has_half"]


def graph_path(folders: BuildFolders, precision: str) -> Path:
    """The explained graph that an engine of a precision, "int8", "fp16" or "fp32", is built from."""
    return {
        "int8": folders.final_calibrate / MODEL_NAME,
        "fp16": folders.final_calibrate / FLOAT16_NAME,
        "fp32": folders.final_export / "model.onnx",
    }[precision]


def has_half(folders: BuildFolders) -> bool:
    """Whether calibration left a graph for an FP16 candidate: for TensorRT's number format, and where FP16 suffices."""
    return graph_path(folders, "fp16").is_file()


def artifact_path(folders: BuildFolders, engine: str, candidate: str) -> Path:
    """The file that was built of a candidate.

    Args:
        folders: Where the stages lie.
        engine: Registry name of its engine.
        candidate: Its name.
    """
    return folders.engine(candidate) / artifact_name(engine)


def engine_contents(folders: BuildFolders, shipped: CandidateId, partner: str | None) -> dict[str, Path]:
    """What a bundle holds of the candidate that ships and of its FP32 partner, by `layout`.

    Where the artifact is no ONNX, the graphs travel too: others can build from them, and blame needs them.

    Args:
        folders: Where the stages lie.
        shipped: The candidate that ships.
        partner: Name of the FP32 candidate on the same engine; None where the one that ships is FP32.
    """
    engine = shipped.engine
    artifact = artifact_path(folders, engine, shipped.name)
    other = None if partner is None else artifact_path(folders, engine, partner)
    if engine not in PLAN_ENGINES:
        return {layout.MODEL: artifact} | ({} if other is None else {layout.REFERENCE: other})
    graph = graph_path(folders, shipped.precision)
    contents = {layout.MODEL: graph, layout.PLAN: artifact}
    if half_graph_beside(graph).is_file():
        contents[layout.HALF_MODEL] = half_graph_beside(graph)
    if other is not None:
        contents |= {layout.REFERENCE: graph_path(folders, "fp32"), layout.REFERENCE_PLAN: other}
    return contents
