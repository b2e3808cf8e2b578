"""The search for a smallest set of operations that have to be lifted so that a policy holds. Numbers-free: it asks.

Lift the worst 1, 2, 4, ... operations until the policy holds; bisect between the last two; then lower each lifted
operation again, those that harm least first. In the last step halves are tried before single ones, which asks a few
times where most may be lowered, and finds the same set as one by one where more lifting never breaks what holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["SearchResult", "Step", "find_lifted"]


@dataclass(frozen=True)
class Step:
    """One question and its answer.

    Attributes:
        phase: "int8", "lift", "bisect" or "lower".
        lifted: The operations that were lifted.
        holds: Whether the policy held.
    """

    phase: str
    lifted: frozenset[str]
    holds: bool


@dataclass(frozen=True)
class SearchResult:
    """What the search found.

    Attributes:
        lifted: The operations to lift: taking back any one of them alone was seen to break the policy.
        steps: Every question, in order.
    """

    lifted: frozenset[str]
    steps: tuple[Step, ...]


def find_lifted(ranked: Sequence[str], holds: Callable[[frozenset[str]], bool]) -> SearchResult:
    """Find operations whose lifting makes the policy hold.

    Args:
        ranked: All operations that can be lifted, the most harmful first.
        holds: Whether the policy holds with these lifted. With all of them lifted it does.
    """
    return _Search(ranked, holds).result()


class _Search:
    def __init__(self, ranked: Sequence[str], holds: Callable[[frozenset[str]], bool]) -> None:
        self._ranked = tuple(ranked)
        self._holds = holds
        self._steps: list[Step] = []
        # Everything lifted is the FP32 graph, of which the caller knows that it holds.
        self._answers = {frozenset(ranked): True}

    def result(self) -> SearchResult:
        """Ask until the set is smallest."""
        if self._ask("int8", frozenset()):
            return SearchResult(frozenset(), tuple(self._steps))
        prefix = self._ranked[: self._shortest_prefix()]
        lifted = frozenset(prefix)
        if len(prefix) > 1:
            # Taking back all of them is the full INT8 graph, which failed.
            for half in _halves(prefix[::-1]):
                lifted = self._lower(lifted, half)
        return SearchResult(lifted, tuple(self._steps))

    def _ask(self, phase: str, lifted: frozenset[str]) -> bool:
        if lifted not in self._answers:
            self._answers[lifted] = self._holds(lifted)
            self._steps.append(Step(phase, lifted, self._answers[lifted]))
        return self._answers[lifted]

    def _shortest_prefix(self) -> int:
        failed, count = 0, 1
        while count < len(self._ranked) and not self._ask("lift", frozenset(self._ranked[:count])):
            failed, count = count, 2 * count
        held = min(count, len(self._ranked))
        while held - failed > 1:
            middle = (failed + held) // 2
            if self._ask("bisect", frozenset(self._ranked[:middle])):
                held = middle
            else:
                failed = middle
        return held

    def _lower(self, lifted: frozenset[str], group: tuple[str, ...]) -> frozenset[str]:
        """What is still lifted when as many of the group as may be are lowered; the least harmful come first."""
        without = lifted.difference(group)
        if not without:
            # Nothing lifted is the full INT8 graph, which failed: one of the group has to stay.
            if len(group) == 1:
                return lifted
        elif self._ask("lower", without):
            return without
        if len(group) == 1:
            return lifted
        for half in _halves(group):
            lifted = self._lower(lifted, half)
        return lifted


def _halves(group: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    middle = (len(group) + 1) // 2
    return group[:middle], group[middle:]
