"""INT8 by scales beside the graph, and the DLA, which takes them that way until TensorRT 10.7.

Over stand-ins: what runs here is our code, and no TensorRT.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explained_graphs import GRAPHS, random_images
from fake_cuda.devices import AGX_ORIN_64, ORIN_NANO_8, FakeDevice
from fake_cuda.machine import FakeMachine
from fake_tensorrt import VERSIONS
from fake_tensorrt.config import BuilderConfig
from tensorrt_stand_ins import GRAPH, Listener, build, quantised, stand_in

from edgekit.calibrate.formats import NUMBER_FORMATS, number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.scale_table import write_scales
from edgekit.calibrate.stage import quantise_graph
from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_bytes
from edgekit.engines.tensorrt.calibration_cache import read_calibration_cache, write_calibration_cache
from edgekit.engines.tensorrt.stored_scales import SYMMETRIC_FORMATS, cache_from_scales
from edgekit.errors import BadInputError, EdgekitError, IntegrityError, UnavailableError

CALIBRATING = ("8.5.2", "8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11")


@pytest.fixture
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with stand_in(request.param, "pycuda", monkeypatch):
        yield request.param


def cache(folder: Path, version: str) -> Path:
    scales = dict.fromkeys(("image", "pooled", "logits", "weighted", "summed", "attribution", "alpha"), 0.01)
    numbers = tuple(int(part) for part in version.split(".")[:3])
    path = folder / "calibration.cache"
    path.write_bytes(write_calibration_cache(scales, numbers))  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("version", CALIBRATING, indirect=True)
def test_our_scales_go_the_implicit_way(version: str, tmp_path: Path) -> None:
    header, asked = build(GRAPH, tmp_path, calibration_cache=cache(tmp_path, version))
    assert {"INT8", "FP16"} <= set(asked["flags"])
    assert header.build["precision"]["calibrated"] is True
    assert "--calib=calibration.cache" in header.build["trtexec"]


def scale_table(folder: Path, **changes: Any) -> Path:
    """What `calibrate` would store for the small graph, with some of it changed."""
    entry = {"low": -1.27, "high": 1.27, "scale": 0.01, "zero_point": 0}
    raw = {
        "format": "edgekit.scales/1",
        "number_format": "trt-s8s8",
        "graph": digest_bytes(GRAPH.read_bytes()),
        "activations": {"image": entry, "pooled": entry},
    }
    path = folder / "scales.json"
    path.write_bytes(dump_canonical({**raw, **changes}))
    return path


@pytest.mark.parametrize("version", CALIBRATING, indirect=True)
def test_a_scale_table_goes_the_implicit_way(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shaped = []
    monkeypatch.setattr(BuilderConfig, "set_calibration_profile", lambda self, profile: shaped.append(profile) or True)
    header, asked = build(GRAPH, tmp_path, scales=scale_table(tmp_path))
    # With a free batch TensorRT calibrates in a shape that it has to be told.
    assert len(shaped) == 1
    assert "INT8" in asked["flags"]
    assert header.build["precision"]["calibrated"] is True


def test_only_symmetric_formats_go_into_a_cache() -> None:
    fitting = {name for name, each in NUMBER_FORMATS.items() if each.symmetric and each.signed and each.qmax == 127}
    assert set(SYMMETRIC_FORMATS) == fitting


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"format": "edgekit.record/1"}, IntegrityError),
        ({"format": "edgekit.scales/2"}, BadInputError),
        ({"number_format": "x86-u8s8"}, BadInputError),
        ({"graph": "0" * 64}, BadInputError),
        ({"activations": {}}, IntegrityError),
        ({"activations": {"image": {"scale": "0.01", "zero_point": 0}}}, IntegrityError),
        ({"activations": {"image": {"scale": 0.01, "zero_point": 3}}}, IntegrityError),
        ({"activations": {"image": {"scale": -0.01, "zero_point": 0}}}, BadInputError),
    ],
)
def test_a_scale_table_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        cache_from_scales(scale_table(tmp_path, **changes), digest_bytes(GRAPH.read_bytes()), (10, 3, 0))


def test_a_stored_table_is_read_as_calibrate_reads_it(tmp_path: Path) -> None:
    graph = parse_graph(GRAPHS["residual"]().SerializeToString(), where="residual")
    options = CalibrateOptions(method="minmax")
    table = quantise_graph(graph, random_images(), number_format("trt-s8s8"), options).table
    write_scales(tmp_path / "scales.json", table)
    cache = cache_from_scales(tmp_path / "scales.json", graph.digest, (8, 5, 2))
    found = read_calibration_cache(cache, "x").scales
    assert found == {name: entry.scale for name, entry in table.activations.items()}
    assert all(
        np.float32(max(-each.low, each.high) / 127) == np.float32(each.scale) for each in table.activations.values()
    )


@pytest.mark.parametrize("version", CALIBRATING, indirect=True)
def test_a_cache_for_another_version_is_refused(version: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="another TensorRT"):
        build(GRAPH, tmp_path, calibration_cache=cache(tmp_path, "7.1.3"))


@pytest.mark.parametrize("version", VERSIONS, indirect=True)
def test_a_cache_beside_scales_in_the_graph_or_with_eleven_is_refused(version: str, tmp_path: Path) -> None:
    with pytest.raises(EdgekitError) as raised:
        build(quantised(tmp_path), tmp_path, calibration_cache=cache(tmp_path, version))
    assert isinstance(raised.value, UnavailableError if version.startswith("11") else BadInputError)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("device", [AGX_ORIN_64, ORIN_NANO_8], ids=["agx-orin", "orin-nano"])
def test_dla_by_version_and_device(
    version: str, device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stand_in(version, "pycuda", monkeypatch, FakeMachine(device)):
        options: dict[str, Any] = {"dla_core": 1, "batches": (2, 2, 2)}
        if version not in ("8.5.2", "8.6.1", "10.3.0") or device is ORIN_NANO_8:
            with pytest.raises(UnavailableError) as raised:
                build(GRAPH, tmp_path, **options)
            assert "dla_core away" in str(raised.value.hint)
            return
        listener = Listener()
        header, asked = build(GRAPH, tmp_path, listener, **options, calibration_cache=cache(tmp_path, version))
        assert asked["dla_core"] == 1
        assert {"INT8", "FP16", "GPU_FALLBACK"} <= set(asked["flags"])
        assert header.dla_core == 1
        assert header.build["gpu_layers"]
        assert any("DLA" in note for note in listener.notes)
        assert "--useDLACore=1 --allowGPUFallback" in header.build["trtexec"]
        with pytest.raises(BadInputError, match="one batch size"):
            build(GRAPH, tmp_path, dla_core=1)
        with pytest.raises(BadInputError, match="Q/DQ"):
            build(quantised(tmp_path), tmp_path, **options)
        assert "FP16" in build(GRAPH, tmp_path, **options)[1]["flags"]
