"""The command: does the units that are not there yet, side by side, and makes the tables.

Every unit is done in a process that stays for the next ones. Killed at any moment, the command goes on where it was:
a unit's result is a folder that appears whole. With `--minutes` no unit is begun that would not be done in time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from prepare_data import SHARED

from edgekit.core.canonical import read_json
from paper.context import Context
from paper.profiles import PROFILES
from paper.units import Unit, needed_by, selected_units

__all__ = ["main"]

RESULTS = Path(__file__).resolve().parents[1] / "results"
_FIRST_GUESS_SECONDS = 30.0


def _begin_worker(threads: int) -> None:
    """Where a worker begins: its threads, and its end when the command is killed."""
    import torch

    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _do(unit: Unit, context: Context) -> float:
    from paper.work import do_unit

    return do_unit(unit, context)


class _Clock:
    """Guesses how long units take, from those that were done."""

    def __init__(self, context: Context, units: Iterable[Unit]) -> None:
        self._seconds: dict[tuple[str, ...], list[float]] = {}
        for unit in units:
            if context.done(unit):
                self.tell(unit, read_json(context.folder(unit) / "unit.json")["seconds"])

    def tell(self, unit: Unit, seconds: float) -> None:
        for like in self._alike(unit):
            self._seconds.setdefault(like, []).append(seconds)

    def guess(self, unit: Unit) -> float:
        for like in self._alike(unit):
            if like in self._seconds:
                return sum(self._seconds[like]) / len(self._seconds[like])
        return _FIRST_GUESS_SECONDS

    @staticmethod
    def _alike(unit: Unit) -> tuple[tuple[str, ...], ...]:
        of = (unit.part, unit.kind, unit.network, unit.dataset, unit.loss)
        return tuple(of[:length] for length in range(len(of), -1, -1))


def _ready(unit: Unit, context: Context) -> bool:
    return all(context.done(each) for each in needed_by(unit))


def do_all(units: tuple[Unit, ...], context: Context, jobs: int, minutes: float) -> int:
    """Do what is not there yet; the number of units that are still to be done afterwards."""
    clock = _Clock(context, units)
    waiting = [unit for unit in units if not context.done(unit)]
    print(f"{len(units) - len(waiting)} of {len(units)} units are there", flush=True)
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_begin_worker, initargs=(context.threads,))
    running: dict[Future[float], Unit] = {}
    with pool:
        while waiting or running:
            for unit in [unit for unit in waiting if _ready(unit, context)]:
                # One more than there are workers, so that none has to wait for this process.
                if len(running) > jobs or time.monotonic() + clock.guess(unit) > end:
                    break
                running[pool.submit(_do, unit, context)] = unit
                waiting.remove(unit)
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                unit, seconds = running.pop(future), future.result()
                clock.tell(unit, seconds)
                left = sum(clock.guess(each) for each in [*waiting, *running.values()]) / jobs
                done = len(units) - len(waiting) - len(running)
                print(f"{done}/{len(units)} {unit.name}: {seconds:.0f} s; {left / 60:.0f} min left", flush=True)
    return len(waiting)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the units' results")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="units side by side, a thread each")
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="such as camvid-*-structured")
    parser.add_argument("--sweep", default="", metavar="beta=10,30,300", help="students again with other betas")
    parser.add_argument("--minutes", type=float, default=0, help="stop beginning units so as to end in time")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with data sets and published weights")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where tables go")
    parser.add_argument("--tables", choices=["no", "yes", "alone"], default="yes", help="make tables; do nothing else")
    return parser.parse_args()


def _betas(sweep: str) -> tuple[float, ...]:
    if not sweep:
        return ()
    name, _, values = sweep.partition("=")
    if name != "beta":
        raise SystemExit("--sweep takes beta=VALUE,VALUE")
    return tuple(float(value) for value in values.split(","))


def main() -> None:
    """Run the command."""
    given = _arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    context = Context(given.profile, given.shared.resolve(), given.work.resolve())
    units = selected_units(context.settings, tuple(given.only), _betas(given.sweep))
    left = 0
    if given.tables != "alone":
        left = do_all(units, context, given.jobs, given.minutes)
        print(f"{left} units left" if left else "all units are there", flush=True)
    if given.tables != "no":
        from paper.tables import make_tables

        make_tables(context, given.results)
