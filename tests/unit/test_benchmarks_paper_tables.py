"""A whole small run of the paper's evaluation: drawn images, the smallest network, units done one by one, tables."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from paper import context as paper_context
from paper.collect import group_of, margin
from paper.context import Context
from paper.profiles import PROFILES, EvaluationSettings
from paper.run import do_all
from paper.tables import make_tables
from paper.teachers import load_teacher
from paper.units import Unit, selected_units, teacher_of
from paper.verdicts import SCOPE, collected
from paper.work import do_unit, read_maps, read_unit
from PIL import Image

LOSSES = ("none", "swa")
SPLITS = ("train",) * 4 + ("val", "test")


def stored(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format="PNG")
    return stream.getvalue()


def drawn_busi(shared: Path) -> None:
    """Grey noise with a bright square where the lesion is, high for one class and low for the other."""
    rng = np.random.default_rng(0)
    items, members = [], {}
    for index, split in enumerate(SPLITS * 6):
        kind = index % 3
        pixels, mask = rng.integers(0, 90, (40, 40), dtype=np.uint8), np.zeros((40, 40), dtype=np.uint8)
        if kind:
            rows = slice(4, 14) if kind == 1 else slice(26, 36)
            pixels[rows, 12:26], mask[rows, 12:26] = 220, 255
        items.append({"image": f"i{index}", "mask": f"m{index}", "label": kind, "split": split, "group": index})
        members |= {f"i{index}": stored(pixels), f"m{index}": stored(mask)}
    (shared / "busi").mkdir(parents=True)
    (shared / "busi" / "labels.json").write_text(json.dumps({"items": items}))
    with tarfile.open(shared / "busi" / "busi.tar", "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run in which every unit of two losses and one seed is done."""
    root = tmp_path_factory.mktemp("paper")
    drawn_busi(root / "shared")
    (root / "shared" / "models").mkdir()
    card = {"shape": [3, 32, 32], "channels": "RGB", "scale": "divide by 255", "mean": [0.5] * 3, "std": [0.25] * 3}
    (root / "shared" / "models" / "cifar10-resnet20.json").write_text(json.dumps({"classes": ["a"], "input": card}))
    full = PROFILES["cpu"]
    quick = replace(full.teachers["busi", "flat"], epochs=6)
    profile = replace(
        full,
        kinds={("busi", "flat"): {"structured": LOSSES}},
        teachers={("busi", "flat"): quick},
        epochs={("structured", "busi", "flat"): 2},
        evaluation=EvaluationSettings(relevance_pairs=3, curve_pairs=3, curve_steps=4, cifar_images=0),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper_context, "PROFILES", {"tiny": profile})
        context = Context("tiny", root / "shared", root / "work")
        units = selected_units(profile, ("floors*seed0", "student*seed0"), ())
        for unit in units:
            do_unit(unit, context)
        yield context, units


def test_the_units_are_those_that_were_asked_for_and_their_teachers(finished):
    context, units = finished
    assert [unit.part for unit in units] == ["teacher", "teacher", "floors", "student", "student"]
    assert all(context.done(unit) for unit in units)
    # Nothing is left, so no process is started, and nothing is done twice.
    before = {unit: (context.folder(unit) / "unit.json").stat().st_mtime_ns for unit in units}
    assert do_all(units, context, jobs=1, minutes=0) == 0
    assert before == {unit: (context.folder(unit) / "unit.json").stat().st_mtime_ns for unit in units}


def test_a_teacher_that_is_loaded_is_the_one_that_was_measured(finished):
    context, units = finished
    asked = context.setting(units[0]).asked
    from paper.compared import prepared, torch_compared

    pictured = prepared(asked.images.pixels[[image for image, _ in asked.pairs]], asked.spec, "cpu")
    teacher = torch_compared(load_teacher(units[0], context), context.setting(units[0]).network.matched)
    maps = teacher.maps(pictured, np.array([kind for _, kind in asked.pairs]))
    np.testing.assert_allclose(maps, read_maps(units[0], context)["grad-cam"], rtol=1e-4, atol=1e-5)


def test_students_differ_by_the_loss_alone(finished):
    context, units = finished
    none, swa = (read_unit(unit, context).facts for unit in units[-2:])
    assert none["recipe"] == swa["recipe"]
    assert none["parameters"] == swa["parameters"]
    assert none["history"][0]["matching"] == 0 < swa["history"][0]["matching"]


def test_every_column_has_a_value_a_pair_or_says_that_it_has_none(finished):
    context, units = finished
    asked = context.setting(units[0]).asked
    for unit in units:
        for name, values in read_unit(unit, context).columns.items():
            assert values.shape == (len(asked.pairs),)
            few = name in ("deletion", "insertion") or any(f"{method}/" in name for method in ("lrp", "ebp", "rap"))
            missing = np.isnan(values)
            assert missing.sum() == (len(asked.pairs) - 3 if few else 0) or "agreement" in name, name
            if "grad-cam/agreement" in name:
                # Two maps of zeros have nothing to compare.
                assert not missing[read_maps(teacher_of(unit), context)["grad-cam"].any(axis=(1, 2))].any(), name


