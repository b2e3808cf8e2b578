"""The environment print says what counts for a result and nothing about whose machine it was."""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import socket
from importlib import metadata
from pathlib import Path

import pytest

from edgekit import __version__
from edgekit.core import environment
from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.core.environment import distribution_version, environment_print, onnxruntime_distributions, processor_name


def test_it_can_be_stored_and_is_the_same_twice() -> None:
    found = environment_print()
    assert parse_strict(dump_canonical(found), where="print") == found == environment_print()


def test_it_holds_what_a_number_depends_on() -> None:
    found = environment_print()
    assert found["python"] == platform.python_version()
    assert found["machine"] == platform.machine()
    assert found["logical_cpus"] == os.cpu_count()
    assert found["packages"]["numpy"] == metadata.version("numpy")
    assert found["packages"]["edgekit"] == __version__
    assert found["processor"]


def texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in texts(part)]
    return [value] if isinstance(value, str) else []


def test_it_names_no_user_host_or_path() -> None:
    found = json.dumps(environment_print())
    private = {socket.gethostname(), socket.getfqdn(), platform.node(), str(Path.home()), str(Path.cwd())}
    # Short names such as "root" or "a" are parts of ordinary words.
    private |= {name for name in (getpass.getuser(), os.environ.get("USER", "")) if len(name) > 4}
    assert not [name for name in private if len(name) > 3 and name in found]
    assert not [text for text in texts(environment_print()) if re.search(r"(^|\s)(/|[A-Za-z]:\\)", text)]


def test_it_does_not_change_with_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = environment_print()
    for name in ("USER", "LOGNAME", "USERNAME", "HOME", "HOSTNAME"):
        monkeypatch.setenv(name, "somebody-else")
    monkeypatch.setattr(socket, "gethostname", lambda: "another-host")
    monkeypatch.setattr(platform, "node", lambda: "another-host")
    monkeypatch.chdir(tmp_path)
    assert environment_print() == before


def test_what_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distribution_version("no-such-distribution") is None
    monkeypatch.setattr(environment, "distribution_version", {"onnxruntime": "1.0"}.get)
    assert environment_print()["packages"] == {"onnxruntime": "1.0"}
    assert onnxruntime_distributions() == ("onnxruntime",)


def test_two_distributions_of_one_runtime_are_both_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"onnxruntime": "1.0", "onnxruntime-gpu": "1.1"}
    monkeypatch.setattr(environment, "distribution_version", here.get)
    assert onnxruntime_distributions() == ("onnxruntime", "onnxruntime-gpu")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Some CPU @ 2.4GHz\nmodel name\t: Other\n", "Some CPU @ 2.4GHz"),
        ("processor : 0\nHardware\t: BCM2835\n", "BCM2835"),
        ("processor : 0\n", None),
    ],
)
def test_the_processor_where_the_system_tells_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: str | None
) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(text)
    monkeypatch.setattr(environment, "Path", lambda _: told)
    assert processor_name() == (expected or platform.processor() or platform.machine())
