"""Searching ranges on the map itself: one tensor after the other, through the quantised graph on images.

Rounding is chaotic: on few images a change that changes nothing looks like a gain or a loss of some percent. So a range
is kept only if it is better on both halves of the images, and by a margin; and only the few tensors are searched that
most of the drift comes from, since what the others could gain is less than that chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.attribution.judge import table_of
from edgekit.calibrate.calibrator import CalibrationContext
from edgekit.calibrate.drift import Drift, relative_drift, sample_drift
from edgekit.calibrate.formats import Range, activation_params
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import Answers, Probe, ProbeSetting
from edgekit.calibrate.solution import Solution
from edgekit.core.canonical import dump_canonical, read_json, write_json
from edgekit.core.digests import digest_array, digest_bytes

__all__ = ["descend"]

_STATE_NAME = "descent.json"
_FORMAT = "edgekit.descent/1"
_MARGIN = 0.97
_FACTORS = (0.7, 0.85, 0.93)
# Tensors are searched until they make up this share of what all do alone, and at most so many.
_SHARE = 0.8
_MOST_TENSORS = 8


@dataclass(frozen=True)
class _Searched:
    """Where the search is.

    Attributes:
        ranges: As they are now.
        done: How many tensors were tried, over all sweeps.
    """

    ranges: Mapping[str, Range]
    done: int


def descend(
    context: CalibrationContext,
    solution: Solution,
    images: npt.NDArray[np.float32],
    reference: Answers,
    *,
    frozen: frozenset[str],
    sweeps: int,
) -> Solution:
    """Better ranges for a solution, as far as some images tell.

    Args:
        context: What the solution is for. Its workplace keeps the state: a killed search goes on where it was.
        solution: Where to begin.
        images: float32 [N, 3, H, W], at least two.
        reference: The FP32 graph's answers to them.
        frozen: Tensors whose range is known and not searched.
        sweeps: Rounds over all tensors.
    """
    if sweeps == 0 or len(images) < 2:
        return solution
    search = _Search(context, solution, images, reference)
    plan = search.worst(frozen) * sweeps
    key = digest_bytes(dump_canonical([search.digest, digest_array(images), plan]))
    state = _resumed(context.workplace, key) or _Searched(solution.ranges, 0)
    search.take(state.ranges)
    for number, name in enumerate(plan):
        if number < state.done:
            continue
        context.observer.advanced("calibrate: ranges on the map", number, len(plan))
        search.improve(name)
        _keep(context.workplace, key, _Searched(search.ranges, number + 1))
    context.observer.advanced("calibrate: ranges on the map", len(plan), len(plan))
    return replace(solution, ranges=dict(search.ranges))


class _Search:
    """The probe, and the ranges it runs with."""

    def __init__(
        self, context: CalibrationContext, solution: Solution, images: npt.NDArray[np.float32], reference: Answers
    ) -> None:
        table = table_of(context, solution)
        self.fmt = context.number_format
        self.images, self.reference = images, reference
        self.ranges: dict[str, Range] = dict(solution.ranges)
        self.probe = Probe(context.graph, table)
        self.digest = digest_bytes(table.to_bytes())
        placement = place(self.probe.graph, self.fmt, context.options.exclude)
        self.roots = placement.observed
        self._copies = {
            root: [name for name, source in placement.range_of.items() if source == root] for root in self.roots
        }
        self.setting = self.probe.setting()
        self.before = self._halves(self.setting)

    def alone(self, name: str) -> float:
        """The drift of map and logits with only this tensor rounded."""
        found = self._halves(self.probe.setting(self._copies[name], ()))
        return sum(half.cosine + half.logits for half in found)

    def worst(self, frozen: frozenset[str]) -> list[str]:
        """The tensors worth a search, the worst first."""
        drifts = {name: self.alone(name) for name in self.roots if name not in frozen}
        order = sorted(drifts, key=lambda name: -drifts[name])
        reached = np.cumsum([drifts[name] for name in order])
        enough = int(np.searchsorted(reached, _SHARE * reached[-1])) + 1 if order else 0
        return order[: min(enough, _MOST_TENSORS)]

    def take(self, ranges: Mapping[str, Range]) -> None:
        """Go on from these ranges."""
        for name, limits in ranges.items():
            self.setting = self._with(self.setting, name, limits)
        self.ranges = dict(ranges)
        self.before = self._halves(self.setting)

    def improve(self, name: str) -> None:
        """Keep the best of some other ranges for one tensor, if one is better than the present one."""
        best = _MARGIN
        for limits in _others(self.ranges[name]):
            setting = self._with(self.setting, name, limits)
            found = self._halves(setting)
            shares = [relative_drift(ours, theirs) for ours, theirs in zip(found, self.before, strict=True)]
            if max(shares) < 1 and float(np.mean(shares)) < best:
                best, chosen, kept, drifts = float(np.mean(shares)), limits, setting, found
        if best < _MARGIN:
            self.ranges[name], self.setting, self.before = chosen, kept, drifts

    def _with(self, setting: ProbeSetting, name: str, limits: Range) -> ProbeSetting:
        params = activation_params(limits, self.fmt)
        return replace(setting, params={**setting.params, **dict.fromkeys(self._copies.get(name, ()), params)})

    def _halves(self, setting: ProbeSetting) -> tuple[Drift, ...]:
        found = sample_drift(self.reference, self.probe.run(self.images, self.reference.classes, setting))
        return tuple(
            Drift(**{name: float(values[start::2].mean()) for name, values in found.items()}) for start in (0, 1)
        )


def _others(limits: Range) -> Iterator[Range]:
    for factor in _FACTORS:
        yield Range(limits.low * factor, limits.high * factor)
        if limits.low < 0 < limits.high:
            yield Range(limits.low * factor, limits.high)
            yield Range(limits.low, limits.high * factor)


def _resumed(workplace: Path | None, key: str) -> _Searched | None:
    if workplace is None or not (workplace / _STATE_NAME).is_file():
        return None
    raw: dict[str, Any] = read_json(workplace / _STATE_NAME)
    if raw.get("format") != _FORMAT or raw.get("key") != key:
        return None
    return _Searched({name: Range(low, high) for name, (low, high) in raw["ranges"].items()}, int(raw["done"]))


def _keep(workplace: Path | None, key: str, state: _Searched) -> None:
    if workplace is None:
        return
    workplace.mkdir(parents=True, exist_ok=True)
    ranges = {name: [limits.low, limits.high] for name, limits in state.ranges.items()}
    write_json(workplace / _STATE_NAME, {"format": _FORMAT, "key": key, "ranges": ranges, "done": state.done})
