"""Calibration caches and timing caches: what is written is what is read, and what is damaged is not used."""

from __future__ import annotations

import math
import multiprocessing
import struct
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
from fake_tensorrt import VERSIONS
from hypothesis import given
from hypothesis import strategies as st
from tensorrt_stand_ins import GRAPH, build, quantised, stand_in

from edgekit.engines.tensorrt import timed_build
from edgekit.engines.tensorrt.binding import find_tensorrt
from edgekit.engines.tensorrt.calibration_cache import (
    CalibrationCache,
    read_calibration_cache,
    version_digits,
    write_calibration_cache,
)
from edgekit.engines.tensorrt.calibrator import make_calibrator
from edgekit.engines.tensorrt.timing_cache import cache_folder, cache_path, read_cache, update_cache
from edgekit.errors import BadInputError, UnavailableError

VERSION = (8, 5, 2)
names = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).filter(str.strip)
scales = st.floats(2.0**-149, float(np.finfo(np.float32).max), width=32)


def test_the_text_is_that_of_nvidias_tools() -> None:
    # 1 / 127 and 0.05 as the format's description has them.
    written = write_calibration_cache(
        {"input": struct.unpack("!f", bytes.fromhex("3c010a14"))[0], "conv1_out": 0.05}, VERSION
    )
    assert written == b"TRT-8502-EntropyCalibration2\ninput: 3c010a14\nconv1_out: 3d4ccccd\n"
    assert math.isclose(read_calibration_cache(written, "x").scales["input"], 1 / 127, rel_tol=1e-3)


@pytest.mark.parametrize(
    ("version", "digits"), [((8, 5, 2), "8502"), ((8, 6, 1), "8601"), ((10, 3, 0), "100300"), ((10, 13, 3), "101303")]
)
def test_versions_as_the_header_has_them(version: tuple[int, int, int], digits: str) -> None:
    assert version_digits(version) == digits


@given(st.dictionaries(names, scales, max_size=8))
def test_what_is_written_is_read(table: dict[str, float]) -> None:
    found = read_calibration_cache(write_calibration_cache(table, VERSION), "x")
    assert (found.digits, found.algorithm) == ("8502", "EntropyCalibration2")
    assert dict(found.scales) == table


def test_names_may_hold_the_separator_and_leading_zeros_may_be_missing() -> None:
    found = read_calibration_cache(b"TRT-8502-EntropyCalibration2\na: b: c: 3c010a14\nsmall: ffff\n\n", "x")
    assert set(found.scales) == {"a: b: c", "small"}
    assert found.scales["small"] == struct.unpack("!f", bytes.fromhex("0000ffff"))[0]


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 1e-60, 1e60])
def test_what_is_no_scale_is_not_written(scale: float) -> None:
    with pytest.raises(BadInputError):
        write_calibration_cache({"x": scale}, VERSION)


@pytest.mark.parametrize("name", ["", "two\nlines"])
def test_names_that_no_line_holds_are_not_written(name: str) -> None:
    with pytest.raises(BadInputError):
        write_calibration_cache({name: 1.0}, VERSION)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"name: 3c010a14",
        b"TRT-8502-EntropyCalibration2\nname 3c010a14",
        b"TRT-8502-EntropyCalibration2\nname: 3c010a1g",
        b"TRT-8502-EntropyCalibration2\nname: 3c010a1400",
        b"TRT-8502-EntropyCalibration2\nname: 00000000",
        b"TRT-8502-EntropyCalibration2\nname: ff800000",
        b"TRT-8502-EntropyCalibration2\nname: 3c010a14\nname: 3c010a14",
    ],
)
def test_what_is_no_calibration_cache_is_refused(data: bytes) -> None:
    with pytest.raises(BadInputError, match="calibration cache"):
        read_calibration_cache(data, "x")


@given(st.binary(max_size=200))
def test_bytes_raise_nothing_but_our_error(data: bytes) -> None:
    found: object
    try:
        found = read_calibration_cache(b"TRT-8502-EntropyCalibration2\n" + data, "x")
    except BadInputError as error:
        found = error
    assert isinstance(found, (CalibrationCache, BadInputError))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_calibrator_answers_with_the_cache_alone(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in(version, "pycuda", monkeypatch):
        tensorrt = find_tensorrt()
        cache = write_calibration_cache({"x": 0.5}, tensorrt.version)
        if not tensorrt.may_calibrate:
            with pytest.raises(UnavailableError):
                make_calibrator(tensorrt, cache, "x")
            return
        calibrator = make_calibrator(tensorrt, cache, "x")
        assert calibrator.read_calibration_cache() == cache
        assert calibrator.get_batch_size() == 1
        assert not calibrator.asked_for_images
        assert calibrator.get_batch(["image"]) is None
        assert calibrator.asked_for_images
        calibrator.write_calibration_cache(b"other")
        assert calibrator.read_calibration_cache() == cache
        other = write_calibration_cache({"x": 0.5}, (7, 1, 3))
        with pytest.raises(BadInputError, match="another TensorRT"):
            make_calibrator(tensorrt, other, "x")


def test_a_timing_cache_has_a_file_for_every_device_version_and_mode(tmp_path: Path) -> None:
    parts = ("10.3.0", "sm8.7", "Orin-16", "MAXN SUPER/../..")
    paths = {cache_path(tmp_path, (*parts[:index], "else", *parts[index + 1 :])) for index in range(4)}
    assert len(paths | {cache_path(tmp_path, parts)}) == 5
    assert all(path.parent == tmp_path for path in paths)
    assert cache_path(tmp_path, ("1", "", "2")).name == "1_none_2.timing"


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().is_relative_to(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().is_relative_to(Path.home())


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign", "empty"])
def test_a_damaged_timing_cache_is_told_and_not_used(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.timing"
    assert read_cache(path) == (b"", "")
    update_cache(path, lambda stored: stored + b"times")
    assert read_cache(path) == (b"times", "")
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-1], "changed": whole[:-1] + b"!", "foreign": b"times", "empty": b""}[damage])
    blob, problem = read_cache(path)
    assert blob == b""
    assert "damaged" in problem


def _add(path: Path, start: int, ready: Barrier) -> None:
    ready.wait(60)
    for number in range(start, start + 20):
        update_cache(path, lambda stored, number=number: stored + bytes([number]))  # type: ignore[misc]


def test_builds_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.timing"
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(3)
    children = [context.Process(target=_add, args=(path, start, ready)) for start in (0, 20, 40)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    blob, problem = read_cache(path)
    assert not problem
    assert sorted(blob) == list(range(60))


def test_what_another_build_measured_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "times"
    with stand_in("10.3.0", "pycuda", monkeypatch):

        def later(path: Path, merged: Callable[[bytes], bytes]) -> None:
            # The other one began later, and is done sooner.
            monkeypatch.setattr(timed_build, "update_cache", update_cache)
            build(quantised(tmp_path), tmp_path, timing_cache=folder)
            assert b"conv" in read_cache(path)[0]
            update_cache(path, merged)

        monkeypatch.setattr(timed_build, "update_cache", later)
        build(GRAPH, tmp_path, timing_cache=folder)
    (path,) = folder.glob("*.timing")
    blob = read_cache(path)[0]
    assert b"conv" in blob
    assert b"Unnamed Layer" in blob