def test_floors_of_a_teacher(finished):
    context, units = finished
    columns = read_unit(units[2], context).columns
    retrained = read_unit(Unit("teacher", "busi", "flat", 1), context)
    np.testing.assert_array_equal(columns["retrained/predicted"], retrained.columns["predicted"])
    np.testing.assert_allclose(
        columns["retrained/grad-cam/pixel-auc"], retrained.columns["grad-cam/pixel-auc"], atol=1e-9
    )
    assert {name.split("/")[0] for name in columns} == {"retrained", "random", "centre", "permuted"}


def test_numbers_are_means_over_the_pairs_that_all_predict(finished):
    context, units = finished
    group = group_of(context, ("busi", "flat", "structured"), LOSSES)
    found = {unit.loss: read_unit(unit, context) for unit in units[-2:]}
    teacher = read_unit(teacher_of(units[-1]), context)
    common = np.all([each.columns["predicted"] > 0 for each in (teacher, *found.values())], axis=0)
    test = context.setting(units[0]).asked.of_test
    for scope, rows in {
        "held-out/common": common,
        "held-out/all": np.ones_like(common),
        "test/common": common & test,
        "test/all": test,
    }.items():
        assert group.pairs[scope] == [rows.sum()]
        for loss, each in found.items():
            for column in ("grad-cam/pixel-auc", "grad-cam/agreement/cosine"):
                kept = each.columns[column][rows & ~np.isnan(each.columns[column])]
                expected = kept.mean() if len(kept) else np.nan
                np.testing.assert_allclose(group.values[scope][loss][column], [expected])
            expected = each.facts["answers"][scope.split("/")[0]]["accuracy"]
            assert group.values[scope][loss]["accuracy"] == [expected]


def test_tables_say_what_was_measured(finished, tmp_path):
    context, _ = finished
    make_tables(context, tmp_path)
    told = json.loads((tmp_path / "paper.json").read_text())
    (verdict,) = told["verdicts"]
    (students,) = told["students"]
    values = students["values"][SCOPE]
    for metric, sign in (("grad-cam/agreement/cosine", 1), ("grad-cam/agreement/js-divergence", -1), ("deletion", -1)):
        expected = sign * (values["swa"][metric][0] - values["none"][metric][0])
        assert verdict["margins"][metric] == [pytest.approx(expected, abs=1e-5)]
    assert verdict["holds"] == (not verdict["lost"] and verdict["accuracy_held"])
    text = (tmp_path / "paper.md").read_text()
    assert "centre prior" in text
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "paper-margins.png",
        "paper-centre-prior.png",
        "paper-methods-busi-flat.png",
    }
    assert all(f"({path.name})" in text for path in tmp_path.glob("*.png"))


def test_a_run_that_is_not_complete_has_no_tables(finished, tmp_path):
    context, _ = finished
    make_tables(replace(context, work=tmp_path / "empty"), tmp_path / "results")
    assert not (tmp_path / "results").exists()
    assert collected(replace(context, work=tmp_path / "empty")).groups == ()


def test_margins_are_above_zero_where_it_is_better():
    assert margin("grad-cam/agreement/cosine", [0.9], [0.8]) == [pytest.approx(0.1)]
    assert margin("grad-cam/agreement/argmax-distance", [0.9], [0.8]) == [pytest.approx(-0.1)]
    assert margin("deletion", [0.4], [0.5]) == [pytest.approx(0.1)]
    assert margin("accuracy", [0.7], [0.8]) == [pytest.approx(-0.1)]


def test_relevance_of_layers_taken_apart_once_is_that_of_each_taken_apart_anew(finished):
    context, units = finished
    from paper.compared import RELEVANCE_METHODS, prepared, torch_compared

    from edgekit.teacher.relevance.protocol import RelevanceOptions
    from edgekit.teacher.relevance.registry import RELEVANCE

    asked, model = context.setting(units[0]).asked, load_teacher(units[0], context)
    pictured, classes = prepared(asked.images.pixels[:4], asked.spec, "cpu"), np.array([0, 1, 2, 0])
    found = torch_compared(model, context.setting(units[0]).network.matched).relevance(
        pictured, classes, asked.spec, "pool"
    )
    index = torch.from_numpy(classes.astype(np.int32))
    logits = model(pictured).gather(1, index.long()[:, None])[:, 0]
    for name, registered in RELEVANCE_METHODS.items():
        options = RelevanceOptions.from_input(asked.spec, "pool" if name == "ebp" else None)
        anew = RELEVANCE.load(registered)(options)(model, pictured, index)
        if name != "ebp":
            anew = torch.stack([one if logit > 0 else -one for one, logit in zip(anew, logits, strict=True)])
        np.testing.assert_allclose(found[name], anew.clamp(min=0).numpy(), rtol=1e-4, atol=1e-6)
