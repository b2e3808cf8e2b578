"""`device build` over stand-ins of every TensorRT: our code runs, no TensorRT does, and no time is looked at."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device_candidates import any_version, candidate, device_stand_in, replanned, run_on_device
from fake_cuda.faults import Faults, ParserFault
from fake_tensorrt.install import MISSING_LIBRARIES, installed
from tensorrt_stand_ins import PAIRS, quantised_graph

from edgekit.bundle import layout
from edgekit.core.digests import digest_bytes, digest_file
from edgekit.device.evidence import EVIDENCE_NAME, read_evidence
from edgekit.device.plan import DevicePlan
from edgekit.engines.tensorrt.plan_file import read_plan
from edgekit.engines.tensorrt.probe import look
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import BadInputError, EdgekitError, IntegrityError, UnavailableError

V10 = PAIRS[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidate for every version that there is a stand-in for."""
    made = candidate(tmp_path_factory.mktemp("host"))
    return replanned(made.folder, tmp_path_factory.mktemp("any") / "bundle", any_version)


@pytest.mark.parametrize(("version", "interface"), PAIRS, ids=str)
def test_every_version_builds_verifies_times_and_tells(
    version: str, interface: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with device_stand_in(version, interface, monkeypatch, tmp_path):
        evidence = run_on_device(bundle, tmp_path / "out")
    assert read_evidence(tmp_path / "out" / EVIDENCE_NAME) == evidence
    assert evidence.notice == NEVER_RUN
    told = evidence.device
    assert (told.module, told.base_module) == ("jetson-orin-nano-super", "jetson-orin-nano-8gb")
    assert (told.tensorrt.startswith(version), told.cuda, told.l4t) == (True, "12.6", "36.4.3")
    assert (told.power_mode, told.jetpack, told.gpu["name"]) == ("MAXN_SUPER", "6.2", "Orin")
    for name, said in evidence.candidates.items():
        assert said.verdict["outcome"] == "pass", name
        assert len(said.scores["sample"]) == 80
        path = tmp_path / "out" / said.engine
        assert evidence.files[said.engine].sha256 == digest_file(path)
        header, _ = read_plan(path)
        assert said.header == header.to_dict()
        assert header.tensorrt == told.tensorrt
        assert said.header["build"]["layers"]["count"] > 0
        assert said.header["build"]["notice"] == said.runtime["details"]["notice"] == NEVER_RUN
        assert len(evidence.latency.results[name].samples_ms) == 5
    # Typed by the graph from 11 on, by flags before.
    built = evidence.candidates["int8"].header["build"]
    assert built["precision"]["flags"] == ([] if version.startswith("11") else ["INT8", "FP16"])
    typed = digest_file(bundle / layout.HALF_MODEL)
    assert built["typed_graph"] == (typed if version.startswith("11") else "")


def test_the_command_line_of_the_host_is_that_of_the_device(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The host sizes no pools, and names the files of the bundle.
    plan = candidate(tmp_path / "host").plan
    with device_stand_in(*V10, monkeypatch, tmp_path):
        evidence = run_on_device(bundle, tmp_path / "out")
    for name, build in plan.builds.items():
        host, device = (
            {word for word in shlex.split(line) if not word.startswith(("--memPoolSize", "--onnx", "--saveEngine"))}
            for line in (build.trtexec["10.3.0"], evidence.candidates[name].header["build"]["trtexec"])
        )
        assert host == device


def test_work_that_is_done_is_not_done_again(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with device_stand_in(*V10, monkeypatch, tmp_path):
        first = run_on_device(bundle, tmp_path / "out")
        asked = []
        monkeypatch.setattr("edgekit.engines.tensorrt.engine.build_within_limit", lambda *a, **k: asked.append(a))
        second = run_on_device(bundle, tmp_path / "out")
    assert asked == []
    assert first.candidates == second.candidates


def _refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: Faults | None = None, **options: Any
) -> EdgekitError:
    """What `device build` raises; no evidence may be left behind, old or new."""
    out = tmp_path / "out"
    out.mkdir()
    with device_stand_in(*V10, monkeypatch, tmp_path, faults), pytest.raises(EdgekitError) as caught:
        run_on_device(path, out, **options)
    assert not (out / EVIDENCE_NAME).exists()
    assert caught.value.message
    assert caught.value.found or caught.value.expected
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("device", ["agx-orin-64gb", "thor"])
def test_the_plan_of_another_device(device: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = _refused(bundle, tmp_path, monkeypatch, device=device)
    assert isinstance(error, UnavailableError)
    assert "another device" in error.message


def test_the_plan_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = candidate(tmp_path / "host")
    stand_in, refused = device_stand_in("11.4.0.106", "pycuda", monkeypatch, tmp_path), pytest.raises(UnavailableError)
    with stand_in, refused as caught:
        run_on_device(made.folder, tmp_path / "out")
    assert "other versions of TensorRT" in caught.value.message
    assert "11.4.0.106" in str(caught.value.found)


def test_a_corrupt_plan(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = replanned(bundle, tmp_path / "copy", lambda plan: plan)
    path = copy / "device" / "plan.json"
    path.write_bytes(path.read_bytes().replace(b"10", b"11", 1))
    with pytest.raises(IntegrityError, match="was changed"):
        run_on_device(copy, tmp_path / "out")


def _graph(data: bytes) -> Callable[[DevicePlan], DevicePlan]:
    """The plan about another Q/DQ graph."""
    digest = digest_bytes(data)

    def change(plan: DevicePlan) -> DevicePlan:
        builds = {**plan.builds, "int8": replace(plan.builds["int8"], sha256=digest)}
        return replace(plan, builds=builds, inputs={**plan.inputs, "engine/model.onnx": digest})

    return change


@pytest.mark.parametrize("left", [0.0, 0.3, 0.9])
def test_a_truncated_graph(left: float, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (bundle / "engine" / "model.onnx").read_bytes()
    data = whole[: int(left * len(whole))]
    path = replanned(bundle, tmp_path / "cut", _graph(data), model=data)
    with device_stand_in(*V10, monkeypatch, tmp_path), pytest.raises(BadInputError) as caught:
        run_on_device(path, tmp_path / "out")
    assert "model.onnx" in str(caught.value.where)


@pytest.mark.parametrize("batches", [(1, 2, 4), (3, 3, 5)], ids=str)
def test_batches_outside_the_profile_are_run_in_parts(
    batches: tuple[int, int, int], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(plan: DevicePlan) -> DevicePlan:
        builds = {
            name: replace(build, options=replace(build.options, batches=batches)) for name, build in plan.builds.items()
        }
        return replace(plan, builds=builds)

    with device_stand_in(*V10, monkeypatch, tmp_path):
        evidence = run_on_device(replanned(bundle, tmp_path / "other", other), tmp_path / "out")
    assert {said.verdict["outcome"] for said in evidence.candidates.values()} == {"pass"}
    assert evidence.candidates["int8"].header["build"]["batches"] == list(batches)


def test_images_outside_the_profile(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = quantised_graph()
    for value in (model.graph.input[0], model.graph.output[1]):
        for side in value.type.tensor_type.shape.dim[-2:]:
            side.dim_value = 6
    data = model.SerializeToString()
    path = replanned(bundle, tmp_path / "large", _graph(data), model=data)
    with device_stand_in(*V10, monkeypatch, tmp_path), pytest.raises(EdgekitError) as caught:
        run_on_device(path, tmp_path / "out")
    assert not (tmp_path / "out" / EVIDENCE_NAME).exists()
    assert "4" in str(caught.value.found)
    assert "6" in str(caught.value.expected)


@pytest.mark.parametrize(
    ("faults", "kind"),
    [
        # All but a few MiB of the device's memory is taken by others.
        (Faults(build_memory=64 << 30), UnavailableError),
        (Faults(engine_memory=64 << 30), UnavailableError),
        (Faults(build_fails="[graph] could not find any implementation for node conv"), EdgekitError),
        (Faults(parser=(ParserFault(4),)), BadInputError),
        (Faults(null_factory=True), UnavailableError),
    ],
    ids=["memory to build", "memory to run", "no plan", "parser", "no builder"],
)
def test_what_goes_wrong_on_the_device_is_our_error(
    faults: Faults, kind: type, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(_refused(bundle, tmp_path, monkeypatch, faults), kind)


def test_missing_libnvinfer(bundle: Path, tmp_path: Path) -> None:
    absent = installed("10.3.0", ("pycuda",), broken=MISSING_LIBRARIES)
    with absent, pytest.raises(UnavailableError, match="TensorRT does not work here") as caught:
        run_on_device(bundle, tmp_path / "out", look=look)
    assert "libnvinfer.so.10" in str(caught.value.found)
    assert "python3-libnvinfer" in str(caught.value.hint)


def test_a_folder_inside_the_bundle_is_no_output(bundle: Path) -> None:
    with pytest.raises(BadInputError, match="inside the bundle"):
        run_on_device(bundle, bundle / "out")
    assert not (bundle / "out").exists()


def test_a_file_of_somebody_else_is_not_replaced(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / EVIDENCE_NAME).write_text("{}")
    with device_stand_in(*V10, monkeypatch, tmp_path), pytest.raises(BadInputError, match="would be lost"):
        run_on_device(bundle, tmp_path / "out")
    assert (tmp_path / "out" / EVIDENCE_NAME).read_text() == "{}"


def test_what_is_no_candidate(tmp_path: Path) -> None:
    stored = Path(__file__).resolve().parents[1] / "golden" / "bundle-1.tar"
    with pytest.raises(BadInputError, match="no candidate"):
        run_on_device(stored, tmp_path / "out")
