"""Names to targets: what they stand for here, and refusals that come before any work."""

from __future__ import annotations

from dataclasses import replace

import pytest
from jetson_devices import DEVICES, probe_of

from edgekit.core.registry import Registry
from edgekit.engines.protocol import Engine
from edgekit.errors import BadInputError, DefectError, UnavailableError
from edgekit.jetson.detect import read_jetson
from edgekit.jetson.probe import RecordedProbe
from edgekit.pipeline import engines
from edgekit.pipeline.calibration import judging_engine
from edgekit.pipeline.engines import engine_for
from edgekit.targets import loader, target
from edgekit.targets.loader import (
    check_target_runs_here,
    jetson_module,
    resolve_target,
    target_alias,
    target_aliases,
    target_names,
)

NO_JETSON = RecordedProbe()
BY_MACHINE = [name for name in target_aliases() if (alias := target_alias(name)) and alias.decided_by == "machine"]
BY_JETSON = [name for name in target_aliases() if name not in BY_MACHINE]
FAMILIES = [name for name in BY_JETSON if name != "jetson"]

MACHINES = [
    ("x86_64", "cpu-x86", "x86-u8s8"),
    ("AMD64", "cpu-x86", "x86-u8s8"),
    ("aarch64", "cpu-arm", "arm-s8s8"),
    ("arm64", "cpu-arm", "arm-s8s8"),
]


@pytest.mark.parametrize("name", BY_MACHINE)
@pytest.mark.parametrize(("machine", "family", "number_format"), MACHINES)
def test_cpu_means_the_processor_of_the_machine(name: str, machine: str, family: str, number_format: str) -> None:
    target = resolve_target(name, machine=machine)
    assert (target.name, target.number_format) == (family, number_format)
    check_target_runs_here(target, machine=machine)


@pytest.mark.parametrize("name", BY_MACHINE)
def test_no_machine_belongs_to_two_families(name: str) -> None:
    alias = target_alias(name)
    assert alias is not None
    machines = [machine for member in alias.stands_for for machine in resolve_target(member).machines]
    assert len(machines) == len(set(machines))


def test_an_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(BadInputError) as raised:
        resolve_target("cpu-vax")
    assert all(name in str(raised.value) for name in (*target_names(), *target_aliases()))


def test_cpu_on_a_machine_that_nobody_described_is_refused() -> None:
    with pytest.raises(UnavailableError, match="riscv64"):
        resolve_target("cpu", machine="riscv64")


@pytest.mark.parametrize(("name", "machine"), [("cpu-arm", "x86_64"), ("cpu-x86", "aarch64")])
def test_a_target_that_cannot_be_verified_here_is_refused_with_a_remedy(name: str, machine: str) -> None:
    with pytest.raises(UnavailableError) as raised:
        check_target_runs_here(resolve_target(name), machine=machine)
    assert "--target cpu" in str(raised.value.hint)
    assert "on the device" in str(raised.value.hint)


@pytest.mark.parametrize(
    "change",
    [
        {"engines": ()},
        {"engines": ("no-such-engine",)},
        {"number_format": "fp4"},
        {"opset": 12},
        {"channel_multiple": 0},
        {"machines": ()},
        {"machines": ("X86_64",)},
    ],
)
def test_a_target_described_wrongly_is_a_defect(change: dict[str, object]) -> None:
    with pytest.raises(DefectError):
        replace(resolve_target("cpu-x86"), **change)  # type: ignore[arg-type]


