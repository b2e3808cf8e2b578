"""Building a plan: read, decide, let TensorRT build, inspect what came of it, and store both in one file.

Everything that can be refused is refused before TensorRT's builder starts: it takes minutes on a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.core.digests import digest_bytes
from edgekit.core.files import read_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.tensorrt.binding import TensorRt, load_tensorrt
from edgekit.engines.tensorrt.builder_config import BuildChoices, check_options, configure, profile_batches
from edgekit.engines.tensorrt.calibrator import make_calibrator
from edgekit.engines.tensorrt.dla import parser_flags, place_on_dla, tell_parser
from edgekit.engines.tensorrt.graph_source import read_source, typed_source
from edgekit.engines.tensorrt.inspection import EngineLayers, inspect_engine
from edgekit.engines.tensorrt.lifetimes import closed_after_objects
from edgekit.engines.tensorrt.machine import MachineFacts, available_memory, machine_facts
from edgekit.engines.tensorrt.memory import DeviceMemory, open_memory
from edgekit.engines.tensorrt.memory_pools import size_pools
from edgekit.engines.tensorrt.messages import Messages, build_failure, make_logger
from edgekit.engines.tensorrt.network import GraphSource, create_network, network_shapes, parse_graph
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.plan_file import PlanHeader, write_plan
from edgekit.engines.tensorrt.precision import Precision, choose_precision
from edgekit.engines.tensorrt.progress import make_monitor
from edgekit.engines.tensorrt.session import load_plan, session_signature
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.engines.tensorrt.stored_scales import cache_from_scales
from edgekit.engines.tensorrt.timed_build import TimedBuild
from edgekit.engines.tensorrt.trtexec import trtexec_command
from edgekit.errors import BadInputError, UnavailableError

__all__ = ["BuildRecord", "build_plan"]


@dataclass(frozen=True)
class BuildRecord:
    """How a plan came about: what stands in its header and goes into the evidence.

    Attributes:
        options: As asked for.
        choices: As decided.
        layers: As inspected afterwards.
        machine: Release and power mode it was built in.
        skipped_tactics: Kernels that were not tried for want of memory; a build with more free may be faster.
        warnings: How many TensorRT logged.
        timing_cache: What became of it: "none", "new", "used", or why it was not.
        gpu_layers: Layers that a build for the DLA leaves to the GPU.
        trtexec: The same build as a command line.
        typed_graph: SHA-256 of the FP16-typed graph that was built in place of the one named; empty for none.
    """

    options: BuildOptions
    choices: BuildChoices
    layers: EngineLayers
    machine: MachineFacts
    skipped_tactics: int
    warnings: int
    timing_cache: str
    gpu_layers: tuple[str, ...]
    trtexec: str
    typed_graph: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "notice": NEVER_RUN,
            "options": self.options.to_dict(),
            "precision": self.choices.precision.to_dict(),
            "pools": self.choices.pools.to_dict(),
            "batches": list(self.choices.batches),
            "layers": self.layers.to_dict(),
            "machine": self.machine.to_dict(),
            "skipped_tactics": self.skipped_tactics,
            "warnings": self.warnings,
            "timing_cache": self.timing_cache,
            "gpu_layers": list(self.gpu_layers),
            "trtexec": self.trtexec,
            "typed_graph": self.typed_graph,
        }


def build_plan(graph: Path, artifact: Path, options: BuildOptions, observer: Observer = NULL_OBSERVER) -> PlanHeader:
    """Build a plan on this device and write it with its header.

    Args:
        graph: An explained ONNX graph, FP32 or Q/DQ, in one file. `options.half_graph` is built in its place where
            networks are strongly typed.
        artifact: Where the plan goes; nothing is written unless all went well.
        options: What is asked for.
        observer: Told of progress where TensorRT tells it, and of what a user should know of the result.

    Raises:
        BadInputError: The graph cannot be built, or contradicts the options.
        IntegrityError: `options.half_graph` was made from another graph.
        UnavailableError: TensorRT, a CUDA package or a device is not here, cannot do it, or lacks memory.
    """
    named = read_source(graph)
    tensorrt = load_tensorrt()
    source = typed_source(tensorrt, named, options)
    precision = choose_precision(tensorrt, source.outline, options, source.where)
    memory = open_memory(options.memory or options.run.cuda_package, options.device)
    with closed_after_objects(memory, keep=False), memory.active():
        header, plan = _DeviceBuild(tensorrt, memory, source, options).run(precision, observer)
    write_plan(artifact, header, plan)
    _tell(header, observer)
    return header


class _DeviceBuild:
    """One build on an active device; everything of TensorRT's lives as long as `run`."""

    def __init__(self, tensorrt: TensorRt, memory: DeviceMemory, source: GraphSource, options: BuildOptions) -> None:
        self._tensorrt = tensorrt
        self._memory = memory
        self._source = source
        self._options = options
        self._machine = machine_facts()
        self._messages = Messages()

    def run(self, precision: Precision, observer: Observer) -> tuple[PlanHeader, bytes]:
        """The plan and its header."""
        tensorrt, options, source = self._tensorrt, self._options, self._source
        # Named until the end: the builder uses what it was given after the call that gave it returned.
        logger = make_logger(tensorrt, self._messages)
        builder = self._builder(logger)
        check_options(tensorrt, builder, self._memory.facts, options)
        network = create_network(tensorrt, builder, precision)
        config = builder.create_builder_config()
        place_on_dla(tensorrt, config, options)
        parser = tensorrt.module.OnnxParser(network, logger)
        tell_parser(tensorrt, parser, config, parser_flags(tensorrt, options))
        parse_graph(tensorrt, parser, self._messages, source)
        shapes = network_shapes(network, source.where)
        free = self._memory.free_bytes()
        pools = size_pools(
            self._memory.facts,
            free,
            available_memory(),
            len(source.data),
            workspace=options.workspace,
            tactic_dram=options.tactic_dram,
        )
        batches = profile_batches(shapes, options, source.where)
        choices = BuildChoices(options, precision, pools, batches, shapes.free_batch)
        configure(tensorrt, builder, network, config, choices)
        calibrator = self._calibrate(config)
        monitor = make_monitor(tensorrt, observer, self._messages)
        if monitor is not None:
            config.progress_monitor = monitor
        timed = TimedBuild.prepare(tensorrt, config, options, (self._memory.facts, self._machine))
        plan = self._built(builder, network, config, calibrator)
        left_over = _left_to_gpu(config, network) if options.dla_core is not None else ()
        told = timed.keep(config)
        header = self._header(plan)
        layers = self._inspected(header, plan)
        record = BuildRecord(
            options,
            choices,
            layers,
            self._machine,
            self._messages.skipped_tactics,
            len(self._messages.warnings),
            told,
            left_over,
            trtexec_command(tensorrt, choices, shapes),
            digest_bytes(source.data) if source.stands_for else "",
        )
        del config, parser, network, builder
        return replace(header, build=record.to_dict()), plan

    def _builder(self, logger: Any) -> Any:
        try:
            return self._tensorrt.module.Builder(logger)
        except TypeError as cause:  # what the bindings raise when the library answers with nothing
            raise UnavailableError(
                "TensorRT could not make a builder.",
                expected=f"a builder of TensorRT {self._tensorrt.text} on {self._memory.facts.name}",
                found=self._messages.summary(str(cause)),
                hint="run 'edgekit doctor'; most often the NVIDIA driver is missing or too old",
            ) from cause

    def _calibrate(self, config: Any) -> Any | None:
        options = self._options
        if options.scales is not None:
            digest = digest_bytes(self._source.data)
            for_dla = self._source.outline if options.dla_core is not None else None
            path = options.scales
            cache = cache_from_scales(path, digest, self._tensorrt.version, for_dla)
        elif options.calibration_cache is not None:
            cache, path = read_bytes(options.calibration_cache), options.calibration_cache
        else:
            return None
        calibrator = make_calibrator(self._tensorrt, cache, str(path))
        config.int8_calibrator = calibrator
        return calibrator

    def _built(self, builder: Any, network: Any, config: Any, calibrator: Any | None) -> bytes:
        built = builder.build_serialized_network(network, config)
        self._messages.raise_interruption()
        if calibrator is not None and calibrator.asked_for_images:
            raise BadInputError(
                "TensorRT did not take the calibration cache and asked for images instead.",
                where=str(self._options.scales or self._options.calibration_cache),
                found=self._messages.summary("no reason was logged"),
                hint="calibrate this very graph again, and build with its scales",
            )
        if built is None:
            raise build_failure(self._messages, self._source.where)
        return bytes(built)

    def _header(self, plan: bytes) -> PlanHeader:
        facts, options = self._memory.facts, self._options
        return PlanHeader(
            tensorrt=self._tensorrt.text,
            device=facts.name,
            capability=facts.capability,
            multiprocessors=facts.multiprocessors,
            l4t=self._machine.l4t,
            plan_sha256=digest_bytes(plan),
            graph_sha256=self._source.stands_for or digest_bytes(self._source.data),
            dla_core=options.dla_core,
            version_compatible=options.version_compatible,
            hardware_compatible=options.hardware_compatible,
            run=options.run,
        )

    def _inspected(self, header: PlanHeader, plan: bytes) -> EngineLayers:
        """Open what was built: what cannot be opened is found here, and what was built is known."""
        loaded = load_plan(self._tensorrt, header, plan, self._source.where, header.fits())
        try:
            session_signature(self._tensorrt, loaded.engine, self._source.where)
            return inspect_engine(self._tensorrt, loaded.engine, self._source.outline)
        finally:
            loaded.close()


