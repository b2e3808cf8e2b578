"""`edgekit policy suggest`: a policy on standard output, numbers on standard error, and words where there is none."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import tiny_bundle
from tiny_golden import tiny_golden

from edgekit import api
from edgekit.bundle.open import open_bundle
from edgekit.cli.main import run
from edgekit.config.documents import parse_yaml, read_policy
from edgekit.core.files import read_bytes
from edgekit.policy.clauses import ShareClause
from edgekit.policy.document import policy_from_dict
from edgekit.verify.gate import gate

STORED = Path(__file__).parents[1] / "golden" / "bundle-1.tar"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("suggest"))


def suggest(*arguments: object) -> int:
    return run(["policy", "suggest", *map(str, arguments), "--quiet", "--runs", "2"])


def test_the_policy_is_all_of_standard_output(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suggest(bundle) == 0
    told = capsys.readouterr()
    policy = policy_from_dict(parse_yaml(told.out.encode(), where="output"), where="output")
    assert {clause.metric for clause in policy.clauses if isinstance(clause, ShareClause)} >= {"cosine", "spearman"}
    with open_bundle(bundle) as opened:
        assert opened.manifest.digest in told.out
        assert gate(opened, policy).verdict.outcome in told.err
    for line in ("noise leaves", "permuted maps reach", "ships: pass", "10 % of the way"):
        assert line in told.out
    for line in ("fp32 on reference: run again", "floor", "control", "verdict: pass"):
        assert line in told.err


@pytest.mark.parametrize("name", ["policy.yaml", "policy.YML", "policy.json", "a # b: c.yaml"])
def test_a_written_policy_is_one_that_a_gate_takes(
    name: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suggest(bundle, "-o", tmp_path / name) == 0
    assert capsys.readouterr().out == ""
    policy = read_policy(tmp_path / name)
    assert api.gate(bundle, policy=policy).outcome == "pass"
    assert run(["policy", "explain", str(tmp_path / name), "--samples", "80"]) == 0


def test_json_holds_all_that_was_measured(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suggest(bundle, "--json", "--margin", "0.3", "--confidence", "0.9") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["policy"]["confidence"] == 0.9
    assert len(told["clauses"]) == len(told["policy"]["clauses"])
    assert "30 % of the way" in told["clauses"][0]["comment"]
    roles = {each["role"] for each in told["noise"]["measurements"]}
    assert roles == {"floor", "control"}
    for each in told["noise"]["measurements"]:
        assert each["samples"] == 80
        assert each["metrics"].keys() == {
            "argmax-distance", "cosine", "iou-top20", "js-divergence", "pearson", "spearman", "ssim",
        }  # fmt: skip
    assert {each["engine"] for each in told["noise"]["absent"]} >= {"tensorrt"}
    assert told["verdict"]["outcome"] == "pass"


def test_a_release_that_was_compressed_is_not_made_to_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """Pruned, and INT8: its ranks moved further than a tenth of the way to a blob, which the policy says."""
    assert suggest(STORED) == 0
    told = capsys.readouterr()
    assert "not the teacher's own" in told.out
    assert "ships: fail" in told.out
    assert "verdict: fail" in told.err
    assert "reached  int8 on ort-cpu: run again" in told.err


def test_too_few_samples_end_with_6_after_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suggest(tiny_bundle(tmp_path, 13), "-o", tmp_path / "policy.yaml") == 6
    told = capsys.readouterr()
    assert told.out == ""
    assert "at least 14 samples" in told.err
    assert "fp32 on reference: run again" in told.err
    assert not (tmp_path / "policy.yaml").exists()


def test_images_whose_maps_are_one_end_with_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One image over and over but for a pixel that no cell hangs on: nothing tells one map from another."""
    golden = tiny_golden(40)
    same = {name: np.repeat(getattr(golden, name)[:1], 40, axis=0) for name in ("pixels", "labels", "logits", "maps")}
    same["pixels"][:, 0, 0, 0] = np.arange(40)
    flat = replace(golden, **same)
    assert suggest(tiny_bundle(tmp_path, flat)) == 6
    assert "permuted maps reach 1" in capsys.readouterr().err


def test_a_bundle_without_scores_is_judged_by_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suggest(tiny_bundle(tmp_path, verified=False)) == 0
    told = capsys.readouterr()
    assert "no scores yet" in told.err
    assert "ships:" not in told.out


@pytest.mark.parametrize("name", ["policy", "policy.txt", "policy.yaml.onnx"])
def test_a_file_whose_name_says_nothing_is_refused_before_any_work(
    name: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suggest(bundle, "-o", tmp_path / name) == 3
    told = capsys.readouterr()
    assert ".yaml" in told.err
    assert "run again" not in told.err


@pytest.mark.parametrize(
    "arguments",
    [("--margin", "0"), ("--margin", "1"), ("--confidence", "1"), ("--confidence", "0.3"), ("--margin", "nan")],
)
def test_numbers_out_of_range_are_usage_errors(
    arguments: tuple[str, str], bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suggest(bundle, *arguments) in {2, 3}
    assert "Traceback" not in capsys.readouterr().err


def test_what_is_not_there_is_said(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suggest(tmp_path / "absent") == 3
    assert suggest(bundle, "--engine", "tpu") == 3
    assert "reference" in capsys.readouterr().err
    assert suggest(bundle, "--engine", "tensorrt") == 5


def test_hostile_folders_and_files_are_only_paths(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "a\nclauses: []\n# \x1b[31m"
    shutil.copytree(bundle, odd)
    assert suggest(odd) == 0
    strange = capsys.readouterr().out
    assert suggest(bundle) == 0
    assert capsys.readouterr().out == strange, "what the folder is called is nowhere in the policy"


def test_a_damaged_bundle_is_not_measured(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    path = copy / "golden" / "maps.npy"
    path.write_bytes(read_bytes(path)[:-1] + b"\x01")
    assert suggest(copy) == 4
