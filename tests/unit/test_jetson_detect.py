"""Which Jetson this is: recorded answers, missing ones, and hostile ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jetson_devices import DEVICES, probe_of

from edgekit.jetson import probe as probe_module
from edgekit.jetson.detect import read_jetson
from edgekit.jetson.modules import MODULES
from edgekit.jetson.probe import RecordedProbe, SystemProbe
from edgekit.jetson.releases import RELEASES


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_is_told(name: str) -> None:
    device, found = DEVICES[name], read_jetson(probe_of(name))
    assert found is not None
    assert (found.module, found.l4t, found.jetpack) == (device.module, device.l4t, device.jetpack)
    assert found.model == device.model
    assert found.soc == device.compatible[-1].removeprefix("nvidia,")
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_the_part_number_goes_before_the_text_and_the_text_before_nothing() -> None:
    nano = read_jetson(probe_of("orin-nx-on-a-nano-carrier", compatible="nvidia,p3767-0003\0nvidia,tegra234\0"))
    assert nano is not None
    assert (nano.module, nano.part) == ("jetson-orin-nano-super", "p3767-0003")
    # Without a part number only the text is left, and here it is the carrier's: sixteen gigabytes are no Nano.
    unknown = read_jetson(probe_of("orin-nx-on-a-nano-carrier", compatible="nvidia,tegra234\0"))
    assert unknown is not None
    assert unknown.module is None
    assert any("module" in note for note in unknown.notes)


def test_a_part_number_of_another_chip_decides_nothing() -> None:
    found = read_jetson(probe_of("thor", compatible="nvidia,p3767-0005\0nvidia,tegra264\0"))
    assert found is not None
    assert (found.module, found.part) == ("jetson-thor-t5000", None)


@pytest.mark.parametrize(
    ("power", "module"),
    [
        ("NV Power Mode: MAXN_SUPER\n2\n", "jetson-orin-nano-super"),
        ("NV Power Mode: 25W\n1\n", "jetson-orin-nano-super"),
        ("NV Power Mode: 7W\n3\n", "jetson-orin-nano-8gb"),
        ("", "jetson-orin-nano-super"),  # the text alone says Super
    ],
)
def test_the_power_mode_tells_the_super_from_the_module(power: str, module: str) -> None:
    found = read_jetson(probe_of("orin-nano-super", power=power))
    assert found is not None
    assert (found.module, found.base_module) == (module, "jetson-orin-nano-8gb")
    assert any("power mode" in note for note in found.notes) == (power == "")


def test_memory_that_fits_no_size_leaves_the_module_open() -> None:
    found = read_jetson(probe_of("agx-orin-first-kit", meminfo="MemTotal: 1000 kB\n"))
    assert found is not None
    assert (found.module, found.part) == (None, "p3701-0000")


@pytest.mark.parametrize("device", ["orin-nano-4gb", "orin-nano-super-at-15W", "agx-orin-64gb"])
def test_without_a_part_number_text_and_memory_decide(device: str) -> None:
    found = read_jetson(probe_of(device, compatible="nvidia,tegra234\0"))
    assert found is not None
    assert (found.module, found.part) == (DEVICES[device].module, None)


def test_a_package_tells_what_the_file_does_not() -> None:
    broken = read_jetson(probe_of("orin-nano-4gb", release="# release of nothing"))
    assert broken is not None
    assert broken.l4t == "36.3.0"
    nothing = read_jetson(probe_of("orin-nano-super", release="# R36", package="no such package"))
    assert nothing is not None
    assert (nothing.l4t, nothing.jetpack) == (None, None)
    assert any("nvidia-l4t-core" in note for note in nothing.notes)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"/proc/meminfo": "MemTotal: 16000000 kB\n"},
        {
            "/proc/device-tree/model": "Raspberry Pi 5\0",
            "/proc/device-tree/compatible": "brcm,bcm2712\0",
        },
    ],
)
def test_what_is_no_jetson_is_none(files: dict[str, str]) -> None:
    assert read_jetson(RecordedProbe(files)) is None


@given(
    model=st.text(max_size=200),
    compatible=st.text(max_size=200) | st.just("nvidia,tegra234" * 2000),
    release=st.text(max_size=200) | st.from_regex(r"# R\d{1,9} \(release\), REVISION: \d{1,9}(\.\d{1,9}){0,4}"),
    package=st.text(max_size=100) | st.from_regex(r"\d{1,9}\.\d{1,9}-x"),
    power=st.text(max_size=100) | st.just("NV Power Mode: " + "\x1b[31m" * 100),
    meminfo=st.text(max_size=100) | st.just("MemTotal: " + "9" * 400 + " kB"),
)
def test_no_text_raises_and_none_reaches_a_terminal(
    model: str, compatible: str, release: str, package: str, power: str, meminfo: str
) -> None:
    found = read_jetson(
        probe_of(
            "thor",
            model=model,
            compatible=compatible,
            release=release,
            package=package,
            power=power,
            meminfo=meminfo,
        )
    )
    if found is not None:
        shown = [found.model, found.part, found.l4t, found.jetpack, found.power_mode, found.soc, *found.notes]
        assert all(text.isprintable() and len(text) < 200 for text in shown if text)


def test_the_system_is_asked_without_raising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = SystemProbe()
    path = tmp_path / "text"
    path.write_bytes(b"\xff" + b"a" * 100_000)
    text = probe.file(str(path))
    assert text is not None
    assert len(text) == 64 * 1024
    assert text.startswith("\N{REPLACEMENT CHARACTER}a")
    assert probe.file(str(tmp_path)) is None
    assert probe.file("a\0b") is None
    assert probe.output(sys.executable, "-c", "print('well')") == "well\n"
    assert probe.output(sys.executable, "-c", "print('ill'); raise SystemExit(1)") is None
    assert probe.output(str(tmp_path / "nothing")) is None
    monkeypatch.setattr(probe_module, "_PATIENCE_S", 0.2)
    assert probe.output(sys.executable, "-c", "import time; time.sleep(60)") is None


def test_modules_are_told_apart() -> None:
    assert len({module.name for module in MODULES}) == len(MODULES)
    known = {soc for release in RELEASES for soc in release.socs}
    assert {module.soc for module in MODULES} == known
    for module in MODULES:
        for other in MODULES:
            if module is not other and set(module.parts) & set(other.parts):
                assert not set(module.memory_gib) & set(other.memory_gib), "one part number, one memory, two names"