def _left_to_gpu(config: Any, network: Any) -> tuple[str, ...]:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return tuple(str(layer.name) for layer in layers if not config.can_run_on_DLA(layer))


def _tell(header: PlanHeader, observer: Observer) -> None:
    """What a user should know of the plan."""
    build = header.build
    observer.noted(f"{NEVER_RUN}.")
    for note in build["precision"]["notes"]:
        observer.noted(f"TensorRT: {note}.")
    if build["options"]["profiling_verbosity"] == "detailed":
        _tell_layers(build["layers"], observer)
    else:
        observer.noted("The engine was built to say little of its layers: what they compute in is not known.")
    if build["skipped_tactics"]:
        observer.noted(
            f"TensorRT skipped {build['skipped_tactics']} kernels for want of memory; with more of it free the engine "
            "may be faster."
        )
    if build["gpu_layers"]:
        observer.noted(f"{len(build['gpu_layers'])} layers do not run on the DLA and go to the GPU.")


def _tell_layers(layers: Mapping[str, Any], observer: Observer) -> None:
    fell, unmatched = layers["fell_back"], layers["unmatched"]
    if fell["count"]:
        names = ", ".join(fell["names"][:5])
        observer.noted(f"TensorRT runs {fell['count']} quantised operations in another precision: {names}.")
    if unmatched["count"]:
        observer.noted(f"{unmatched['count']} quantised operations were not found in the engine's own description.")
