"""The search of ranges on the map itself: what it finds, what it leaves alone, and that it can be killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from explained_graphs import GRAPHS, ArrayImages, random_images

from edgekit.calibrate.attribution import descent
from edgekit.calibrate.attribution.descent import descend
from edgekit.calibrate.attribution.judge import table_of
from edgekit.calibrate.calibrator import CalibrationContext
from edgekit.calibrate.drift import Drift, drift_of, relative_drift
from edgekit.calibrate.formats import Range, number_format
from edgekit.calibrate.graph import IMAGE, parse_graph
from edgekit.calibrate.minmax import MinMaxCalibrator
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import Answers, Probe, answers_of, float_answers
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.solution import Solution
from edgekit.core.progress import NullObserver

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Case:
    """A graph, where the search begins, and the images it goes by."""

    context: CalibrationContext
    solution: Solution
    images: npt.NDArray[np.float32]

    @property
    def reference(self) -> Answers:
        return float_answers(self.context.graph, self.images)

    def descended(self, *, frozen: frozenset[str] = NOTHING, sweeps: int = 1, **changes: Any) -> Solution:
        made = replace(self.context, **changes)
        return descend(made, self.solution, self.images, self.reference, frozen=frozen, sweeps=sweeps)

    def drift(self, solution: Solution) -> Drift:
        """Through the graph that would ship."""
        model = write_qdq(self.context.graph, table_of(self.context, solution))
        return drift_of(self.reference, answers_of(model, self.images, self.reference.classes))


def case(name: str = "residual", fmt: str = "x86-u8s8", count: int = 8) -> Case:
    graph, form = parse_graph(GRAPHS[name]().SerializeToString(), where="test"), number_format(fmt)
    images = random_images(count)
    options = CalibrateOptions(method="attribution")
    context = CalibrationContext(graph, place(graph, form), form, images, options)
    return Case(context, MinMaxCalibrator().solve(context), images.pixels)


def with_outlier(name: str = "shuffled") -> Case:
    """The image reaches twenty times as far as it does but for one pixel, which is not among those searched on."""
    made = case(name, count=13)
    pixels = made.images.copy()
    pixels[0, 0, 0, 0] = 20 * np.abs(pixels).max()
    context = replace(made.context, images=ArrayImages(pixels))
    return Case(context, MinMaxCalibrator().solve(context), pixels[1:])


def widened(solution: Solution, name: str, by: float) -> Solution:
    limits = solution.ranges[name]
    return replace(solution, ranges={**solution.ranges, name: Range(limits.low * by, limits.high * by)})


def test_the_range_of_an_outlier_is_narrowed_and_drift_falls() -> None:
    made = with_outlier()
    once, often = made.descended(), made.descended(sweeps=3)
    before, after, last = (item.ranges[IMAGE].amax for item in (made.solution, once, often))
    assert last < after < before
    assert last < 0.6 * before
    drifts = [made.drift(item) for item in (made.solution, once, often)]
    assert relative_drift(drifts[1], drifts[0]) < 0.9
    assert relative_drift(drifts[2], drifts[1]) < 1


@pytest.mark.parametrize("name", GRAPHS)
def test_any_tensor_that_is_far_too_wide_is_narrowed(name: str) -> None:
    made = case(name, count=16)
    inner = made.context.placement.observed[1]
    made = replace(made, solution=widened(made.solution, inner, 16.0))
    found = made.descended()
    assert found.ranges[inner].amax < made.solution.ranges[inner].amax
    assert relative_drift(made.drift(found), made.drift(made.solution)) < 1


@pytest.mark.parametrize("name", GRAPHS)
def test_it_is_worse_on_neither_half_of_the_images(name: str) -> None:
    # In a format without integer biases the search computes what ships: with them, biases follow scales afterwards.
    made = case(name, "trt-s8s8")
    found = made.descended()
    shares = []
    for half in (made.images[::2], made.images[1::2]):
        reference = float_answers(made.context.graph, half)
        drifts = []
        for solution in (found, made.solution):
            probe = Probe(made.context.graph, table_of(made.context, solution))
            drifts.append(drift_of(reference, probe.run(half, reference.classes, probe.setting())))
        shares.append(relative_drift(*drifts))
    assert max(shares) <= 1 + 1e-9
    assert (found.ranges == made.solution.ranges) == (max(shares) == pytest.approx(1, abs=1e-9))


def test_nothing_changes_but_ranges() -> None:
    made = with_outlier()
    found = made.descended(sweeps=2)
    assert set(found.ranges) == set(made.solution.ranges)
    assert found.ranges != made.solution.ranges
    assert all(limits.low <= 0 <= limits.high and limits.amax > 0 for limits in found.ranges.values())
    assert replace(found, ranges=made.solution.ranges) == made.solution


def test_frozen_tensors_stay() -> None:
    made = with_outlier()
    assert made.descended().ranges[IMAGE] != made.solution.ranges[IMAGE]
    assert made.descended(frozen=frozenset({IMAGE})).ranges[IMAGE] == made.solution.ranges[IMAGE]
    everything = frozenset(made.context.placement.observed)
    assert made.descended(frozen=everything).ranges == made.solution.ranges


@pytest.mark.parametrize(("count", "sweeps"), [(8, 0), (1, 1), (1, 3)])
def test_without_sweeps_or_two_halves_nothing_is_searched(count: int, sweeps: int) -> None:
    made = case("flattened", count=count)
    assert made.descended(sweeps=sweeps) is made.solution


def test_the_search_repeats_itself() -> None:
    made = with_outlier()
    assert made.descended(sweeps=2).ranges == made.descended(sweeps=2).ranges


class _KilledError(Exception):
    pass


@dataclass
class Killing(NullObserver):
    """Stands for a kill while one of the tensors is searched."""

    at: int

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        if done == self.at:
            raise _KilledError


@dataclass
class Counting(NullObserver):
    first: int | None = None
    last: tuple[int, int | None] | None = None

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        self.first = done if self.first is None else self.first
        self.last = (done, total)


def killed(made: Case, workplace: Path, at: int, sweeps: int = 2) -> None:
    with pytest.raises(_KilledError):
        made.descended(sweeps=sweeps, workplace=workplace, observer=Killing(at))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_search_that_was_killed_goes_on_where_it_was(share: float, tmp_path: Path) -> None:
    made, whole, again = with_outlier(), Counting(), Counting()
    expected = made.descended(sweeps=3, observer=whole)
    assert expected.ranges != made.solution.ranges
    assert whole.last is not None
    done, total = whole.last
    assert done == total
    at = int(share * done)
    killed(made, tmp_path / "work", at, sweeps=3)
    assert made.descended(sweeps=3, workplace=tmp_path / "work", observer=again) == expected
    assert again.first == at
    assert again.last == whole.last


def test_a_search_that_was_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = with_outlier()
    expected = made.descended(workplace=tmp_path)

    def improve(*_: Any) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(descent._Search, "improve", improve)
    assert made.descended(workplace=tmp_path) == expected


def other_start(made: Case) -> Case:
    return replace(made, solution=widened(made.solution, made.context.placement.observed[-1], 1.5))


def other_images(made: Case) -> Case:
    return replace(made, images=made.images[:6])


@pytest.mark.parametrize("other", [other_start, other_images])
def test_the_state_of_another_search_is_not_taken(other: Callable[[Case], Case], tmp_path: Path) -> None:
    made = with_outlier()
    changed = other(made)
    expected = changed.descended(sweeps=2)
    killed(made, tmp_path, 1)
    assert list(tmp_path.iterdir())
    assert changed.descended(sweeps=2, workplace=tmp_path) == expected


def test_other_sweeps_or_frozen_tensors_begin_anew(tmp_path: Path) -> None:
    made = with_outlier()
    frozen = frozenset({IMAGE})
    once, fixed = made.descended(), made.descended(frozen=frozen)
    killed(made, tmp_path, 1)
    assert made.descended(sweeps=1, workplace=tmp_path) == once
    killed(made, tmp_path, 1)
    assert made.descended(sweeps=1, frozen=frozen, workplace=tmp_path) == fixed


def test_without_a_workplace_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with_outlier().descended()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{}", '{"format": "edgekit.descent/0", "key": "", "ranges": {}, "done": 9}'])
def test_state_of_another_form_is_not_taken(content: str, tmp_path: Path) -> None:
    made = case("flattened")
    expected = made.descended(workplace=tmp_path)
    (written,) = tmp_path.iterdir()
    written.write_text(content, encoding="utf-8")
    assert made.descended(workplace=tmp_path) == expected
