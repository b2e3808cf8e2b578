"""Candidates for devices without any training: small graphs and a small golden set, laid out as a build leaves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx
import pytest
from fake_cuda.devices import DEVICES
from fake_cuda.faults import Faults
from fake_cuda.machine import FakeMachine
from fake_tensorrt.children import IMPORTABLE, child_environment
from jetson_devices import probe_of
from tensorrt_stand_ins import GRAPH, quantised_graph, stand_in
from tiny_golden import CARD, tiny_golden

from edgekit.bundle import layout
from edgekit.bundle.assemble import BundleRequest, bundle
from edgekit.bundle.golden import GoldenSet, write_golden
from edgekit.bundle.open import open_bundle
from edgekit.config.recipe import Recipe
from edgekit.core.canonical import dump_canonical, read_json, write_json
from edgekit.core.digests import digest_bytes, digest_file
from edgekit.core.environment import environment_print
from edgekit.core.progress import Observer
from edgekit.core.stages import StageRecord
from edgekit.device.build import DeviceBuildRequest, device_build
from edgekit.device.evidence import DeviceEvidence
from edgekit.device.plan import DevicePlan, VersionRange, read_plan_bytes
from edgekit.device.work import build_and_verify
from edgekit.engines.half_graph import FLOAT16_NAME, half_graph_beside
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.tensorrt.probe import look
from edgekit.half.typed import type_half
from edgekit.jetson.detect import read_jetson
from edgekit.jetson.releases import release_named
from edgekit.pipeline.device_candidate import CandidateRequest, CandidateResult, make_candidate
from edgekit.pipeline.folders import BuildFolders
from edgekit.policy.context import Baseline
from edgekit.policy.document import load_preset
from edgekit.policy.policy import Policy
from edgekit.targets.loader import resolve_target
from edgekit.verify.options import SelectOptions

__all__ = [
    "RECIPE",
    "any_version",
    "candidate",
    "device_stand_in",
    "edited",
    "float_graph",
    "here",
    "replanned",
    "run_on_device",
    "stages",
]

# A stand-in's times mean nothing: the choice must not hang on them.
RECIPE = Recipe(select=SelectOptions(latency_runs=5, max_latency_ratio=1000.0))


def float_graph() -> onnx.ModelProto:
    """The quantised graph without its pairs: unlike the stored graph it has an operation that FP16 can compute."""
    model = quantised_graph()
    rounded = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    restored = {
        node.output[0]: rounded[node.input[0]] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    kept = [node for node in model.graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    for node in kept:
        node.input[:] = [restored.get(name, name) for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    stored = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(stored)
    onnx.checker.check_model(model)
    return model


def stages(folder: Path, golden: GoldenSet | None = None, *, half: bool = False) -> BuildFolders:
    """What golden, export and calibrate would have left below `folder`, for the small stored graph.

    `half` takes a graph that can have FP16 types, and leaves that of the FP16 candidate as well.
    """
    folders = BuildFolders(folder)
    golden = golden or tiny_golden(80)
    write_golden(golden, folders.golden)
    for place in (folders.export, folders.calibrate):
        place.mkdir(parents=True)
    exported = float_graph().SerializeToString() if half else GRAPH.read_bytes()
    (folders.export / "model.onnx").write_bytes(exported)
    if half:
        lower = type_half(float_graph(), source=digest_bytes(exported)).model
        (folders.calibrate / FLOAT16_NAME).write_bytes(lower.SerializeToString())
    write_json(folders.export / "interface.json", {"card": CARD.to_dict(), "map": golden.map_spec.to_dict()})
    rounded = quantised_graph().SerializeToString()
    (folders.calibrate / "model.onnx").write_bytes(rounded)
    typed = type_half(onnx.load_model_from_string(rounded), source=digest_bytes(rounded)).model
    half_graph_beside(folders.calibrate / "model.onnx").write_bytes(typed.SerializeToString())
    write_json(
        folders.calibrate / "scales.json",
        {
            "format": "edgekit.scales/1",
            "graph": digest_file(folders.export / "model.onnx"),
            "number_format": "trt-s8s8",
            "activations": {"image": {"scale": 0.05, "zero_point": 0}},
        },
    )
    return folders


def _record(stage: str, **facts: Any) -> StageRecord:
    return StageRecord(stage, "1" * 64, {}, {}, {}, facts)


def candidate(
    folder: Path,
    target: str = "jetson-orin-nano",
    policy: str | Policy = "default",
    recipe: Recipe = RECIPE,
    baseline: Baseline | None = None,
    *,
    half: bool = False,
) -> CandidateResult:
    """A candidate bundle for a target, below `folder`."""
    wanted = CandidateRequest(
        folders=stages(folder, half=half),
        target=resolve_target(target),
        engine="tensorrt",
        recipe=recipe,
        policy=load_preset(policy) if isinstance(policy, str) else policy,
        options=EngineOptions(),
        records={
            "golden": _record("golden", model="tiny"),
            "compress": _record("compress", skipped="nothing to train"),
        },
        baseline=baseline,
    )
    return make_candidate(wanted)


def replanned(path: Path, destination: Path, change: Callable[[DevicePlan], DevicePlan], **contents: bytes) -> Path:
    """A sound bundle of the same files with another plan, as a host that knew better or worse would have made it.

    Args:
        path: The candidate's folder.
        destination: Where the other goes.
        change: Plan to plan.
        **contents: "model" or "reference" to other bytes of that graph; the plan names their digests.
    """
    with open_bundle(path) as opened:
        manifest = opened.manifest
        files: dict[str, Path | bytes] = {name: opened.path(name) for name in manifest.files}
        plan = read_plan_bytes(opened.read_bytes(layout.DEVICE_PLAN), where="plan")
        for name, data in contents.items():
            files[{"model": layout.MODEL, "reference": layout.REFERENCE}[name]] = data
        files[layout.DEVICE_PLAN] = change(plan).to_bytes()
        request = BundleRequest(
            target=manifest.target,
            engine=manifest.engine,
            precision=manifest.precision,
            status=manifest.status,
            card=manifest.card,
            map_spec=manifest.map_spec,
            contents=files,
            lineage=manifest.lineage,
        )
        bundle(request, destination)
    return destination


def any_version(plan: DevicePlan) -> DevicePlan:
    """The plan for every TensorRT that there is a stand-in for; the real ranges follow JetPack."""
    return replace(plan, tensorrt=VersionRange("8.5.2", "11.4", "the stand-ins"))


def here(bundle: Path, output: Path, silence_s: float, observer: Observer) -> None:
    """The work in this process, where the stand-ins are."""
    del silence_s
    build_and_verify(bundle, output, observer)


def run_on_device(path: Path, output: Path, device: str = "orin-nano-super", **options: Any) -> DeviceEvidence:
    """`device build` on a recorded device, with whatever stand-in is installed."""
    wanted: dict[str, Any] = {"probe": probe_of(device), "look": look, "work": here, **options}
    with patch("edgekit.device.build.environment_print", lambda: _environment_of(device)):
        return device_build(DeviceBuildRequest(path, output, **wanted))


def _environment_of(device: str) -> dict[str, Any]:
    """This machine's, with the Python of the device's JetPack, which its tensorrt module is for."""
    jetson = read_jetson(probe_of(device))
    release = release_named(jetson.jetpack) if jetson and jetson.jetpack else None
    found = environment_print()
    return {**found, "python": ".".join(map(str, release.python))} if release else found


@contextmanager
def device_stand_in(
    version: str,
    interface: str,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    faults: Faults | None = None,
    gpu: str = "orin-nano-8",
) -> Iterator[FakeMachine]:
    """A stand-in for a Jetson's TensorRT, in this process and in its children; caches lie in `folder`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for name, value in child_environment(version, (interface,), gpu, faults).items():
        monkeypatch.setenv(name, value)
    # Children get this process's search path.
    monkeypatch.syspath_prepend(str(IMPORTABLE))
    machine = FakeMachine(DEVICES[gpu], faults or Faults())
    with stand_in(version, interface, monkeypatch, machine) as there:
        yield there


def edited(folder: Path, change: Callable[[dict[str, Any]], None], *, sealed: bool) -> None:
    """Change the document of evidence in `folder`; `sealed` gives it the digest of what it then says."""
    path = folder / "evidence.json"
    raw = read_json(path)
    change(raw)
    if sealed:
        raw["digest"] = digest_bytes(dump_canonical({key: value for key, value in raw.items() if key != "digest"}))
    path.write_bytes(dump_canonical(raw))
