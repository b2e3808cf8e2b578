"""The genuine bindings of each version against what is committed of them and what our code asks of them.

With `test_fake_tensorrt_*`, where our code runs over modules made of the committed names and no others, this says that
every name and parameter which the engine uses is in the genuine module, by version. Nothing is built: see
`install_wheels`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_tensorrt import make_tensorrt

from bindings.install_wheels import WHEELS
from edgekit.engines.tensorrt.binding import TensorRt

pytestmark = pytest.mark.bindings

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(params=WHEELS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(version: str, question: str) -> Any:
    folder = Path(os.environ["EDGEKIT_TENSORRT_BINDINGS"]).resolve()
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "bindings.genuine", str(folder), version, question],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_is_committed_is_what_the_wheel_has(version: str) -> None:
    assert ask(version, "surface") == []


def test_names_that_are_asked_for_are_there_where_the_stand_in_has_them(version: str) -> None:
    told = ask(version, "names")
    assert told.pop("problem") == ""
    stand_in = TensorRt(make_tensorrt(version), version)
    assert len(told) > 10
    rules = ("always_strong", "may_be_strong", "may_calibrate", "dla_by_cache", "dla_by_graph")
    assert told == {name: getattr(stand_in, name) if name in rules else stand_in.has(name) for name in told}


def test_the_classes_that_we_derive_are_accepted(version: str) -> None:
    told = ask(version, "interfaces")
    assert told["logger"] == ["said"]
    assert told["is_logger"] is True
    assert told.get("monitor") is (None if version == "8.6.1" else True)
    wanted = None if version.startswith("11") else ["ENTROPY_CALIBRATION_2", True, None]
    assert told.get("calibrator") == wanted


def test_objects_that_cannot_be_made_fail_as_our_code_expects(version: str) -> None:
    assert ask(version, "failures") == {"builder": "TypeError", "runtime": "UnavailableError"}
