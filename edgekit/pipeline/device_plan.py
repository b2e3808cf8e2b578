"""The device plan of a candidate: what the host knows of target, graphs and options, written down for the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit import __version__
from edgekit.attribution.spec import MapSpec
from edgekit.bench.options import LatencyOptions
from edgekit.bundle import layout
from edgekit.core.digests import digest_bytes, digest_file
from edgekit.core.files import read_bytes
from edgekit.device.candidate import GOLDEN_INPUT
from edgekit.device.plan import DevicePlan, PlannedBuild, VersionRange
from edgekit.engines.half_graph import half_graph_beside
from edgekit.engines.tensorrt.binding import TensorRt, absent_tensorrt
from edgekit.engines.tensorrt.builder_config import BuildChoices
from edgekit.engines.tensorrt.graph_source import builds_typed
from edgekit.engines.tensorrt.memory_pools import MemoryPools
from edgekit.engines.tensorrt.network import NetworkShapes
from edgekit.engines.tensorrt.onnx_outline import OnnxOutline, read_outline
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.precision import choose_precision
from edgekit.engines.tensorrt.settings import TensorRtSettings
from edgekit.engines.tensorrt.stored_scales import cache_from_scales
from edgekit.engines.tensorrt.trtexec import trtexec_command
from edgekit.errors import BadInputError, UnavailableError
from edgekit.interface.card import ModelCard
from edgekit.jetson.releases import Release, numbers_of
from edgekit.targets.dla import require_dla
from edgekit.targets.support import usable_releases
from edgekit.targets.target import Target

__all__ = ["PlanRequest", "PlannedDevice", "plan_device", "target_versions"]

_ROUNDS = 10


@dataclass(frozen=True)
class PlanRequest:
    """What is planned.

    Attributes:
        target: The target.
        quantised: File of the Q/DQ graph.
        reference: File of the FP32 graph.
        scales: File of the scale table.
        float16: File of the FP32 graph with FP16 types; None where there is none.
        golden: SHA-256 of the golden set's folder, as it will lie in the bundle.
        documents: Bundle path to bytes of policy and recipe.
        card: Of the network that ships.
        map_spec: Of its maps.
        batch: The batch of a graph that takes one size alone; 0 where it takes any.
        latency_runs: Timed runs of each engine.
        round_s: Shortest time of a block of them, seconds; see `LatencyOptions`.
        tensorrt: How TensorRT builds.
    """

    target: Target
    quantised: Path
    reference: Path
    scales: Path
    float16: Path | None
    golden: str
    documents: Mapping[str, bytes]
    card: ModelCard
    map_spec: MapSpec
    batch: int
    latency_runs: int
    round_s: float = 0.0
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)

    @property
    def typed(self) -> Path | None:
        """File of the Q/DQ graph with FP16 types, where calibration could write one."""
        path = half_graph_beside(self.quantised)
        return path if path.is_file() else None

    @property
    def graphs(self) -> dict[str, tuple[str, Path]]:
        """Precision to bundle path and file of what is built, in the order that it is built in."""
        half = {"fp16": (layout.FLOAT16_MODEL, self.float16)} if self.float16 is not None else {}
        return {"int8": (layout.MODEL, self.quantised), **half, "fp32": (layout.REFERENCE, self.reference)}


@dataclass(frozen=True)
class PlannedDevice:
    """A plan with the files that it names.

    Attributes:
        plan: The plan.
        contents: Bundle path to bytes: the plan itself, command lines and calibration caches.
    """

    plan: DevicePlan
    contents: Mapping[str, bytes]


def target_versions(target: Target) -> tuple[str, ...]:
    """TensorRT versions that a target's usable JetPack releases bring or take, oldest first.

    Raises:
        UnavailableError: No release is known to bring one.
    """
    releases = _releases(target)
    told = {version for release in releases for version in (release.tensorrt, *release.also_tensorrt) if version}
    if not told:
        raise UnavailableError(
            f"No TensorRT is known that builds for {target.name!r}.",
            where=target.title,
            expected="a JetPack release that works on it",
            found="none",
            hint=f"'edgekit targets {target.name}' says what cannot work there, and why",
        )
    return tuple(sorted(told, key=numbers_of))


def plan_device(request: PlanRequest) -> PlannedDevice:
    """Write the plan, the command lines and the calibration caches.

    Raises:
        BadInputError: A graph or the scale table cannot be read.
        UnavailableError: No TensorRT is known that builds for the target, or for the DLA that is asked for.
    """
    versions = _versions(request)
    outlines = {name: read_outline(read_bytes(path), str(path)) for name, (_, path) in request.graphs.items()}
    caches, no_caches = _caches(request, versions, outlines["fp32"])
    names = {version: f"{layout.DEVICE_CACHES}/{version}.cache" for version in caches}
    plan = DevicePlan(
        created_with=__version__,
        target=request.target.name,
        modules=tuple(module.name for module in request.target.modules),
        tensorrt=VersionRange(versions[0], versions[-1], _basis(request.target)),
        operators={
            "name": request.target.operators or "",
            "opset": request.target.opset,
            "used": sorted({node.operator for outline in outlines.values() for node in outline.nodes}),
        },
        inputs=_inputs(request),
        builds={name: _build(request, name, outlines, versions) for name in outlines},
        caches=names,
        no_caches=no_caches,
        latency=LatencyOptions(
            warmup=request.latency_runs,
            rounds=min(_ROUNDS, request.latency_runs),
            iterations=-(-request.latency_runs // _ROUNDS),
            power=True,
            round_s=request.round_s,
        ),
    )
    contents = {names[version]: cache for version, cache in caches.items()}
    return PlannedDevice(
        plan, {layout.DEVICE_PLAN: plan.to_bytes(), layout.DEVICE_COMMANDS: _commands(plan), **contents}
    )


def _releases(target: Target) -> tuple[Release, ...]:
    return tuple(
        {release.jetpack: release for module in target.modules for release in usable_releases(module)}.values()
    )


def _basis(target: Target) -> str:
    return "what JetPack " + ", ".join(release.jetpack for release in _releases(target)) + " bring or take"


def _inputs(request: PlanRequest) -> dict[str, str]:
    return {
        GOLDEN_INPUT: request.golden,
        **{name: digest_file(path) for name, path in request.graphs.values()},
        layout.SCALES: digest_file(request.scales),
        **({layout.HALF_MODEL: digest_file(request.typed)} if request.typed else {}),
        **{name: digest_bytes(data) for name, data in request.documents.items()},
    }


def _versions(request: PlanRequest) -> tuple[str, ...]:
    core = request.tensorrt.dla_core
    return target_versions(request.target) if core is None else require_dla(request.target, core).versions


def _build(
    request: PlanRequest, precision: str, outlines: Mapping[str, OnnxOutline], versions: tuple[str, ...]
) -> PlannedBuild:
    graph, path = request.graphs[precision]
    options = request.tensorrt.build_options(precision)
    if request.batch:
        options = replace(options, batches=(request.batch,) * 3)
    typed = layout.HALF_MODEL if precision == "int8" and request.typed else ""
    half = read_outline(read_bytes(request.typed), str(request.typed)) if typed and request.typed else None
    unrounded = layout.REFERENCE if precision == "int8" and options.dla_core is not None else ""
    plan = Path(graph).with_suffix(".plan").name
    lines = {}
    for version in versions:
        tensorrt = absent_tensorrt(version)
        built, named, how = outlines[precision], graph, options
        if unrounded and tensorrt.dla_by_cache:
            cache = Path(f"{layout.DEVICE_CACHES}/{version}.cache")
            built, named, how = outlines["fp32"], unrounded, replace(options, calibration_cache=cache)
        elif half is not None and builds_typed(tensorrt, options):
            # As on the device: the graph with FP16 types where a network is strongly typed.
            built, named = half, typed
        lines[version] = _command(request, tensorrt, built, how, (named, plan))
    return PlannedBuild(graph, digest_file(path), options, lines, typed, unrounded)


def _command(
    request: PlanRequest, tensorrt: TensorRt, outline: OnnxOutline, options: BuildOptions, files: tuple[str, str]
) -> str:
    """Decided by the code that decides on the device; only what the device's memory decides is left out."""
    count = request.map_spec.classes
    columns = () if count == 1 else (count,)
    batch = request.batch or -1
    spec = request.card.input
    shapes = NetworkShapes((batch, 3, spec.height, spec.width), (batch, *columns))
    precision = choose_precision(tensorrt, outline, options, files[0])
    pools = MemoryPools(0, options.workspace, options.tactic_dram or None)
    choices = BuildChoices(options, precision, pools, options.batches, shapes.free_batch)
    return trtexec_command(tensorrt, choices, shapes, files)


