"""The small parts of the TensorRT engine: plan files, memory pools, the machine, lifetimes, messages."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_tensorrt import VERSIONS
from fake_tensorrt.install import installed
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_bytes
from edgekit.engines.tensorrt.binding import find_tensorrt
from edgekit.engines.tensorrt.lifetimes import closed_after_objects, drop_locals
from edgekit.engines.tensorrt.machine import MachineFacts, available_memory, machine_facts
from edgekit.engines.tensorrt.memory import DeviceFacts
from edgekit.engines.tensorrt.memory_pools import size_pools
from edgekit.engines.tensorrt.messages import Messages, build_failure, make_logger, plan_failure
from edgekit.engines.tensorrt.plan_file import PlanHeader, check_plan_fits, plan_bytes_of, read_plan, write_plan
from edgekit.errors import BadInputError, EdgekitError, IntegrityError, UnavailableError

GIB = 1 << 30
ORIN = DeviceFacts("Orin", (8, 7), 16, True, 64 * GIB, "12.6")
CARD = DeviceFacts("NVIDIA GeForce RTX 3090", (8, 6), 82, False, 24 * GIB, "13.0")
PLAN = b"the plan's own bytes"
HEADER = PlanHeader("10.3.0", "Orin", (8, 7), 16, "36.4.3", digest_bytes(PLAN), "0" * 64, build={"layers": 3})


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_plan(tmp_path / "a.plan", HEADER, PLAN)
    assert read_plan(tmp_path / "a.plan") == (HEADER, PLAN)
    assert plan_bytes_of(tmp_path / "a.plan") == PLAN


RAW = dump_canonical(HEADER.to_dict())
BEFORE = b"edgekit.tensorrt-plan/2\n" + len(RAW).to_bytes(8, "big")
# A header that says something else and is one all the same is what the bundle's digest is for.
PLACES = (*range(len(BEFORE)), *range(len(BEFORE + RAW), len(BEFORE + RAW + PLAN)))


@given(st.sampled_from(PLACES), st.integers(1, 255))
def test_no_byte_of_a_plan_file_may_change(place: int, change: int) -> None:
    data = bytearray(BEFORE + RAW + PLAN)
    data[place] ^= change
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.engines.tensorrt.plan_file.read_bytes", lambda _: bytes(data))
        with pytest.raises(IntegrityError):
            read_plan(Path("x"))


@pytest.mark.parametrize(
    "changes",
    [
        {"tensorrt": 10},
        {"capability": [8]},
        {"capability": [8, "7"]},
        {"multiprocessors": True},
        {"dla_core": "0"},
        {"build": []},
        {"more": 1},
        {"device": None},
    ],
)
def test_a_malformed_header_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    raw = dump_canonical({**HEADER.to_dict(), **changes})
    (tmp_path / "a.plan").write_bytes(b"edgekit.tensorrt-plan/2\n" + len(raw).to_bytes(8, "big") + raw + PLAN)
    with pytest.raises(IntegrityError):
        read_plan(tmp_path / "a.plan")


@pytest.mark.parametrize(
    ("header", "version", "device", "fits"),
    [
        ({}, "10.3.0", {}, True),
        ({}, "10.3.1", {}, False),
        ({}, "10.3.0", {"multiprocessors": 8}, False),
        ({}, "10.3.0", {"name": "Another"}, False),
        ({}, "10.3.0", {"capability": (7, 2)}, False),
        ({"version_compatible": True}, "10.13.3", {}, True),
        ({"version_compatible": True}, "10.2.9", {}, False),
        ({"version_compatible": True}, "11.4.0", {}, False),
        ({"hardware_compatible": "same"}, "10.3.0", {"multiprocessors": 8}, True),
        ({"hardware_compatible": "same"}, "10.3.0", {"capability": (8, 6)}, False),
        ({"hardware_compatible": "ampere+"}, "10.3.0", {"capability": (11, 0)}, True),
        ({"hardware_compatible": "ampere+"}, "10.3.0", {"capability": (7, 2)}, False),
        ({"hardware_compatible": "ampere+"}, "10.3.1", {"capability": (11, 0)}, False),
    ],
)
def test_what_a_plan_fits(header: dict[str, Any], version: str, device: dict[str, Any], fits: bool) -> None:
    arguments = replace(HEADER, **header), version, replace(ORIN, **device), "a.plan"
    if fits:
        check_plan_fits(*arguments)
        return
    with pytest.raises(UnavailableError) as raised:
        check_plan_fits(*arguments)
    assert "10.3.0 on Orin (SM 8.7, 16" in str(raised.value.expected)
    assert version in str(raised.value.found)


def test_pools_leave_room_on_shared_memory() -> None:
    free, model = 6 * GIB, 100 << 20
    pools = size_pools(ORIN, free, 4 * GIB, model, 0)
    assert pools.free == 4 * GIB
    assert pools.tactic_dram is not None
    assert pools.workspace + 3 * model < pools.tactic_dram + 3 * model < 4 * GIB
    card = size_pools(CARD, free, 1 * GIB, model, 0)
    assert (card.free, card.tactic_dram) == (free, None)
    assert card.workspace < free - model
    assert size_pools(ORIN, free, None, model, 1 << 27).workspace == 1 << 27


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 32), st.integers(0, 1 << 33), st.booleans())
def test_pools_never_exceed_what_is_free(free: int, model: int, asked: int, integrated: bool) -> None:
    device = ORIN if integrated else CARD
    try:
        pools = size_pools(device, free, None, model, asked)
    except UnavailableError as error:
        refused: EdgekitError | None = error
        assert free - model * (3 if integrated else 1) < max(asked, 1 << 26) + (1 << 28)
    else:
        refused = None
        assert 0 < pools.workspace < free
        assert pools.tactic_dram is None or pools.workspace <= pools.tactic_dram < free
    assert refused is None or refused.hint


class Recorded:
    """Answers of a device."""

    def __init__(self, files: Mapping[str, str], mode: str = "") -> None:
        self._files, self._mode = files, mode

    def file(self, path: str) -> str | None:
        return self._files.get(path)

    def output(self, *command: str) -> str | None:
        return self._mode if command[0] == "nvpmodel" and self._mode else None


def test_a_jetson_tells_its_release_module_and_mode() -> None:
    files = {
        "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
        "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        "/proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
        "/proc/meminfo": "MemTotal:        7802500 kB\nMemAvailable:    5402500 kB\n",
    }
    probe = Recorded(files, "NV Power Mode: MAXN_SUPER\n2\n")
    assert machine_facts(probe) == MachineFacts("36.4.3", "jetson-orin-nano-super", "MAXN_SUPER")
    assert available_memory(probe) == 5402500 * 1024


def test_another_machine_tells_nothing() -> None:
    assert machine_facts(Recorded({})) == MachineFacts()
    assert available_memory(Recorded({})) is None
    assert available_memory(Recorded({"/proc/meminfo": "MemAvailable: lots"})) is None


class Thing:
    """Something with a life."""


def failing(kept: list[weakref.ref[Thing]]) -> None:
    inner = Thing()
    kept.append(weakref.ref(inner))
    raise ValueError("first")


def raising(kept: list[weakref.ref[Thing]]) -> None:
    thing = Thing()
    kept.append(weakref.ref(thing))
    try:
        failing(kept)
    except ValueError as cause:
        raise UnavailableError("second") from cause


def test_an_error_keeps_no_objects_once_they_are_dropped() -> None:
    kept: list[weakref.ref[Thing]] = []
    with pytest.raises(UnavailableError) as raised:
        raising(kept)
    assert all(each() is not None for each in kept)
    drop_locals(raised.value)
    assert all(each() is None for each in kept)
    assert str(raised.value.__cause__) == "first"


class Closing:
    """As much of a device as closing takes; it notes what was alive when."""

    def __init__(self, kept: list[weakref.ref[Thing]], fails: bool = False) -> None:
        self._kept, self._fails = kept, fails
        self.alive: list[int] = []

    @contextmanager
    def active(self) -> Any:
        yield

    def close(self) -> None:
        self.alive.append(sum(each() is not None for each in self._kept))
        if self._fails:
            raise UnavailableError("cannot close")


@pytest.mark.parametrize("fails", [False, True])
def test_the_device_is_closed_after_the_objects(fails: bool) -> None:
    kept: list[weakref.ref[Thing]] = []
    memory: Any = Closing(kept, fails)
    with pytest.raises(UnavailableError, match="second"), closed_after_objects(memory, keep=True):
        raising(kept)
    assert memory.alive == [0]


def test_without_an_error_the_device_stays_or_goes() -> None:
    for keep in (True, False):
        memory: Any = Closing([])
        with closed_after_objects(memory, keep=keep):
            pass
        assert memory.alive == ([] if keep else [0])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_logger_keeps_what_counts(version: str) -> None:
    messages = Messages()
    with installed(version, ()):
        tensorrt = find_tensorrt()
        logger = make_logger(tensorrt, messages)
        severities = tensorrt.module.ILogger.Severity
        for name in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
            logger.log(getattr(severities, name), f" {name} Skipping tactic 3 ")
        for _ in range(1000):
            logger.log(severities.ERROR, "again")
    assert messages.errors[:2] == ["INTERNAL_ERROR Skipping tactic 3", "ERROR Skipping tactic 3"]
    assert messages.warnings == ["WARNING Skipping tactic 3"]
    assert messages.skipped_tactics == 5
    assert len(messages.errors) == 200


@pytest.mark.parametrize(
    ("text", "built", "opened"),
    [
        ("CUDA initialization failure with error: 35", UnavailableError, UnavailableError),
        ("Error Code 2: OutOfMemory (Requested size was 9 bytes.)", UnavailableError, UnavailableError),
        ("expecting compute 8.7 got compute 7.2", BadInputError, UnavailableError),
        ("expecting library version 10.3 got 8.6", BadInputError, UnavailableError),
        ("Magic tag does not match", BadInputError, IntegrityError),
        ("", BadInputError, IntegrityError),
    ],
)
def test_what_was_logged_decides_the_error(text: str, built: type, opened: type) -> None:
    messages = Messages([text] if text else [])
    for found, expected in ((build_failure(messages, "x"), built), (plan_failure(messages, "x", "here"), opened)):
        assert type(found) is expected
        assert found.hint
        assert found.found == (text or "no reason was logged")