def registry_of(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """A registry with these engines: what is checked is the target, so one engine stands for all of them."""
    registry: Registry[Engine] = Registry("engine", dict.fromkeys(names, "edgekit.engines.ort_cpu:ENGINE"))
    for module in (loader, target, engines):
        monkeypatch.setattr(module, "ENGINES", registry)


@pytest.fixture
def with_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    registry_of(monkeypatch, "ort-cpu", "tensorrt")


@pytest.fixture
def with_processors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    registry_of(monkeypatch, "ort-cpu", "reference")
    monkeypatch.setattr(
        "edgekit.targets.target.PLANNED_ENGINES", frozenset({"openvino", "ort-cuda", "ort-tensorrt", "tensorrt"})
    )


@pytest.mark.parametrize("device", DEVICES)
def test_on_a_jetson_every_name_of_it_stands_for_the_module(device: str) -> None:
    module = DEVICES[device].module
    assert resolve_target("jetson", machine="aarch64", probe=probe_of(device)).name == module
    for name in FAMILIES:
        alias = target_alias(name)
        assert alias is not None
        expected = module if module in alias.stands_for else name
        assert resolve_target(name, machine="aarch64", probe=probe_of(device)).name == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_elsewhere_a_family_is_what_its_modules_share(name: str) -> None:
    found = resolve_target(name, probe=NO_JETSON)
    assert found.name == name
    assert len(found.members) > 1


def test_where_the_faster_modes_are_no_candidate_the_module_is() -> None:
    faster = read_jetson(probe_of("orin-nano-super"))
    assert faster is not None
    module = resolve_target("jetson-orin-nano-8gb")
    assert jetson_module(faster, (resolve_target("jetson-orin-nx-8gb"), module)) == module
    assert jetson_module(faster, (resolve_target("jetson-orin-nx-8gb"),)) is None


def test_elsewhere_jetson_asks_which() -> None:
    with pytest.raises(UnavailableError, match="this machine is none") as raised:
        resolve_target("jetson", machine="x86_64", probe=NO_JETSON)
    assert "jetson-orin-nx-16gb" in str(raised.value.expected)
    assert raised.value.found == "x86_64"
    assert "--target" in str(raised.value.hint)


def test_a_jetson_that_does_not_tell_its_module_is_asked_about() -> None:
    unknown = probe_of("orin-nano-super", compatible="nvidia,tegra234\0", model="A box\x1b[2J with an Orin\0")
    with pytest.raises(UnavailableError, match="cannot be told") as raised:
        resolve_target("jetson", probe=unknown)
    assert "tegra234" in str(raised.value.found)
    assert "\x1b" not in str(raised.value)
    assert resolve_target("jetson-orin-nano", probe=unknown).members


@pytest.mark.usefixtures("with_processors_alone")
@pytest.mark.parametrize("name", [name for name in target_names() if not name.startswith("cpu")] + FAMILIES)
def test_what_has_no_engine_yet_is_refused_before_any_work(name: str) -> None:
    wanted = resolve_target(name, probe=NO_JETSON)
    with pytest.raises(UnavailableError) as raised:
        check_target_runs_here(wanted, machine="aarch64", probe=NO_JETSON)
    if "xavier" in name:
        assert "Python" in str(raised.value)
    else:
        assert "not available yet" in raised.value.message
        assert wanted.engines[0] in str(raised.value.expected)
        assert "ort-cpu" in str(raised.value.found)
        assert "--target cpu" in str(raised.value.hint)
    with pytest.raises(UnavailableError, match="No engine"):
        engine_for(wanted)


@pytest.mark.usefixtures("with_processors_alone")
def test_calibrating_for_what_has_no_engine_is_judged_by_the_reference_and_says_so() -> None:
    wanted = resolve_target("jetson-orin-nx-8gb")
    judge = judging_engine(wanted, machine="x86_64")
    assert (judge.name, judge.of_target) == ("reference", False)
    assert "jetson-orin-nx-8gb" in judge.told


@pytest.mark.usefixtures("with_tensorrt")
class TestWithTheEngine:
    @pytest.mark.parametrize("device", [name for name in DEVICES if not DEVICES[name].l4t.startswith("35")])
    def test_the_module_itself_is_let_through(self, device: str) -> None:
        python = "3.12" if device.startswith("thor") else "3.10"
        for name in (DEVICES[device].module, "jetson"):
            wanted = resolve_target(name, probe=probe_of(device))
            check_target_runs_here(wanted, machine="aarch64", probe=probe_of(device), python=python)

    def test_the_super_is_the_module_too_and_not_the_other_way_round(self) -> None:
        module, faster = resolve_target("jetson-orin-nano-8gb"), resolve_target("jetson-orin-nano-super")
        check_target_runs_here(module, machine="aarch64", probe=probe_of("orin-nano-super"), python="3.10")
        with pytest.raises(UnavailableError, match="cannot be verified"):
            check_target_runs_here(faster, machine="aarch64", probe=probe_of("orin-nano-super-at-15W"), python="3.10")

    @pytest.mark.parametrize("device", [name for name in DEVICES if DEVICES[name].l4t.startswith("35")])
    def test_jetpack_5_is_refused_for_its_python(self, device: str) -> None:
        wanted = resolve_target(DEVICES[device].module)
        with pytest.raises(UnavailableError, match=r"Python 3\.10"):
            check_target_runs_here(wanted, machine="aarch64", probe=probe_of(device), python="3.8.10")

    def test_another_module_and_no_module_are_refused(self) -> None:
        wanted = resolve_target("jetson-orin-nx-16gb")
        for probe, found in ((probe_of("thor"), "thor-t5000"), (NO_JETSON, "no Jetson")):
            with pytest.raises(UnavailableError, match="cannot be verified") as raised:
                check_target_runs_here(wanted, machine="aarch64", probe=probe, python="3.10")
            assert found in str(raised.value.found)
        with pytest.raises(UnavailableError, match="cannot be verified") as raised:
            check_target_runs_here(wanted, machine="x86_64", probe=NO_JETSON, python="3.10")
        assert raised.value.found == "x86_64"

    def test_another_python_than_that_of_jetpack_is_refused(self) -> None:
        wanted, probe = resolve_target("jetson-orin-nx-16gb"), probe_of("orin-nx-on-a-nano-carrier")
        with pytest.raises(UnavailableError, match="distribution") as raised:
            check_target_runs_here(wanted, machine="aarch64", probe=probe, python="3.11")
        assert "--system-site-packages" in str(raised.value.hint)

    def test_a_card_is_no_jetson(self) -> None:
        card = resolve_target("tensorrt")
        check_target_runs_here(card, machine="x86_64", probe=NO_JETSON)
        check_target_runs_here(card, machine="aarch64", probe=NO_JETSON)
        with pytest.raises(UnavailableError, match="this is a Jetson") as raised:
            check_target_runs_here(card, machine="aarch64", probe=probe_of("thor"))
        assert "--target jetson" in str(raised.value.hint)


def test_a_family_whose_members_differ_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {"jetson-orin-nx-8gb": replace(resolve_target("jetson-orin-nx-8gb"), number_format="arm-s8s8")}
    real = loader._named
    monkeypatch.setattr(loader, "_named", lambda name: others.get(name) or real(name))
    with pytest.raises(DefectError, match="differ"):
        resolve_target("jetson-orin-nx", probe=NO_JETSON)
