"""The hop ledger names the hop at which a fault was put, and what is written is safe to read."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blame_bundles import POLICY, golden_of, harmed_table, make_bundle, smooth_pixels, with_noisy_weights
from explained_graphs import GRAPHS
from onnx import ModelProto
from PIL import Image

from edgekit import api
from edgekit.blame.bundled import BLAME_FORMAT, BlameReport
from edgekit.blame.hop import compared, teacher_as_answers
from edgekit.blame.options import BlameOptions
from edgekit.bundle.golden import GoldenSet
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.cli.main import run
from edgekit.config.recipe import Recipe, read_recipe
from edgekit.core.canonical import read_json
from edgekit.errors import BadInputError, IntegrityError
from edgekit.policy.document import load_preset


def hops(folder: Path, **options: Any) -> BlameReport:
    return api.blame(folder, hops_only=True, **options)


# Faults, hop by hop


def test_a_sound_bundle_holds_at_every_hop(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "sound")
    ledger = hops(made.folder).ledger
    assert [hop.name for hop in ledger.hops] == ["teacher", "compressed", "onnx", "fp16", "qdq", "engine"]
    assert ledger.samples == made.golden.digests
    assert ledger.first_broken is None
    assert "holds the policy 'close'" in ledger.in_words()
    measured = {hop.name: hop for hop in ledger.hops if hop.against_teacher is not None}
    assert set(measured) == {"onnx", "fp16", "qdq", "engine"}
    assert measured["onnx"].against_teacher is not None
    assert measured["onnx"].against_teacher.means["cosine"] == pytest.approx(1, abs=1e-6)
    assert measured["engine"].compared_with == "qdq"
    assert measured["fp16"].compared_with == measured["qdq"].compared_with == "onnx"
    assert "not run on TensorRT" in measured["fp16"].note
    assert next(hop.reason for hop in ledger.hops if hop.name == "compressed") == "give --build"


def other_engine(graph: ExplainedGraph, table: ScaleTable) -> Any:
    """A Q/DQ graph of the same table whose engine was built from other integers."""
    return with_noisy_weights_of(write_qdq(graph, table))


def with_noisy_weights_of(model: ModelProto) -> ModelProto:
    from onnx import numpy_helper

    rng = np.random.default_rng(3)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4 and values.dtype == np.int8:
            noise = rng.integers(-60, 61, values.shape)
            changed = np.clip(values.astype(np.int32) + noise, -127, 127).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    return model


FAULTS: dict[str, dict[str, Any]] = {
    "onnx": {"graph": with_noisy_weights(GRAPHS["residual"]()), "teacher": GRAPHS["residual"]()},
    "qdq": {"table": lambda table: harmed_table(table, "relu_4", 200.0)},
    "engine": {"engine": other_engine},
}


@pytest.mark.parametrize("hop", FAULTS)
def test_the_hop_with_the_fault_is_named(hop: str, tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "faulty", **FAULTS[hop])
    ledger = hops(made.folder).ledger
    assert ledger.first_broken is not None
    assert ledger.first_broken.name == hop
    assert f"{ledger.first_broken.title[1:]} is the first hop that breaks the policy 'close'" in ledger.in_words()
    against = ledger.first_broken.against_source
    assert against is not None
    assert against.means["cosine"] is not None
    assert against.means["cosine"] < 0.98
    # All hops before it are as they should be, against what they were made from.
    for before in ledger.hops[: ledger.hops.index(ledger.first_broken)]:
        if before.on_path and before.against_source is not None:
            assert before.outcome == "pass"
    # What was not looked at could have been the first; the graph's own hop comes right after the student's.
    assert ("may have been lost there already" in ledger.in_words()) == (hop == "onnx")


def test_fp16_that_breaks_is_not_on_the_way_of_an_int8_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.blame import ledger as module

    made = make_bundle(tmp_path / "sound")
    spoilt = with_noisy_weights(GRAPHS["residual"](), 1.0)
    monkeypatch.setattr(module, "half_precision", lambda _graph: spoilt)
    ledger = hops(made.folder).ledger
    assert next(hop for hop in ledger.hops if hop.name == "fp16").outcome == "fail"
    assert ledger.first_broken is None


def test_fp16_that_the_runtime_refuses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.blame import ledger as module

    made = make_bundle(tmp_path / "sound")
    monkeypatch.setattr(module, "half_precision", lambda _graph: ModelProto())
    hop = next(hop for hop in hops(made.folder).ledger.hops if hop.name == "fp16")
    assert hop.outcome is None
    assert "refuses" in hop.reason


def test_too_few_images_decide_nothing_and_that_is_said(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "few", samples=5)
    ledger = hops(made.folder).ledger
    assert ledger.first_broken is None
    assert "5 images cannot decide it" in ledger.in_words()


def test_another_policy_may_be_asked(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "sound", table=lambda table: harmed_table(table, "relu_4", 200.0))
    assert hops(made.folder, policy=POLICY).ledger.first_broken is not None
    assert hops(made.folder, policy=load_preset("lenient")).ledger.policy == "lenient"


def test_fp32_bundles_have_a_ledger_and_no_blame(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "float", precision="fp32")
    with pytest.raises(BadInputError, match="ships FP32: nothing in it is rounded to integers"):
        api.blame(made.folder)
    ledger = hops(made.folder).ledger
    assert next(hop for hop in ledger.hops if hop.name == "qdq").reason == "FP32 ships: nothing is rounded"
    assert ledger.hops[-1].compared_with == "onnx"
    assert ledger.first_broken is None


def test_a_build_folder_of_another_build_is_refused(tmp_path: Path) -> None:
    from edgekit.core.stages import Stage, run_stage

    made = make_bundle(tmp_path / "sound", lineage={"compress": {"key": "0" * 64}})
    stage = Stage("compress", 1, {}, {})

    def body(folder: Path) -> dict[str, Any]:
        (folder / "student.pt").write_bytes(b"a student")
        return {}

    run_stage(stage, tmp_path / "build" / "stages" / "compress", body)
    with pytest.raises(BadInputError, match="not the one that the bundle came from"):
        hops(made.folder, build=tmp_path / "build")
    with pytest.raises(BadInputError):
        hops(made.folder, build=tmp_path / "nowhere")


# Comparisons


def test_an_answer_against_itself_is_the_best_of_every_metric() -> None:
    from edgekit.metrics.agreement import METRICS

    graph = parse_graph(GRAPHS["residual"]().SerializeToString(), where="test")
    answers = teacher_as_answers(golden_of(graph, smooth_pixels(8)))
    same = compared(answers, answers)
    assert same is not None
    assert set(same.means) == set(METRICS)
    for name, metric in METRICS.items():
        assert same.means[name] == pytest.approx(metric.best, abs=1e-6)
        assert same.own_means[name] == pytest.approx(metric.best, abs=1e-6)
    assert (same.flips, same.divergence) == (0, pytest.approx(0, abs=1e-12))


def test_answers_that_are_not_finite_are_worst_and_no_yardstick() -> None:
    graph = parse_graph(GRAPHS["residual"]().SerializeToString(), where="test")
    answers = teacher_as_answers(golden_of(graph, smooth_pixels(8)))
    broken = replace(answers, logits=np.full_like(answers.logits, np.nan), maps=np.full_like(answers.maps, np.inf))
    found = compared(answers, broken)
    assert found is not None
    assert found.divergence is None
    assert found.means["cosine"] == -1
    assert found.states == {"non_finite": 8}
    json.dumps(found.to_dict(), allow_nan=False)
    assert compared(broken, answers) is None


# What is written


def test_everything_is_written_and_the_page_says_what_the_document_says(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "sound")
    out = tmp_path / "out"
    report = api.blame(made.folder, output=out, options=BlameOptions(samples=12, exclude_worst=2))
    assert sorted(path.name for path in out.iterdir()) == [
        "blame.csv",
        "blame.html",
        "blame.json",
        "exclude.yaml",
        "recipe.json",
    ]
    document = read_json(out / "blame.json")
    assert document["format"] == BLAME_FORMAT
    assert document == json.loads(json.dumps(report.to_dict()))
    assert len(document["images"]["digests"]) == 12
    assert set(document["images"]["digests"]) <= set(made.golden.digests)
    rows = list(csv.DictReader((out / "blame.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == [item["name"] for item in document["blame"]["tensors"]]
    assert float(rows[0]["only_cosine"]) == document["blame"]["tensors"][0]["only"]["cosine"]["mean"]
    page = (out / "blame.html").read_text()
    shown = re.findall(r'<data value="([^"]*)" data-path="([^"]*)">', page)
    assert len(shown) > 100
    for value, path in shown:
        found: Any = document
        for part in (escaped.replace("~1", "/").replace("~0", "~") for escaped in path[1:].split("/")):
            found = found[int(part)] if isinstance(found, list) else found[part]
        assert value == ("" if found is None else repr(found))
    assert page.count('<svg class="chart depth-chart"') == 4
    assert "<script" not in page


def test_the_recipe_beside_the_list_is_the_bundles_with_the_list(tmp_path: Path) -> None:
    from edgekit.calibrate.options import CalibrateOptions

    recipe = Recipe(calibrate=CalibrateOptions(method="minmax", images=17, exclude=("node_Conv_0",)))
    made = make_bundle(tmp_path / "sound", recipe=recipe)
    report = api.blame(made.folder, output=tmp_path / "out", options=BlameOptions(exclude_worst=1))
    assert report.exclusion is not None
    again = read_recipe(tmp_path / "out" / "recipe.json")
    assert again == replace(recipe, calibrate=replace(recipe.calibrate, exclude=report.exclusion.patterns))
    fragment = read_recipe(tmp_path / "out" / "exclude.yaml")
    assert fragment.calibrate.exclude == report.exclusion.patterns
    assert fragment.calibrate.exclude[0] == "node_Conv_0"


HOSTILE = ('<img src=x onerror="alert(1)">', "\x1b[31mred\x1b[0m", "=cmd|' /C calc'!A0", "{{ 7 * 7 }}")


def hostile() -> ModelProto:
    """The residual graph with tensors and nodes called what nobody should call them."""
    model = GRAPHS["residual"]()
    called = {"relu_1": HOSTILE[0], "relu_4": HOSTILE[1], "relu_9": HOSTILE[2], "conv_3": HOSTILE[3]}
    for node in model.graph.node:
        for names in (node.input, node.output):
            for slot, name in enumerate(names):
                names[slot] = called.get(name, name)
        node.name = f"{HOSTILE[0]}{node.name}"
    return model


def test_names_that_are_markup_stay_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = ("<b>bold</b>", "\x1b[2Jclear", "c", "d", "e")
    made = make_bundle(tmp_path / "hostile", graph=hostile(), classes=classes)
    out = tmp_path / "out"
    code = run(["blame", str(made.folder), "-o", str(out), "--per-class", "--exclude-worst", "3", "-q"])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "\x1b" not in told.out
    assert "\\x1b[31mred" in told.out
    page = (out / "blame.html").read_text()
    assert "<img" not in page
    assert "<b>bold" not in page
    assert "&lt;img src=x" in page
    assert ">49<" not in page
    names = [row["name"] for row in csv.DictReader((out / "blame.csv").read_text().splitlines())]
    assert HOSTILE[0] in names
    assert f"'{HOSTILE[2]}" in names
    assert {item["name"] for item in read_json(out / "blame.json")["blame"]["tensors"]} >= {HOSTILE[0], HOSTILE[1]}


# The command


def test_the_command_prints_the_table_worst_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_bundle(tmp_path / "faulty", table=lambda table: harmed_table(table, "relu_9", 200.0))
    code = run(["blame", str(made.folder), "-o", str(tmp_path / "out"), "--exclude-worst", "1", "-q"])
    told = capsys.readouterr().out
    assert code == 0
    first = next(line for line in told.splitlines() if line.strip().startswith("1  "))
    assert "relu_9" in first
    assert "is the first hop that breaks the policy" in told
    assert "relu_9: node_Conv_8, node_Conv_10; cosine" in told


def test_the_commands_json_is_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_bundle(tmp_path / "sound")
    assert run(["blame", str(made.folder), "-o", str(tmp_path / "out"), "--json", "-q", "--samples", "6"]) == 0
    assert json.loads(capsys.readouterr().out) == read_json(tmp_path / "out" / "blame.json")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--until", "cosine", "1.0"], 0),
        (["--until", "logits", "0"], 1),
        (["--until", "beauty", "0.1"], 2),
        (["--until", "cosine", "-1"], 3),
        (["--exclude-worst", "1", "--until", "cosine", "0.1"], 2),
        (["--exclude-worst", "0"], 2),
        (["--images", "/nowhere"], 3),
        (["--build", "/nowhere"], 3),
        (["--policy", "nothing"], 3),
        (["--hops-only"], 0),
        (["--hops-only", "--exclude-worst", "1"], 2),
    ],
)
def test_exit_codes(arguments: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_bundle(tmp_path / "sound")
    assert run(["blame", str(made.folder), "-o", str(tmp_path / "out"), "-q", *arguments]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_changed_byte_is_found_before_anything_is_measured(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "sound")
    scales = made.folder / "scales.json"
    scales.write_bytes(scales.read_bytes().replace(b"minmax", b"minmix"))
    assert run(["blame", str(made.folder), "-o", str(tmp_path / "out"), "-q"]) == 4
    with pytest.raises(IntegrityError):
        api.blame(made.folder)


def test_an_output_that_is_a_file_is_refused_at_once(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "sound")
    (tmp_path / "file").write_text("here")
    assert run(["blame", str(made.folder), "-o", str(tmp_path / "file"), "-q"]) == 3


def test_other_images_are_explained_by_the_graphs_own_classes(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "sound")
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, pixels in enumerate(smooth_pixels(7, seed=21)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    report = api.blame(made.folder, images=folder, options=BlameOptions(samples=5))
    assert report.blame is not None
    assert report.blame.samples == len(report.images) == 5
    assert report.source.startswith("photographs")
    assert len(report.ledger.samples) == len(made.golden)


def test_a_folder_of_one_image_and_constant_images_are_measured(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "sound")
    folder = tmp_path / "grey"
    folder.mkdir()
    Image.new("RGB", (16, 16), (128, 128, 128)).save(folder / "one.png")
    report = api.blame(made.folder, images=folder)
    assert report.blame is not None
    assert report.blame.samples == 1


def empty_maps(golden: GoldenSet) -> GoldenSet:
    maps = golden.maps.copy()
    maps[::2] = 0
    return replace(golden, maps=maps)


def test_maps_that_the_teacher_lacks_count_as_lost(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "empty", golden=empty_maps)
    ledger = hops(made.folder).ledger
    assert ledger.first_broken is not None
    assert ledger.first_broken.name == "onnx"
    against = ledger.first_broken.against_teacher
    assert against is not None
    assert against.states["one_zero"] == 12
