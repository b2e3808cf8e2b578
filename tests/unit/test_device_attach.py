"""Evidence against its candidate: what fits completes the release, and whatever does not is refused by its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from device_candidates import candidate, device_stand_in, edited, run_on_device
from faulty import FaultyRunner, on_maps
from tensorrt_stand_ins import PAIRS

from edgekit import api
from edgekit.bundle import layout
from edgekit.bundle.open import open_bundle
from edgekit.core.canonical import dump_canonical, read_json
from edgekit.core.digests import digest_bytes, digest_file
from edgekit.device.evidence import EVIDENCE_NAME, read_evidence
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import BadInputError, EdgekitError, EvidenceNeededError, IntegrityError, UnavailableError
from edgekit.pipeline.attach import AttachRequest, attach

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The candidate's tar file, in a folder of its own."""
    return candidate(tmp_path_factory.mktemp("host")).archive


@pytest.fixture(scope="module")
def device(host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the device wrote. Not to be changed: ask for `brought`."""
    folder = tmp_path_factory.mktemp("device")
    monkeypatch = pytest.MonkeyPatch()
    with device_stand_in(*PAIRS[2], monkeypatch, folder):
        run_on_device(host, folder / "evidence")
    monkeypatch.undo()
    return folder / "evidence"


@pytest.fixture
def brought(device: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(device, tmp_path / "evidence"))


def test_the_release_is_completed(host: Path, brought: Path, tmp_path: Path) -> None:
    with pytest.raises(EvidenceNeededError, match="needs evidence from the device") as refused:
        api.gate(host)
    assert refused.value.exit_code == 6
    result = attach(AttachRequest(host, brought, tmp_path / "out"))
    assert result.manifest.status == "released"
    assert result.folder == tmp_path / "out" / "release"
    assert api.gate(result.archive).outcome == "pass"
    evidence = read_evidence(brought / EVIDENCE_NAME)
    with open_bundle(result.archive) as opened:
        chosen = result.selection.chosen
        assert chosen == "int8"
        # The very engine that the device built and ran.
        assert opened.model_path == opened.path(layout.PLAN)
        assert digest_file(opened.model_path) == evidence.files["build-int8/model.plan"].sha256
        assert digest_file(opened.partner_path) == evidence.files["build-fp32/model.plan"].sha256
        assert opened.read_bytes(layout.DEVICE_EVIDENCE) == evidence.to_bytes()
        assert opened.read_json(layout.SCORES) == evidence.candidates["int8"].scores
        assert NEVER_RUN in opened.read_bytes(layout.REPORT_JSON).decode()
        with open_bundle(host) as before:
            for name in (layout.MODEL, layout.REFERENCE, layout.SCALES, layout.POLICY, layout.DEVICE_PLAN):
                assert opened.read_bytes(name) == before.read_bytes(name)
            assert opened.manifest.lineage["device-candidate"] == before.manifest.digest
        assert opened.manifest.lineage["device-evidence"] == evidence.digest
    # The document may be named in place of its folder, and what is unchanged is not written again.
    again = attach(AttachRequest(host, brought / EVIDENCE_NAME, tmp_path / "out"))
    assert again.manifest == result.manifest


def test_maps_that_moved_are_a_blocked_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = candidate(tmp_path / "build")
    from edgekit.verify import stage

    sound = stage.answer_golden

    def moved(runner: Any, *arguments: Any, **options: Any) -> Any:
        turned = FaultyRunner(runner, after=on_maps(lambda maps: maps[:, ::-1, ::-1]))
        return sound(turned, *arguments, **options)

    with device_stand_in(*PAIRS[2], monkeypatch, tmp_path):
        monkeypatch.setattr(stage, "answer_golden", moved)
        evidence = run_on_device(made.folder, tmp_path / "evidence")
    assert {said.verdict["outcome"] for said in evidence.candidates.values()} == {"fail"}
    result = attach(AttachRequest(made.folder, tmp_path / "evidence"))
    assert result.manifest.status == "blocked"
    # Beside the candidate by default, which stays, and never under the name of a release.
    assert result.folder == tmp_path / "build" / "candidate"
    assert made.folder.is_dir()
    assert not (tmp_path / "build" / "release").exists()
    assert api.gate(result.folder).outcome == "fail"


def _attach_refused(host: Path, brought: Path, tmp_path: Path) -> EdgekitError:
    with pytest.raises(EdgekitError) as caught:
        attach(AttachRequest(host, brought, tmp_path / "out"))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    error = caught.value
    assert error.where
    assert error.expected or error.found
    return error


@pytest.mark.parametrize("policy", ["default", "strict"])
def test_evidence_of_another_bundle(policy: str, brought: Path, tmp_path: Path) -> None:
    # The same graphs for another target, or under another policy.
    target = "jetson-orin-nx" if policy == "default" else "jetson-orin-nano"
    other = candidate(tmp_path / "other", target=target, policy=policy)
    error = _attach_refused(other.archive, brought, tmp_path)
    assert isinstance(error, BadInputError)
    assert "another bundle" in error.message


@pytest.mark.parametrize(("key", "words"), [("plan", "device plan"), ("golden", "golden set"), ("policy", "policy")])
def test_evidence_of_another_plan_golden_set_or_policy(
    key: str, words: str, host: Path, brought: Path, tmp_path: Path
) -> None:
    edited(brought, lambda raw: raw.__setitem__(key, "0" * 64), sealed=True)
    error = _attach_refused(host, brought, tmp_path)
    assert isinstance(error, BadInputError)
    assert f"another {words}" in error.message


def _set(*path: str, value: Any) -> Change:
    def change(raw: dict[str, Any]) -> None:
        for key in path[:-1]:
            raw = raw[key]
        raw[path[-1]] = value

    return change


def _drop(*path: str) -> Change:
    def change(raw: dict[str, Any]) -> None:
        for key in path[:-1]:
            raw = raw[key]
        del raw[path[-1]]

    return change


def _another_module(raw: dict[str, Any]) -> None:
    raw["device"] |= {"module": "jetson-agx-orin-64gb", "base_module": "jetson-agx-orin-64gb"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_another_module, "another device"),
        (_set("device", "tensorrt", value="8.5.2"), "TensorRT that the plan is not for"),
        (_set("device", "tensorrt", value="11.4.1"), "TensorRT that the plan is not for"),
        (_set("created_with", value="0.0.1"), "another version of edgekit"),
        (_set("environment", "python", value="3.8.10"), "needs Python 3.10 or later"),
        (_set("environment", "python", value="3.12.3"), "for Python 3.10"),
    ],
    ids=["module", "older", "newer", "edgekit", "python-8", "python-12"],
)
def test_evidence_of_another_target(change: Change, words: str, host: Path, brought: Path, tmp_path: Path) -> None:
    edited(brought, change, sealed=True)
    error = _attach_refused(host, brought, tmp_path)
    assert isinstance(error, UnavailableError)
    assert words in error.message


@pytest.mark.parametrize("change", [_drop("environment", "python"), _set("environment", "python", value=3)])
def test_evidence_that_hides_its_python(change: Change, host: Path, brought: Path, tmp_path: Path) -> None:
    edited(brought, change, sealed=True)
    error = _attach_refused(host, brought, tmp_path)
    assert isinstance(error, IntegrityError)
    assert "which Python" in error.message


def _fewer_samples(raw: dict[str, Any]) -> None:
    """The worst samples left out of every column, and the verdict with them."""
    for said in raw["candidates"].values():
        scores = said["scores"]
        for column in ("sample", "label", "teacher_class", "engine_class", "state"):
            scores[column] = scores[column][:60]
        for group in ("metrics", "own_class_metrics", "localisation"):
            scores[group] = {name: values[:60] for name, values in scores[group].items()}


def _fewer_metrics(raw: dict[str, Any]) -> None:
    for group in ("metrics", "own_class_metrics"):
        del raw["candidates"]["int8"]["scores"][group]["cosine"]


def _better_verdict(raw: dict[str, Any]) -> None:
    raw["candidates"]["int8"]["verdict"]["right_label_wrong_evidence"] += 1


SEALED = {
    "a candidate": (_drop("candidates", "fp32"), "not whole"),
    "other timing": (_set("latency", "options", "warmup", value=1), "another way"),
    "samples": (_fewer_samples, "different things"),
    "metrics": (_fewer_metrics, "different things"),
    "verdict": (_better_verdict, "different things"),
    "header": (_set("candidates", "int8", "header", "build", "skipped_tactics", value=7), "inspection"),
    "findings": (_set("candidates", "int8", "findings", value=[{"fault": "x"}]), "different things"),
    "TensorRT": (_set("device", "tensorrt", value="10.3.1"), "TensorRT"),
    "GPU": (_set("device", "gpu", "name", value="NVIDIA Thor"), "GPU"),
    "engine": (_set("candidates", "int8", "engine", value="build-fp32/model.plan"), "own engine"),
    "scores' file": (_drop("files", "verify-int8/scores.json"), "too few files"),
    "engine's digest": (_drop("files", "build-int8/model.plan"), "own engine"),
    "other files": (_set("files", "golden/maps.npy", value={"sha256": "0" * 64, "size": 1}), "none of its engines"),
    "files outside": (_set("files", "build-int8/../../x", value={"sha256": "0" * 64, "size": 1}), "unsafely"),
}


@pytest.mark.parametrize("name", SEALED)
def test_edited_evidence_with_a_digest_that_fits(name: str, host: Path, brought: Path, tmp_path: Path) -> None:
    change, words = SEALED[name]
    edited(brought, change, sealed=True)
    error = _attach_refused(host, brought, tmp_path)
    assert isinstance(error, IntegrityError)
    assert words in error.message


@pytest.mark.parametrize("change", [_fewer_samples, _better_verdict, _another_module, _drop("device", "l4t")])
def test_edited_evidence(change: Change, host: Path, brought: Path, tmp_path: Path) -> None:
    edited(brought, change, sealed=False)
    error = _attach_refused(host, brought, tmp_path)
    assert isinstance(error, IntegrityError)


def _everywhere(brought: Path, change: Change) -> None:
    """Edit the scores in every place that has them, with every digest made to fit: somebody who knows the format."""
    edited(brought, change, sealed=True)
    raw = read_json(brought / EVIDENCE_NAME)
    for name, said in raw["candidates"].items():
        for file in ("scores", "verdict"):
            path = f"verify-{name}/{file}.json"
            data = dump_canonical(said[file])
            (brought / path).write_bytes(data)
            raw["files"][path] = {"sha256": digest_bytes(data), "size": len(data)}
    edited(brought, lambda old: old.update(files=raw["files"]), sealed=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [(_fewer_samples, "not complete: samples"), (_fewer_metrics, "not complete"), (_better_verdict, "policy says")],
)
def test_trimmed_evidence_that_is_of_one_piece(
    change: Change, words: str, host: Path, brought: Path, tmp_path: Path
) -> None:
    _everywhere(brought, change)
    error = _attach_refused(host, brought, tmp_path)
    assert isinstance(error, IntegrityError)
    assert words in error.message


@pytest.mark.parametrize("name", ["build-int8/model.plan", "verify-fp32/engine_maps.npy", "build-fp32/record.json"])
def test_a_file_that_is_missing_or_changed(name: str, host: Path, brought: Path, tmp_path: Path) -> None:
    path = brought / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "was changed" in _attach_refused(host, brought, tmp_path).message
    path.unlink()
    error = _attach_refused(host, brought, tmp_path)
    assert isinstance(error, BadInputError)
    assert "whole output folder" in str(error.hint)


def test_no_evidence_at_all(host: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="no such file"):
        attach(AttachRequest(host, tmp_path / "empty"))
    with pytest.raises(BadInputError, match="no such file"):
        attach(AttachRequest(host, tmp_path / "nothing"))


def test_a_release_is_nothing_to_attach_to(brought: Path, tmp_path: Path) -> None:
    stored = Path(__file__).resolve().parents[1] / "golden" / "bundle-1.tar"
    with pytest.raises(BadInputError, match="no candidate"):
        attach(AttachRequest(stored, brought, tmp_path))


@pytest.mark.parametrize("damage", ["cut", "spacing", "digest", "key", "text"])
def test_no_damage_to_the_document_is_read(damage: str, brought: Path) -> None:
    path = brought / EVIDENCE_NAME
    whole, raw = path.read_bytes(), read_json(path)
    path.write_bytes(
        {
            "cut": whole[:-20],
            "spacing": whole.replace(b": ", b":  ", 1),
            "digest": dump_canonical({**raw, "digest": "0" * 64}),
            "key": dump_canonical({**raw, "further": 1}),
            "text": b"evidence",
        }[damage]
    )
    with pytest.raises(IntegrityError):
        read_evidence(path)


def test_a_setting_that_cannot_work_is_refused(host: Path, brought: Path, tmp_path: Path) -> None:
    # In the plan's range, and not what this JetPack can take.
    edited(brought, _set("device", "jetpack", value="6.0"), sealed=True)
    error = _attach_refused(host, brought, tmp_path)
    assert isinstance(error, UnavailableError)
    assert "cannot work" in error.message
