"""Which candidates no other beats, and in what order candidates are named, kept and timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekit.precision.candidate import Candidate

__all__ = ["FP32_NAME", "INT8_NAME", "fewest_lifted", "frontier", "named", "worth_timing"]

FP32_NAME = "fp32"
INT8_NAME = "int8"


def named(measured: Sequence[Candidate]) -> dict[str, Candidate]:
    """Candidates by name, the fewest lifted operations first: "int8", "mixed-1" and so on, "fp32".

    Of those with the same graph, which different exclusions may lead to, the first stands for all.
    """
    names: dict[str, Candidate] = {}
    graphs: set[str] = set()
    for candidate in sorted(measured, key=lambda item: (_lifted(item), item.lifted)):
        if candidate.model in graphs:
            continue
        graphs.add(candidate.model)
        if candidate.is_fp32:
            names[FP32_NAME] = candidate
        elif not candidate.lifted:
            names[INT8_NAME] = candidate
        else:
            names[f"mixed-{1 + sum(other.startswith('mixed') for other in names)}"] = candidate
    return names


def _lifted(candidate: Candidate) -> float:
    return float("inf") if candidate.is_fp32 else len(candidate.lifted)


def fewest_lifted(candidates: Mapping[str, Candidate]) -> tuple[str, ...]:
    """Names of the candidates that hold, the fewest lifted operations first; of equals the smaller, then the truer."""
    holding = [name for name, item in candidates.items() if item.holds]
    return tuple(
        sorted(
            holding,
            key=lambda name: (
                _lifted(candidates[name]),
                candidates[name].bytes,
                candidates[name].map_drift,
                candidates[name].lifted,
            ),
        )
    )


def frontier(candidates: Mapping[str, Candidate], milliseconds: Mapping[str, float] | None = None) -> tuple[str, ...]:
    """Names of the candidates that no other beats: at least as good in everything, better in something.

    Compared are map drift, accuracy (agreement where there are no labels), size, and latency where it is known.

    Args:
        candidates: By name.
        milliseconds: Latency by name; candidates without one are left out. None leaves latency out.
    """
    pool = (
        candidates if milliseconds is None else {name: candidates[name] for name in candidates if name in milliseconds}
    )
    goals = {name: _goals(item, None if milliseconds is None else milliseconds[name]) for name, item in pool.items()}
    front = [name for name in pool if not any(_beats(goals[other], goals[name]) for other in pool)]
    # Different exclusions may place the same pairs: of equals the first, which lifts least.
    first = {goals[name]: name for name in reversed(front)}
    return tuple(name for name in front if first[goals[name]] == name)


def _goals(candidate: Candidate, milliseconds: float | None) -> tuple[float, ...]:
    """What is to be small."""
    goals = (candidate.map_drift, -candidate.quality, float(candidate.bytes))
    return goals if milliseconds is None else (*goals, milliseconds)


def _beats(ours: tuple[float, ...], theirs: tuple[float, ...]) -> bool:
    return ours != theirs and all(our <= their for our, their in zip(ours, theirs, strict=True))


def worth_timing(candidates: Mapping[str, Candidate], most: int) -> tuple[str, ...]:
    """Names of the candidates to time: FP32, full INT8, then those on the frontier, those that hold first."""
    holding = fewest_lifted(candidates)
    front = frontier(candidates)
    order = (
        FP32_NAME,
        INT8_NAME,
        *holding[:1],
        *(name for name in holding if name in front),
        *(name for name in candidates if name in front),
    )
    chosen = tuple(dict.fromkeys(name for name in order if name in candidates))[:most]
    return tuple(name for name in candidates if name in chosen)
