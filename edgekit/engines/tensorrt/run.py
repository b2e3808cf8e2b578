"""The runner: a plan behind the same protocol as every other engine's artifact."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edgekit.engines.asking import asked_classes, check_classes, check_images, engine_output
from edgekit.engines.protocol import EngineInfo, EngineOutput
from edgekit.engines.tensorrt.binding import TensorRt, load_tensorrt
from edgekit.engines.tensorrt.graph_recording import GraphRecording
from edgekit.engines.tensorrt.lifetimes import closed_after_objects
from edgekit.engines.tensorrt.machine import machine_facts
from edgekit.engines.tensorrt.memory import DeviceMemory, open_memory
from edgekit.engines.tensorrt.plan_file import PlanHeader, check_plan_fits, read_plan
from edgekit.engines.tensorrt.running import RunOptions, check_sharing
from edgekit.engines.tensorrt.session import GpuTimes, PlanSession, load_plan, session_signature
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import BadInputError
from edgekit.interface.batches import batch_places, filled

__all__ = ["TensorRtRunner", "open_plan"]


def open_plan(artifact: Path, options: RunOptions | None = None, device: int = 0) -> TensorRtRunner:
    """Open an artifact.

    Args:
        artifact: The plan with its header.
        options: How it runs, for measurements beside each other; None for what its header says, as it was verified.
        device: Number of the GPU among those that CUDA shows.

    Raises:
        BadInputError: It cannot be read, or the device cannot share memory as the options want.
        IntegrityError: It is damaged, or no explained graph's.
        UnavailableError: TensorRT, a CUDA package or a device is not here, or the plan was built for another.
    """
    header, plan = read_plan(artifact)
    tensorrt = load_tensorrt()
    options = options or header.run
    memory = open_memory(options.cuda_package, device)
    with closed_after_objects(memory, keep=True):
        check_plan_fits(header, tensorrt.text, memory.facts, str(artifact))
        check_sharing(options, memory.facts, str(artifact))
        with memory.active():
            session = _open_session(tensorrt, memory, (header, plan), str(artifact), options)
    return TensorRtRunner(session, header, tensorrt.text, options)


def _open_session(
    tensorrt: TensorRt, memory: DeviceMemory, artifact: tuple[PlanHeader, bytes], where: str, options: RunOptions
) -> PlanSession:
    header, plan = artifact
    here = f"TensorRT {tensorrt.text} on {memory.facts.name} (SM {memory.facts.sm})"
    loaded = load_plan(tensorrt, header, plan, where, here)
    try:
        signature = session_signature(tensorrt, loaded.engine, where)
        loaded.create_context(where)
        graphs = GraphRecording.of(options, captures=memory.captures_graphs, dla_core=header.dla_core)
        return PlanSession(memory, loaded, signature, zero_copy=options.zero_copy, graphs=graphs)
    except BaseException:
        loaded.close()
        raise


class TensorRtRunner:
    """A runner over one plan. A batch that is larger than the engine takes is run in parts."""

    def __init__(self, session: PlanSession, header: PlanHeader, version: str, options: RunOptions) -> None:
        self._session = session
        self._header = header
        self._version = version
        self._options = options
        self._machine = machine_facts()
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        """What is running, and what it was built as."""
        facts = self._session.memory.facts
        return EngineInfo(
            engine="tensorrt",
            runtime=f"TensorRT {self._version}",
            device=f"{facts.name} (SM {facts.sm})",
            details={
                "notice": NEVER_RUN,
                "gpu": facts.to_dict(),
                "machine": self._machine.to_dict(),
                "memory": self._session.memory.name,
                "run": self._options.to_dict(),
                "cuda_graph": self._session.graphs.to_dict(),
                "batches": [vars(each) for each in self._session.signature.profiles],
                "plan": self._header.to_dict(),
            },
        )

    @property
    def gpu_times(self) -> GpuTimes | None:
        """GPU time of the last part of the last batch; None before the first."""
        return self._session.times

    def run(self, images: npt.NDArray[np.float32], class_index: npt.NDArray[np.int32]) -> EngineOutput:
        """Answer one batch; see `Runner.run`."""
        if self._closed:
            raise BadInputError("The engine was closed before it was asked to run.")
        signature = self._session.signature
        check_images(images, signature.image)
        if not len(images):
            raise BadInputError("There is nothing to run.", expected="at least one image", found="an empty batch")
        asked = asked_classes(class_index, len(images), signature.columns)
        # Before it runs: a GPU reads beside the table of weights where a processor would complain.
        check_classes(asked, signature.classes)
        _, largest = self._session.profile_for(len(images))
        places = batch_places(len(images), max(1, min(len(images), largest.largest)))
        parts = [self._part(images[place], asked[place]) for place in places]
        return engine_output(parts, asked, signature.columns)

    def _part(self, images: npt.NDArray[np.float32], asked: npt.NDArray[np.int32]) -> list[npt.NDArray[np.float32]]:
        profile, sizes = self._session.profile_for(len(images))
        count = max(len(images), sizes.smallest)
        outputs = self._session.run(filled(images, count), filled(asked, count), profile)
        return [output[: len(images)] for output in outputs]

    def close(self) -> None:
        """Release everything on the device."""
        self._closed = True
        self._session.close()

    def __enter__(self) -> TensorRtRunner:
        """The runner itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the runner."""
        self.close()
