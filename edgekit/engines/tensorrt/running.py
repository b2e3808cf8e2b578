"""How a plan runs, as a person may choose it before it is built. It travels in the plan's header.

A plan is verified, timed and used by whoever opens it, on machines that never saw the recipe. So how it runs is not
asked of them: it stands in the artifact, under its digest, and all of them run it alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.engines.tensorrt.memory import MEMORIES, DeviceFacts
from edgekit.errors import BadInputError

__all__ = ["RunOptions", "check_sharing", "ran_in_words"]


@dataclass(frozen=True)
class RunOptions:
    """How a plan runs. Nothing here is meant to change an answer, and what runs so is what is verified.

    Which GPU is no part of it: that is the machine's, and CUDA_VISIBLE_DEVICES chooses there.

    Attributes:
        zero_copy: Let an integrated GPU (a Jetson's) work on the host's memory instead of copying. Measure both: which
            is faster depends on the network and the device.
        cuda_graph: Record the engine's work as a CUDA graph once a batch size comes for the second time in a row, where
            the CUDA package can and the engine does not run on the DLA. What became of it is told by the runner's info.
        cuda_package: Python package that reaches CUDA, "cuda-python" or "pycuda"; empty for the first that is there.
            The build takes the same.
    """

    zero_copy: bool = False
    cuda_graph: bool = True
    cuda_package: str = ""

    def __post_init__(self) -> None:
        if self.cuda_package not in ("", *MEMORIES):
            raise BadInputError(
                "A recipe value is out of range: tensorrt.run.cuda_package.",
                expected=", ".join(MEMORIES) + ", or '' for the first that is there",
                found=repr(self.cuda_package),
            )

    @classmethod
    def from_dict(cls, raw: object) -> RunOptions | None:
        """What `to_dict` gave; None where it is something else."""
        kinds = {"zero_copy": bool, "cuda_graph": bool, "cuda_package": str}
        if not isinstance(raw, Mapping) or {key: type(value) for key, value in raw.items()} != kinds:
            return None
        try:
            return cls(**raw)
        except BadInputError:
            return None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    def in_words(self) -> str:
        """For people."""
        said = ["on the host's memory" if self.zero_copy else "with copies"]
        said.append("as a CUDA graph where it can be recorded" if self.cuda_graph else "without a CUDA graph")
        return ", ".join([*said, *([f"by {self.cuda_package}"] if self.cuda_package else [])])


def check_sharing(options: RunOptions, device: DeviceFacts, where: str) -> None:
    """Refuse shared memory where there is none: before the minutes that a build takes, and before a plan is loaded.

    Raises:
        BadInputError: Host and device are to share their memory, and the GPU has its own.
    """
    if options.zero_copy and not device.integrated:
        raise BadInputError(
            "This GPU has memory of its own and cannot work on the host's.",
            where=where,
            expected="an integrated GPU for tensorrt.run.zero_copy",
            found=f"{device.name} (SM {device.sm}), with its own memory",
            hint="set tensorrt.run.zero_copy to false, and build",
        )


def ran_in_words(details: object) -> str:
    """How an engine ran, as its runner's info tells; for people.

    Args:
        details: `EngineInfo.details`, as stored; what does not tell gives an empty text.
    """
    run = RunOptions.from_dict(details.get("run")) if isinstance(details, Mapping) else None
    graph = details.get("cuda_graph") if isinstance(details, Mapping) else None
    if run is None or not isinstance(graph, Mapping):
        return ""
    return f"{run.in_words()}; CUDA graph {graph.get('state')}, {graph.get('launched')} of {graph.get('runs')} runs"