def _commands(plan: DevicePlan) -> bytes:
    """The command lines as a script, one case a TensorRT version."""
    lines = [
        "#!/bin/sh",
        "# The builds of device/plan.json as command lines of NVIDIA's trtexec, for a copy of the bundle's folder.",
        f"# {plan.notice}.",
        "# What trtexec builds has no header of edgekit's: it can be timed, and not attached.",
        'case "${1:?say which TensorRT, such as 10.3.0}" in',
    ]
    for version in plan.builds["int8"].trtexec:
        lines.append(f"{version})")
        lines += [f"  {build.trtexec[version]} &&" for build in plan.builds.values()]
        lines += ["  true ;;"]
    known = ", ".join(plan.builds["int8"].trtexec)
    lines += ["*)", f"  echo 'the plan knows TensorRT {known}' >&2", "  exit 2 ;;", "esac"]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _caches(request: PlanRequest, versions: tuple[str, ...], unrounded: OnnxOutline) -> tuple[dict[str, bytes], str]:
    """The scales as calibration caches for the implicit path of TensorRT 10 and before; or why there are none."""
    graph = digest_file(request.reference)
    caches = {}
    for version in versions:
        tensorrt = absent_tensorrt(version)
        if tensorrt.always_strong:
            continue
        for_dla = unrounded if request.tensorrt.on_dla and tensorrt.dla_by_cache else None
        try:
            caches[version] = cache_from_scales(request.scales, graph, tensorrt.version, for_dla)
        except BadInputError as cause:
            if for_dla is not None:
                # The DLA has no other way to INT8.
                raise
            return {}, f"{cause.message} The Q/DQ graph has the same scales."
    return caches, "" if caches else "TensorRT 11 takes no calibration cache"
