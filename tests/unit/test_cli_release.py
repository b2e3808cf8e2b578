"""`keys`, `release` and `check` as commands: exit codes, what is printed, and where a passphrase comes from."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import click
import pytest
from faulty import with_weights
from signed_bundles import KEY, NOW, OTHER_KEY, make_bundle
from tiny_golden import GRAPH

from edgekit.cli.durations import parse_duration
from edgekit.cli.main import run
from edgekit.core.environment import environment_print
from edgekit.release.sign import release
from edgekit.signing.private import write_key_pair

SECRET = "correct horse battery"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was verified on this very machine."""
    return make_bundle(tmp_path_factory.mktemp("sound"), environment=environment_print())


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> str:
    return str(shutil.copytree(sound, tmp_path / "work" / "release"))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, str]:
    private, public = write_key_pair(KEY, tmp_path / "keys", "release")
    return str(private), str(public)


def answered(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_from_a_new_key_to_a_checked_release(bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    assert run(["keys", "new", "-o", str(folder), "--name", "ci", "--json"]) == 0
    made = answered(capsys)
    assert made["private"] == str(folder / "ci.key")
    assert run(["keys", "show", str(folder / "ci.pub"), "--json"]) == 0
    assert answered(capsys)["key"] == made["key"]
    assert run(["release", bundle, "--key", str(folder / "ci.key"), "--expires", "180d", "--json"]) == 0
    signed = answered(capsys)
    assert (signed["signed"], signed["key"], signed["files"]) == (True, made["key"], [bundle])
    assert run(["check", bundle, "--key", str(folder / "ci.pub"), "--max-age", "90d", "--json"]) == 0
    checked = answered(capsys)
    assert (checked["outcome"], checked["key"], checked["bundle"]) == ("pass", made["key"], signed["bundle"])
    assert run(["gate", bundle, "--json"]) == 0
    assert "signature was not checked" in str(answered(capsys)["notice"])


def test_what_people_read(bundle: str, keys: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["release", bundle, "--key", keys[0]]) == 0
    said = capsys.readouterr().out
    assert "edgekit check release --key PUBLIC" in said
    assert KEY.public.key_id in said
    assert run(["check", bundle, "--key", keys[1]]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^expires +never$", said, re.MULTILINE)
    assert "operating system" in said
    assert run(["check", bundle, "--key", keys[1], "--any-device"]) == 0
    assert "not compared" in capsys.readouterr().out


def test_a_key_goes_to_the_users_settings_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    assert run(["keys", "new", "--json"]) == 0
    assert answered(capsys)["private"] == str(tmp_path / "settings" / "edgekit" / "keys" / "release.key")
    assert run(["keys", "new"]) == 3
    assert "never replaced" in capsys.readouterr().err


def test_a_passphrase_from_the_environment(
    bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEKIT_KEY_PASSPHRASE", SECRET)
    key = tmp_path / "keys" / "release.key"
    assert run(["keys", "new", "-o", str(key.parent), "--passphrase"]) == 0
    assert "ENCRYPTED" in key.read_text()
    assert run(["release", bundle, "--key", str(key)]) == 0
    monkeypatch.setenv("EDGEKIT_KEY_PASSPHRASE", "wrong")
    assert run(["release", bundle, "--key", str(key)]) == 3
    monkeypatch.setenv("EDGEKIT_KEY_PASSPHRASE", "")
    assert run(["keys", "new", "-o", str(key.parent), "--name", "b", "--passphrase"]) == 3
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err


def test_a_passphrase_that_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EDGEKIT_KEY_PASSPHRASE", raising=False)
    asked: list[dict[str, object]] = []

    def prompt(text: str, **options: object) -> str:
        asked.append(options)
        return SECRET

    monkeypatch.setattr(click, "prompt", prompt)
    assert run(["keys", "new", "-o", str(tmp_path), "--passphrase"]) == 0
    assert asked == [{"hide_input": True, "confirmation_prompt": True, "err": True, "default": ""}]

    def nobody(text: str, **options: object) -> str:
        raise click.Abort

    monkeypatch.setattr(click, "prompt", nobody)
    assert run(["keys", "new", "-o", str(tmp_path), "--name", "b", "--passphrase"]) == 3
    assert "EDGEKIT_KEY_PASSPHRASE" in capsys.readouterr().err


def test_the_exit_codes_of_release(
    bundle: str, keys: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = with_weights(GRAPH, tmp_path / "d.onnx", lambda w: w[::-1] if w.shape == (4, 3) and w.max() < 1 else None)
    blocked = make_bundle(tmp_path / "blocked", graph=graph, status="blocked")
    few = make_bundle(tmp_path / "few", count=4, policy="default", status="inconclusive")
    assert run(["release", str(blocked), "--key", keys[0]]) == 1
    assert "not signed: the gate fails" in capsys.readouterr().out
    assert run(["release", str(few), "--key", keys[0], "--json"]) == 6
    said = answered(capsys)
    assert (said["signed"], said["key"], said["files"]) == (False, None, [])
    assert run(["release", bundle, "--key", keys[1]]) == 3
    assert run(["release", bundle]) == 2
    assert run(["release", bundle, "--key", keys[0], "--expires", "soon"]) == 2
    assert run(["release", str(tmp_path / "nothing"), "--key", keys[0]]) == 3
    (Path(bundle) / "scales.json").write_bytes(b"{}\n")
    assert run(["release", bundle, "--key", keys[0]]) == 4


def test_the_exit_codes_of_check(
    bundle: str, keys: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, other = write_key_pair(OTHER_KEY, tmp_path / "keys", "other")
    assert run(["check", bundle, "--key", keys[1]]) == 4
    assert "not signed" in capsys.readouterr().err
    assert run(["release", bundle, "--key", keys[0], "--expires", "1d"]) == 0
    assert run(["check", bundle, "--key", str(other), "--key", keys[1]]) == 0
    assert run(["check", bundle, "--key", str(other)]) == 4
    assert run(["check", bundle]) == 2
    assert run(["check", bundle, "--key", keys[0]]) == 3
    assert "private key where a public one" in capsys.readouterr().err
    foreign = make_bundle(tmp_path / "foreign", environment={"machine": "vax", "system": "VMS"})
    assert run(["release", str(foreign), "--key", keys[0]]) == 0
    assert run(["check", str(foreign), "--key", keys[1]]) == 5
    assert run(["check", str(foreign), "--key", keys[1], "--any-device"]) == 0


def test_a_stale_release_is_inconclusive(
    bundle: str, keys: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    release(Path(bundle), KEY, now=NOW - timedelta(days=400), lifetime=timedelta(days=1))
    assert run(["check", bundle, "--key", keys[1]]) == 6
    assert "expired" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90d", timedelta(days=90)),
        ("36h", timedelta(hours=36)),
        ("30m", timedelta(minutes=30)),
        ("1s", timedelta(seconds=1)),
    ],
)
def test_a_length_of_time(text: str, length: timedelta) -> None:
    context, option = click.Context(click.Command("x")), click.Option(["--max-age"])
    assert parse_duration(context, option, text) == length
    assert parse_duration(context, option, None) is None


@pytest.mark.parametrize("text", ["", "0d", "d", "1", "1w", "-1d", "1.5d", "1 d", "1d2h", "999999d", "\u0661d"])
def test_what_is_no_length_of_time(text: str) -> None:
    context, option = click.Context(click.Command("x")), click.Option(["--max-age"])
    with pytest.raises(click.BadParameter, match="no length of time"):
        parse_duration(context, option, text)


_ON_A_DEVICE = """
import json, sys
class Fence:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cryptography", "onnx", "onnxruntime", "PIL", "pydantic", "torch", "yaml"):
            raise ModuleNotFoundError(f"{name} is not on this device", name=name)
sys.meta_path.insert(0, Fence())
from edgekit.cli.main import run
code = run(json.loads(sys.argv[1]))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
sys.exit(code)
"""


def test_check_needs_numpy_alone(bundle: str, keys: tuple[str, str]) -> None:
    release(Path(bundle), KEY)
    command = [sys.executable, "-c", _ON_A_DEVICE, json.dumps(["check", bundle, "--key", keys[1], "--json"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "pass"
    assert "numpy" in json.loads(done.stderr)


def test_signing_says_what_it_lacks_where_cryptography_is_missing(bundle: str, keys: tuple[str, str]) -> None:
    for arguments in (["keys", "new", "-o", str(Path(keys[0]).parent / "n")], ["release", bundle, "--key", keys[0]]):
        command = [sys.executable, "-c", _ON_A_DEVICE, json.dumps(arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 5, done.stderr
        assert "edgekit[host]" in done.stderr
