"""The device plan: what the host writes down, that no byte of it can change, and that it says what the device does."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from device_candidates import any_version, candidate, replanned
from fake_tensorrt.api import VERSIONS
from hypothesis import given
from hypothesis import strategies as st
from jetson_devices import probe_of
from tensorrt_stand_ins import GRAPH

from edgekit.bundle import layout
from edgekit.bundle.open import open_bundle
from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.device.candidate import candidate_plan, check_device
from edgekit.device.plan import DevicePlan, VersionRange, read_plan_bytes
from edgekit.engines.tensorrt.calibration_cache import read_calibration_cache, version_digits
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import BadInputError, EvidenceNeededError, IntegrityError, UnavailableError
from edgekit.jetson.detect import read_jetson
from edgekit.pipeline.device_candidate import CandidateResult
from edgekit.pipeline.device_installer import installer_script
from edgekit.pipeline.device_plan import target_versions
from edgekit.targets.loader import resolve_target, target_names
from edgekit.targets.site import device_engine, refuse_without_device


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CandidateResult:
    return candidate(tmp_path_factory.mktemp("host"))


def test_a_candidate_is_complete_and_says_what_it_lacks(made: CandidateResult) -> None:
    files = set(made.manifest.files)
    assert made.manifest.status == "unverified"
    assert {layout.MODEL, layout.REFERENCE, layout.SCALES, layout.POLICY, layout.GOLDEN_INDEX} <= files
    assert {layout.DEVICE_PLAN, layout.DEVICE_COMMANDS, layout.DEVICE_INSTALLER, layout.REHEARSAL} <= files
    # Nothing in it may be taken for evidence of the engine.
    assert not {layout.PLAN, layout.SCORES, layout.VERDICT, layout.LATENCY} & files
    assert made.archive.is_file()
    with open_bundle(made.archive) as opened:
        assert candidate_plan(opened) == made.plan
        assert opened.awaits_device
        told = opened.read_json(layout.REHEARSAL)
        with pytest.raises(EvidenceNeededError, match="no engine yet") as caught:
            _ = opened.model_path
    assert caught.value.exit_code == 6
    assert told["engine"] == "reference"
    assert NEVER_RUN in told["notice"]
    assert {name: told["candidates"][name]["outcome"] for name in ("int8", "fp32")} == {"int8": "pass", "fp32": "pass"}


def test_the_rehearsal_is_of_the_graphs_and_of_the_policy(tmp_path: Path) -> None:
    made = candidate(tmp_path, policy="strict")
    assert {told["outcome"] for told in made.rehearsal.values()} <= {"pass", "fail", "inconclusive"}
    assert made.rehearsal["fp32"]["mean_cosine"] == pytest.approx(1, abs=1e-6)
    assert made.rehearsal["int8"]["mean_cosine"] < made.rehearsal["fp32"]["mean_cosine"]


def test_the_plan_names_modules_versions_and_inputs(made: CandidateResult) -> None:
    plan = made.plan
    assert plan.modules == ("jetson-orin-nano-4gb", "jetson-orin-nano-8gb", "jetson-orin-nano-super")
    assert (plan.tensorrt.oldest, plan.tensorrt.newest) == ("8.6.2", "10.16.2")
    assert plan.operators["name"] == "tensorrt-8.6"
    assert {"Conv", "QuantizeLinear"} <= set(plan.operators["used"])
    assert plan.notice == NEVER_RUN
    for name, build in plan.builds.items():
        assert build.sha256 == made.manifest.files[build.graph].sha256, name
    assert plan.builds["int8"].typed == layout.HALF_MODEL
    assert plan.inputs[layout.HALF_MODEL] == made.manifest.files[layout.HALF_MODEL].sha256


def test_from_11_on_the_command_line_builds_the_typed_graph(tmp_path: Path) -> None:
    plan = candidate(tmp_path, target="jetson-thor").plan
    lines = plan.builds["int8"].trtexec
    assert f"--onnx={layout.HALF_MODEL}" in lines["11.4.1"]
    assert "--int8" not in lines["11.4.1"]
    assert f"--onnx={layout.MODEL}" in lines["10.13"]
    assert set(plan.caches) == {"10.13", "10.13.3.9", "10.16.2"}


@pytest.mark.parametrize("name", [name for name in target_names() if name.startswith("jetson-")])
def test_every_jetson_target_has_versions_or_is_refused(name: str) -> None:
    target = resolve_target(name)
    if "xavier" in name:
        with pytest.raises(UnavailableError, match="Nothing that is built"):
            device_engine(target)
        with pytest.raises(UnavailableError, match="No TensorRT is known"):
            target_versions(target)
        return
    assert device_engine(target) == "tensorrt"
    versions = target_versions(target)
    assert all(version in VersionRange(versions[0], versions[-1], "") for version in versions)


@pytest.mark.parametrize(("name", "engine"), [("cpu-x86", None), ("tensorrt", None), ("jetson-thor", "tensorrt")])
def test_only_a_jetson_is_left_to_the_device(name: str, engine: str | None) -> None:
    assert device_engine(resolve_target(name)) == engine
    # A Jetson builds for itself, and what it is not it refuses as before.
    assert device_engine(resolve_target(name), probe=probe_of("orin-nano-super")) is None


def test_a_release_is_refused_where_the_device_is_needed() -> None:
    with pytest.raises(EvidenceNeededError, match="needs evidence from the device") as caught:
        refuse_without_device(resolve_target("jetson-orin-nano"), where="build")
    assert caught.value.exit_code == 6
    refuse_without_device(resolve_target("cpu-x86"), where="build")


@pytest.mark.parametrize(
    ("version", "inside"),
    [
        ("8.6.1", False),
        ("8.6.2", True),
        ("10.3.0.26", True),
        ("10.16.2", True),
        ("10.16.2.10", True),
        ("10.16.3", False),
        ("11.4.1", False),
        ("", False),
        ("ten", False),
    ],
)
def test_versions_are_held_against_the_range(version: str, inside: bool) -> None:
    assert (version in VersionRange("8.6.2", "10.16.2", "")) is inside


def test_the_caches_have_the_scales_of_the_table_and_a_header_for_each_version(made: CandidateResult) -> None:
    with open_bundle(made.folder) as opened:
        scales = opened.read_json(layout.SCALES)["activations"]
        assert set(made.plan.caches) == {"8.6.2", "10.3.0", "10.7.0", "10.16.2"}
        for version, name in made.plan.caches.items():
            cache = read_calibration_cache(opened.read_bytes(name), name)
            numbers = [int(part) for part in version.split(".")]
            assert cache.digits == version_digits((numbers[0], numbers[1], numbers[2]))
            assert cache.scales == pytest.approx({key: each["scale"] for key, each in scales.items()}, rel=1e-6)


def test_the_plan_reads_back_as_it_was_written(made: CandidateResult) -> None:
    assert read_plan_bytes(made.plan.to_bytes(), where="plan") == made.plan


@given(place=st.integers(0), value=st.integers(1, 255))
def test_no_byte_of_a_plan_changes_unseen(made: CandidateResult, place: int, value: int) -> None:
    data = bytearray(made.plan.to_bytes())
    data[place % len(data)] ^= value
    try:
        found = read_plan_bytes(bytes(data), where="plan")
    except IntegrityError:
        return
    # Another plan in canonical form is another plan, whose digest the bundle's manifest does not have.
    assert found.digest != made.plan.digest


@given(cut=st.integers(0, 4000))
def test_a_plan_that_is_cut_short_is_refused(made: CandidateResult, cut: int) -> None:
    data = made.plan.to_bytes()
    with pytest.raises(IntegrityError):
        read_plan_bytes(data[: min(cut, len(data) - 1)], where="plan")


@pytest.mark.parametrize("key", ["modules", "builds", "latency", "tensorrt", "limits", "format"])
def test_a_plan_without_a_part_is_refused(made: CandidateResult, key: str) -> None:
    raw = parse_strict(made.plan.to_bytes(), where="plan")
    for damage in ({name: value for name, value in raw.items() if name != key}, {**raw, key: None}):
        with pytest.raises(IntegrityError) as caught:
            read_plan_bytes(dump_canonical(damage), where="plan")
        assert caught.value.expected
        assert caught.value.found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": {"typing": "loose"}}, "malformed"),
        ({"options": {"unheard": 1}}, "other options"),
        ({"sha256": "abc"}, "digest"),
    ],
)
def test_a_build_with_strange_options_is_refused(made: CandidateResult, change: dict[str, object], words: str) -> None:
    raw = parse_strict(made.plan.to_bytes(), where="plan")
    build = raw["builds"]["int8"]
    for key, value in change.items():
        build[key] = {**build[key], **value} if isinstance(value, dict) else value
    with pytest.raises(IntegrityError, match=words):
        read_plan_bytes(dump_canonical(raw), where="plan")


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: replace(plan, inputs={**plan.inputs, "golden": "0" * 64}),
        lambda plan: replace(plan, inputs={**plan.inputs, layout.POLICY: "0" * 64}),
        lambda plan: replace(plan, inputs={"golden": plan.inputs["golden"]}),
        lambda plan: replace(plan, target="jetson-thor"),
        lambda plan: replace(plan, inputs={**plan.inputs, layout.HALF_MODEL: "0" * 64}),
        lambda plan: replace(
            plan, builds={**plan.builds, "int8": replace(plan.builds["int8"], sha256=plan.builds["fp32"].sha256)}
        ),
    ],
    ids=["golden", "policy", "fewer", "target", "typed", "graph"],
)
def test_a_plan_about_other_files_is_refused(made: CandidateResult, tmp_path: Path, change: object) -> None:
    path = replanned(made.folder, tmp_path / "other", change)  # type: ignore[arg-type]
    with open_bundle(path) as opened, pytest.raises(IntegrityError, match="other files") as caught:
        candidate_plan(opened)
    assert caught.value.hint


def test_what_is_no_candidate_is_called_that() -> None:
    stored = Path(__file__).resolve().parents[1] / "golden" / "bundle-1.tar"
    with open_bundle(stored) as opened, pytest.raises(BadInputError, match="no candidate") as caught:
        candidate_plan(opened)
    assert "released" in str(caught.value.found)


@pytest.mark.parametrize("device", ["orin-nano-super", "orin-nano-super-at-15W", "orin-nano-4gb"])
def test_the_modules_of_the_family_are_let_through(made: CandidateResult, device: str) -> None:
    check_device(made.plan, read_jetson(probe_of(device)), "10.3.0", where="bundle")


@pytest.mark.parametrize("device", ["agx-orin-64gb", "thor", "orin-nx-on-a-nano-carrier", None])
def test_another_device_is_refused(made: CandidateResult, device: str | None) -> None:
    jetson = read_jetson(probe_of(device)) if device else None
    with pytest.raises(UnavailableError, match="another device") as caught:
        check_device(made.plan, jetson, "10.3.0", where="bundle")
    assert "jetson-orin-nano-8gb" in str(caught.value.expected)
    assert caught.value.found
    assert caught.value.hint


@pytest.mark.parametrize("version", ["8.5.2", "8.6.1", "11.4.0.106", ""])
def test_another_tensorrt_is_refused(made: CandidateResult, version: str) -> None:
    with pytest.raises(UnavailableError, match="other versions of TensorRT") as caught:
        check_device(made.plan, read_jetson(probe_of("orin-nano-super")), version, where="bundle")
    assert "8.6.2 to 10.16.2" in str(caught.value.expected)


def test_the_range_can_take_every_stand_in(made: CandidateResult) -> None:
    assert all(version in any_version(made.plan).tensorrt for version in VERSIONS)


class TestScripts:
    def test_they_are_shell(self, made: CandidateResult, tmp_path: Path) -> None:
        for name in (layout.DEVICE_COMMANDS, layout.DEVICE_INSTALLER):
            done = subprocess.run(["sh", "-n", str(made.folder / name)], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert NEVER_RUN in (made.folder / name).read_text()

    def test_the_commands_are_those_of_the_plan(self, made: CandidateResult, tmp_path: Path) -> None:
        tool = tmp_path / "bin" / "trtexec"
        _script(tool, 'echo "trtexec $*"')
        words = ["sh", str(made.folder / layout.DEVICE_COMMANDS), "10.3.0"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=_path_with(tool.parent))
        assert done.returncode == 0
        told = [shlex.split(line) for line in done.stdout.splitlines()]
        assert told == [shlex.split(build.trtexec["10.3.0"]) for build in made.plan.builds.values()]
        strange = subprocess.run([*words[:2], "7.1.3"], capture_output=True, text=True, check=False)
        assert strange.returncode == 2
        assert "10.3.0" in strange.stderr

    def test_the_installer_makes_an_environment_that_sees_tensorrt_and_runs_the_plan(self, tmp_path: Path) -> None:
        place = tmp_path / "bundle" / "device"
        place.mkdir(parents=True)
        (place / "install.sh").write_bytes(installer_script())
        log = tmp_path / "log"
        venv = tmp_path / "venv"
        child = f'echo "venv python: $*" >>{log}'
        printed = f"printf '#!/bin/sh\\n%s\\n' {shlex.quote(child)}"
        made = f'mkdir -p "$4/bin"; {printed} >"$4/bin/python"; chmod +x "$4/bin/python"'
        _script(tmp_path / "bin" / "python3", f'echo "python: $*" >>{log}\n[ "$1" = -m ] && {{ {made}; }}; true')
        done = subprocess.run(
            ["sh", str(place / "install.sh"), str(tmp_path / "out")],
            capture_output=True,
            text=True,
            check=False,
            env=_path_with(tmp_path / "bin") | {"EDGEKIT_VENV": str(venv), "EDGEKIT_PACKAGE": "./edgekit.whl"},
        )
        assert done.returncode == 0, done.stderr
        told = log.read_text()
        assert f"python: -m venv --system-site-packages {venv}" in told
        assert "venv python: -m pip install ./edgekit.whl pycuda" in told
        last = told.splitlines()[-1]
        assert last == f"venv python: -m edgekit device build {place.parent} --output {tmp_path / 'out'}"

    def test_the_installer_installs_the_package_that_the_recipe_names(self) -> None:
        assert b"cuda=${EDGEKIT_CUDA-pycuda}" in installer_script()
        assert b"cuda=${EDGEKIT_CUDA-cuda-python}" in installer_script("cuda-python")
        assert b"@" not in installer_script("cuda-python").replace(b'"$@"', b"")

    def test_the_installer_says_what_is_missing(self, tmp_path: Path) -> None:
        place = tmp_path / "bundle" / "device"
        place.mkdir(parents=True)
        (place / "install.sh").write_bytes(installer_script())
        _script(tmp_path / "bin" / "python3", 'case "$2" in *tensorrt*) exit 1 ;; esac')
        done = subprocess.run(
            ["sh", str(place / "install.sh")],
            capture_output=True,
            text=True,
            check=False,
            env=_path_with(tmp_path / "bin"),
        )
        assert done.returncode == 5
        assert "python3-libnvinfer" in done.stderr


def _script(path: Path, body: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def _path_with(folder: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_the_graph_of_the_plan_is_the_one_that_was_exported(made: CandidateResult) -> None:
    assert isinstance(made.plan, DevicePlan)
    assert (made.folder / layout.REFERENCE).read_bytes() == GRAPH.read_bytes()
