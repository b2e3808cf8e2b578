"""The command: does the units that are not there yet, one at a time, and makes the tables.

Killed at any moment, the command goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prepare_data import SHARED

from calibration.context import Context
from calibration.methods import TOOLS
from calibration.profiles import PROFILES, Profile
from calibration.units import Unit, selected_units
from calibration.work import Bench, read_unit

__all__ = ["main"]

RESULTS = Path(__file__).resolve().parents[1] / "results"


def do_all(units: Sequence[Unit], context: Context, *, retry: bool, minutes: float) -> int:
    """Do what is not there yet; the number of units that are still to be done afterwards."""
    if retry:
        for unit in units:
            if context.done(unit) and "not_run" in read_unit(unit, context):
                shutil.rmtree(context.folder(unit))
    waiting = [unit for unit in units if not context.done(unit)]
    print(f"{len(units) - len(waiting)} of {len(units)} units are there", flush=True)
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    with Bench(context) as bench:
        for done, unit in enumerate(waiting):
            if time.monotonic() > end:
                return len(waiting) - done
            begun = time.monotonic()
            said = bench.do(unit)
            print(f"{done + 1}/{len(waiting)} {unit.name}: {time.monotonic() - begun:.1f} s; {said}", flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for networks, images and the units' results")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="full")
    parser.add_argument("--networks", nargs="+", default=[], metavar="PATTERN")
    parser.add_argument("--formats", nargs="+", default=[], metavar="NAME", help="formats beside the profile's too")
    parser.add_argument("--methods", nargs="+", default=[], metavar="PATTERN", help="such as minmax 'nncf*'")
    parser.add_argument("--parts", nargs="+", default=[], choices=["scores", "memory"])
    parser.add_argument("--minutes", type=float, default=0, help="begin no unit after as many")
    parser.add_argument("--retry", action="store_true", help="do units again that could not be run")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with data sets and published weights")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where tables go")
    parser.add_argument("--tables", choices=["no", "yes", "alone"], default="yes", help="make tables; do nothing else")
    parser.add_argument("--onnxruntime-python", default=sys.executable, metavar="FILE")
    for tool in ("nncf", "modelopt"):
        parser.add_argument(
            f"--{tool}-python", default=f"{tool}-python", metavar="FILE", help=f"that runs {TOOLS[tool]}"
        )
    return parser.parse_args()


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold a work folder: two runs would take each other's unfinished units for leftovers, and slow each other."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another run works in {work}") from None
        yield


def _profile(given: argparse.Namespace) -> Profile:
    profile = PROFILES[given.profile]
    named = [name for name in given.formats if "*" not in name]
    return dataclasses.replace(profile, formats=tuple(dict.fromkeys([*profile.formats, *named])))


def main() -> None:
    """Run the command."""
    given = _arguments()
    pythons = {"onnxruntime": given.onnxruntime_python, "nncf": given.nncf_python, "modelopt": given.modelopt_python}
    context = Context(_profile(given), given.shared.resolve(), given.work.resolve(), pythons)
    if given.tables != "alone":
        units = selected_units(context.profile, given.networks, given.formats, given.methods, given.parts)
        with _alone(context.work):
            left = do_all(units, context, retry=given.retry, minutes=given.minutes)
        print(f"{left} units left" if left else "all units are there", flush=True)
    if given.tables != "no":
        from calibration.tables import make_tables

        make_tables(context, given.results)
