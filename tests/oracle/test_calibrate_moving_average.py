"""Moving averages against ONNX Runtime's calibrater, torch's observer and a plain definition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from explained_graphs import GRAPHS, ArrayImages, random_images
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import CalibrationDataReader, MinMaxCalibrater

from edgekit.calibrate import observers
from edgekit.calibrate.calibrator import CalibrationContext
from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.calibrate.graph import IMAGE, parse_graph
from edgekit.calibrate.moving_average import MovingAverageCalibrator, MovingAverageObserver
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.tensor_stats import TensorStats
from edgekit.errors import BadInputError, DefectError

FORMAT = NUMBER_FORMATS["x86-u8s8"]


def averages(model: Any, images: ArrayImages, batch_size: int, smoothing: float = 0.01) -> Mapping[str, TensorStats]:
    graph = parse_graph(model.SerializeToString(), where="test")
    options = CalibrateOptions(method="minmax", batch_size=batch_size)
    context = CalibrationContext(graph, place(graph, FORMAT), FORMAT, images, options)
    return MovingAverageCalibrator(batch_size, smoothing).solve(context).statistics


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: list[npt.NDArray[np.float32]]) -> None:
        self.waiting = list(batches)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        if not self.waiting:
            return None
        batch = self.waiting.pop(0)
        return {"image": batch, "class_index": np.full(len(batch), -1, dtype=np.int32)}


def runtime_ranges(
    model: Any, calls: list[list[npt.NDArray[np.float32]]], folder: Path, smoothing: float
) -> dict[str, tuple[float, float]]:
    """What ONNX Runtime says after these calls of `collect_data`, each with these batches."""
    inferred = onnx.shape_inference.infer_shapes(model)
    onnx.save(inferred, folder / "fp32.onnx")
    calibrater = MinMaxCalibrater(
        folder / "fp32.onnx",
        augmented_model_path=str(folder / "augmented.onnx"),
        moving_average=True,
        averaging_constant=smoothing,
    )
    calibrater.augment_graph()
    calibrater.create_inference_session()
    for batches in calls:
        calibrater.collect_data(Reader(batches))
    found = calibrater.compute_data().data
    # Its `TensorData` holds arrays of one element, nested after a merge.
    return {name: tuple(float(np.ravel(end)[0]) for end in item.range_value) for name, item in found.items()}


def batches_of(images: ArrayImages, size: int) -> list[npt.NDArray[np.float32]]:
    return [images.pixels[start : start + size] for start in range(0, len(images.pixels), size)]


def agrees(ours: Mapping[str, TensorStats], theirs: Mapping[str, tuple[float, float]]) -> int:
    shared = [name for name in ours if name in theirs]
    for name in shared:
        assert (ours[name].low, ours[name].high) == pytest.approx(theirs[name], rel=1e-5, abs=1e-6), name
    return len(shared)


@pytest.mark.parametrize("graph", ["residual", "depthwise-relu6", "gated"])
@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_it_is_that_of_onnx_runtime_in_one_call(graph: str, batch_size: int, tmp_path: Path) -> None:
    model, images = GRAPHS[graph](), random_images(14)
    theirs = runtime_ranges(model, [batches_of(images, batch_size)], tmp_path, 0.01)
    assert agrees(averages(model, images, batch_size), theirs) > 5


@pytest.mark.parametrize("smoothing", [0.5, 0.7, 1.0])
def test_it_is_that_of_onnx_runtime_from_call_to_call(smoothing: float, tmp_path: Path) -> None:
    # From one half on no batch but the first has more weight than the smoothing says: the forms are one.
    model, images = GRAPHS["residual"](), random_images(12)
    theirs = runtime_ranges(model, [[batch] for batch in batches_of(images, 3)], tmp_path, smoothing)
    assert agrees(averages(model, images, 3, smoothing), theirs) > 5


@pytest.mark.parametrize("smoothing", [0.5, 0.9])
def test_it_is_that_of_torch(smoothing: float) -> None:
    values = np.random.default_rng(3).normal(0, 2, (40, 3, 5)).astype(np.float32)
    ours = MovingAverageObserver("t", 4, smoothing)
    ours.update(values)
    theirs = torch.ao.quantization.MovingAverageMinMaxObserver(averaging_constant=smoothing)
    for start in range(0, 40, 4):
        theirs(torch.from_numpy(values[start : start + 4]))
    found = ours.result()
    assert (found.low, found.high) == pytest.approx((float(theirs.min_val), float(theirs.max_val)), rel=1e-5)


def by_definition(values: npt.NDArray[np.float32], batch_size: int, smoothing: float) -> tuple[float, float]:
    """The weights written out, last batch to first."""
    parts = [values[start : start + batch_size].astype(np.float64) for start in range(0, len(values), batch_size)]
    rates = [max(smoothing, 1 / (number + 1)) for number in range(len(parts))]
    weights = [rate * float(np.prod([1 - later for later in rates[index + 1 :]])) for index, rate in enumerate(rates)]
    assert sum(weights) == pytest.approx(1)
    return (
        sum(weight * part.min() for weight, part in zip(weights, parts, strict=True)),
        sum(weight * part.max() for weight, part in zip(weights, parts, strict=True)),
    )


@given(
    count=st.integers(1, 300),
    batch_size=st.integers(1, 9),
    smoothing=st.sampled_from([0.01, 0.05, 0.3, 1.0]),
    cuts=st.lists(st.integers(1, 299), max_size=8, unique=True),
    seed=st.integers(0, 99),
)
def test_it_is_its_definition_however_the_images_arrive(
    count: int, batch_size: int, smoothing: float, cuts: list[int], seed: int
) -> None:
    values = np.random.default_rng(seed).normal(0.2, 1, (count, 2, 3)).astype(np.float32)
    observer = MovingAverageObserver("t", batch_size, smoothing)
    for part in np.split(values, sorted(cut for cut in cuts if cut < count)):
        observer.update(part)
    found = observer.result()
    assert (found.low, found.high) == pytest.approx(by_definition(values, batch_size, smoothing), rel=1e-9, abs=1e-9)
    assert found.count == values.size
    assert float(values.min()) - 1e-9 <= found.low <= found.high <= float(values.max()) + 1e-9


def test_memory_does_not_decide_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GRAPHS["residual"]()
    roomy = averages(model, random_images(20), 8)
    sizes = []

    class Watched(ArrayImages):
        def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
            sizes.append(batch_size)
            return super().batches(batch_size)

    # So little that a run holds three images, which batches of eight do not divide into.
    graph = parse_graph(model.SerializeToString(), where="test")
    observed = place(graph, FORMAT).observed
    an_image = sum(4 * int(np.prod([side for side in graph.shapes[name][1:] if side])) for name in observed)
    monkeypatch.setattr(observers, "_RUN_BYTES", 3 * an_image)
    tight = averages(model, Watched(random_images(20).pixels), 8)
    assert sizes == [3]
    for name, stats in roomy.items():
        assert (tight[name].low, tight[name].high) == pytest.approx((stats.low, stats.high), rel=1e-5, abs=1e-6)
    assert tight[IMAGE] == roomy[IMAGE]


def test_one_wild_image_does_not_decide_the_range() -> None:
    images = random_images(16)
    images.pixels[5] *= 100
    found = averages(GRAPHS["residual"](), images, 2)[IMAGE]
    assert found.high < float(images.pixels.max()) / 4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    values = np.zeros((3, 2), dtype=np.float32)
    values[2, 1] = value
    with pytest.raises(BadInputError, match="not finite") as raised:
        MovingAverageObserver("layer", 2).update(values)
    assert raised.value.where == "tensor 'layer'"


def test_nothing_seen_is_a_defect() -> None:
    with pytest.raises(DefectError):
        MovingAverageObserver("t", 4).result()
