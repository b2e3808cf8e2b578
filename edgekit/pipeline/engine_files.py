"""Which files of a build are an engine: the one that ships, the graph it came from, and its FP32 partner."""

from __future__ import annotations

from pathlib import Path

from edgekit.bundle import layout
from edgekit.calibrate.stage import MODEL_NAME
from edgekit.engines.build import PLAN_ENGINES, artifact_name
from edgekit.engines.half_graph import half_graph_beside
from edgekit.pipeline.folders import BuildFolders

__all__ = ["artifact_path", "engine_contents", "graph_path"]


def graph_path(folders: BuildFolders, candidate: str) -> Path:
    """The explained graph that a candidate, "int8" or "fp32", is built from."""
    return folders.final_calibrate / MODEL_NAME if candidate == "int8" else folders.final_export / "model.onnx"


def artifact_path(folders: BuildFolders, engine: str, candidate: str) -> Path:
    """The file that was built from it."""
    return folders.engine(candidate) / artifact_name(engine)


def engine_contents(folders: BuildFolders, engine: str, chosen: str) -> dict[str, Path]:
    """What a bundle holds of the chosen candidate and its FP32 partner, by `layout`.

    Where the artifact is no ONNX, the graphs travel too: others can build from them, and blame needs them.
    """
    other = ("fp32",) if chosen == "int8" else ()
    if engine not in PLAN_ENGINES:
        names = {chosen: layout.MODEL, "fp32": layout.REFERENCE} if other else {chosen: layout.MODEL}
        return {name: artifact_path(folders, engine, candidate) for candidate, name in names.items()}
    contents = {layout.MODEL: graph_path(folders, chosen), layout.PLAN: artifact_path(folders, engine, chosen)}
    typed = half_graph_beside(contents[layout.MODEL])
    if typed.is_file():
        contents[layout.HALF_MODEL] = typed
    for candidate in other:
        contents[layout.REFERENCE] = graph_path(folders, candidate)
        contents[layout.REFERENCE_PLAN] = artifact_path(folders, engine, candidate)
    return contents
