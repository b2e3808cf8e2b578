"""What every calibrator in the registry owes, in every number format."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from explained_graphs import GRAPHS, ArrayImages, random_images

from edgekit.calibrate.calibrator import CALIBRATORS, CalibrationContext, TensorCalibrator
from edgekit.calibrate.formats import NUMBER_FORMATS, NumberFormat, Range, activation_params
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place

pytestmark = [
    pytest.mark.parametrize("method", CALIBRATORS.names()),
    pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name),
]


def context(fmt: NumberFormat, images: ArrayImages, method: str) -> CalibrationContext:
    graph = parse_graph(GRAPHS["residual"]().SerializeToString(), where="test")
    options = CalibrateOptions(method=method, bins=256, batch_size=4)
    return CalibrationContext(graph, place(graph, fmt), fmt, images, options)


def ranges(fmt: NumberFormat, images: ArrayImages, method: str) -> Mapping[str, Range]:
    made = context(fmt, images, method)
    return CALIBRATORS.load(method)(made.options).solve(made).ranges


def test_it_answers_for_every_observed_tensor(fmt: NumberFormat, method: str) -> None:
    made = context(fmt, random_images(), method)
    calibrator = CALIBRATORS.load(method)(made.options)
    solution = calibrator.solve(made)
    found = solution.ranges
    assert calibrator.name == method
    assert tuple(found) == made.placement.observed
    for name, limits in found.items():
        assert limits.amax > 0
        if solution.adjustments.changes_graph:
            # Channels were scaled: the adjusted graph's tensors reach as far as the factors say.
            continue
        stats = made.extremes[name]
        # Never wider than what was seen, up to the rounding of a bin's edge.
        slack = 1e-9 * stats.extremes.amax
        assert stats.extremes.low - slack <= limits.low <= 0 <= limits.high <= stats.extremes.high + slack
        assert limits.amax > 0


def test_equal_images_give_equal_ranges(fmt: NumberFormat, method: str) -> None:
    assert ranges(fmt, random_images(), method) == ranges(fmt, random_images(), method)


def test_its_parameters_are_all_it_depends_on(fmt: NumberFormat, method: str) -> None:
    calibrator = CALIBRATORS.load(method)(CalibrateOptions(bins=512, percentile=99.0))
    same = CALIBRATORS.load(method)(CalibrateOptions(bins=512, percentile=99.0, images=3))
    assert dict(calibrator.parameters) == dict(same.parameters)


@pytest.mark.parametrize("value", [0.0, 0.7, -3.0])
def test_constant_images_have_a_defined_result(fmt: NumberFormat, method: str, value: float) -> None:
    images = ArrayImages(np.full((3, 3, 16, 16), value, dtype=np.float32))
    for limits in ranges(fmt, images, method).values():
        params = activation_params(limits, fmt)
        assert params.scale > 0
        assert fmt.qmin <= params.zero_point <= fmt.qmax


def test_one_image_is_enough(fmt: NumberFormat, method: str) -> None:
    assert all(np.isfinite(limits.amax) for limits in ranges(fmt, random_images(1), method).values())


def test_an_outlier_of_a_million_is_survived(fmt: NumberFormat, method: str) -> None:
    images = random_images(4)
    images.pixels[0, 0, 0, 0] = 1e6
    found = ranges(fmt, images, method)["image"]
    assert 0 < found.amax <= 1e6


def test_the_number_of_passes_is_two_at_most(fmt: NumberFormat, method: str) -> None:
    images = random_images()
    ranges(fmt, images, method)
    # Methods that try several ways make a pass or two for each; none needs more where there are more images.
    streaming = isinstance(CALIBRATORS.load(method)(CalibrateOptions()), TensorCalibrator)
    assert images.passes <= (2 if streaming else 16)
