"""Several maps an image: at several taps, of several classes, of positive classes only; from torch to the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import OPSET
from networks import CASES
from onnxruntime_gpu_stand_in import gpu_stand_in
from test_teacher_golden import Images
from torch import nn

from edgekit.attribution.spec import NO_CLASS, OWN_CLASS, MapSpec
from edgekit.bundle.golden import GoldenSet, read_golden, write_golden
from edgekit.engines.protocol import EngineOptions, EngineOutput, Runner
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError, IntegrityError
from edgekit.export.explained import explained_onnx
from edgekit.export.parity import measure_parity
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.metrics.agreement import METRICS
from edgekit.metrics.scores_io import scores_from_dict, scores_to_dict
from edgekit.policy.document import load_preset
from edgekit.policy.verdict import judge
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.class_choice import chosen_classes
from edgekit.teacher.explain import Explainer, explain
from edgekit.teacher.explainer import explainer_for
from edgekit.teacher.golden import GoldenRequest, golden
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.options import MapOptions
from edgekit.teacher.tap import Tap
from edgekit.verify.answers import answer_golden
from edgekit.verify.score import score_answers

CASE = CASES["inverted"]
TAPS = ("last", "project")
TWO = (Tap("last"), Tap("project"))
CLASSES = 2


def answering() -> nn.Module:
    """The case's network, moved so that every image has a positive class and about half of them a second one."""
    model = CASE.make()
    model.classifier[1].bias += 0.0872
    return model


def network(task: str = "softmax", taps: tuple[str, ...] = TAPS) -> LoadedModel:
    card = ModelCard(InputSpec(*CASE.side), tuple("abcd"), task, tap=taps[0], further_taps=taps[1:])
    return LoadedModel(answering(), card, "networks:Inverted", {}, None, "")


# In torch


def test_maps_at_two_taps_are_each_taps_own() -> None:
    model, images = CASE.make(), CASE.images(4)
    asked = torch.tensor([0, -1, 2, 3], dtype=torch.int32)
    both = explain(model, TWO, GRAD_CAM, images, asked)
    for tap, maps in zip(TAPS, both.maps, strict=True):
        assert torch.equal(maps, explain(model, tap, GRAD_CAM, images, asked).attribution)
    assert torch.equal(both.attribution, both.maps[0])


def test_each_class_has_the_map_that_it_has_alone() -> None:
    model, images = CASE.make(), CASE.images(5)
    asked = torch.tensor([[0, 1], [2, 2], [3, 0], [1, 3], [2, 1]], dtype=torch.int32)
    found = explain(model, "last", GRAD_CAM, images, asked).attribution
    assert found.shape == (5, 2, 8, 8)
    for column in range(2):
        assert torch.equal(found[:, column], explain(model, "last", GRAD_CAM, images, asked[:, column]).attribution)


def test_minus_one_in_a_later_column_is_a_later_answer() -> None:
    logits = torch.tensor([[0.5, 2.0, -1.0, 2.0], [-3.0, -1.0, -2.0, 0.0]])
    own = torch.full((2, 3), OWN_CLASS, dtype=torch.int32)
    # Of equal logits the first is the better answer.
    assert chosen_classes(logits, own).tolist() == [[1, 3, 0], [3, 1, 2]]
    asked = torch.tensor([[0, OWN_CLASS, OWN_CLASS], [OWN_CLASS, 2, NO_CLASS]], dtype=torch.int32)
    assert chosen_classes(logits, asked).tolist() == [[0, 3, 0], [3, 2, NO_CLASS]]


def test_only_positive_answers_are_classes_where_that_is_asked() -> None:
    logits = torch.tensor([[0.5, 2.0, -1.0], [-3.0, -1.0, -2.0], [0.0, 1.0, -1.0]])
    own = torch.full((3, 2), OWN_CLASS, dtype=torch.int32)
    found = chosen_classes(logits, own, only_positive=True)
    assert found.tolist() == [[1, 0], [NO_CLASS, NO_CLASS], [1, NO_CLASS]]
    # A class that is asked for by its number is explained whatever its logit.
    asked = torch.tensor([[2, 0], [1, 1], [0, 2]], dtype=torch.int32)
    assert torch.equal(chosen_classes(logits, asked, only_positive=True), asked)


def test_no_class_has_an_empty_map() -> None:
    asked = torch.tensor([NO_CLASS, 0, NO_CLASS], dtype=torch.int32)
    found = explain(CASE.make(), "last", GRAD_CAM, CASE.images(3), asked).attribution
    assert (found[[0, 2]] == 0).all()
    assert found[1].max() > 0


@pytest.mark.parametrize(
    ("options", "task", "words"),
    [
        (MapOptions(classes=5), "softmax", "more classes than there are"),
        (MapOptions(classes=2, class_choice="positive"), "softmax", "Only a multi-label network"),
    ],
)
def test_wishes_that_do_not_fit_the_network(options: MapOptions, task: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        explainer_for(network(task), options, CASE.images(2))


@pytest.mark.parametrize("options", [{"classes": 0}, {"class_choice": "all"}])
def test_wishes_that_make_no_sense(options: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match="out of range"):
        MapOptions(**options)  # type: ignore[arg-type]


# In the graph


@pytest.fixture(scope="module", params=["top", "positive"])
def choice(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def graph(choice: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes at two taps: one with the closed form, one with a traced gradient."""
    options = MapOptions(classes=CLASSES, class_choice=choice)
    made = explained_onnx(network("multi-label"), options, use_closed_form=True, opset=OPSET)
    assert made.form == "closed form at last, traced gradient at project"
    assert made.map_spec.output_names == ("attribution", "attribution_2")
    assert [view.name for view in made.map_spec.views] == ["last", "last, class 2", "project", "project, class 2"]
    path = tmp_path_factory.mktemp(choice) / "model.onnx"
    path.write_bytes(made.model.SerializeToString())
    return path


@pytest.fixture(params=("reference", "openvino", "ort-cuda"))
def runner(request: pytest.FixtureRequest, graph: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    engine = ENGINES.load(request.param)
    with gpu_stand_in(monkeypatch) if request.param == "ort-cuda" else nullcontext():
        if not engine.availability().available:
            pytest.skip(engine.availability().reason)
        with engine.open(graph, EngineOptions()) as opened:
            yield opened


def truth(choice: str, images: torch.Tensor, asked: torch.Tensor) -> list[np.ndarray]:
    explainer = Explainer(GRAD_CAM, TWO, only_positive=choice == "positive")
    found = explainer(answering().double(), images.double(), asked)
    return [maps[:, column].numpy() for maps in found.maps for column in range(CLASSES)]


def views(output: EngineOutput) -> list[np.ndarray]:
    return [output.attribution, *output.further]


@pytest.mark.parametrize("count", [1, 6])
def test_the_engine_answers_every_view(runner: Runner, choice: str, count: int) -> None:
    images = CASE.images(count, seed=4)
    rows = [[0, 3], [1, NO_CLASS], [-1, -1], [2, -1], [-1, 0], [3, 3]][:count]
    asked = torch.tensor(rows, dtype=torch.int32)
    for found, expected in zip(
        views(runner.run(images.numpy(), asked.numpy())), truth(choice, images, asked), strict=True
    ):
        assert found.shape == (count, 8, 8)
        assert np.abs(found - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1e-3)


def test_one_class_given_leaves_the_others_to_the_engine(runner: Runner, choice: str) -> None:
    images = CASE.images(3, seed=5).numpy()
    alone = runner.run(images, np.array([2, 0, -1], dtype=np.int32))
    together = runner.run(images, np.array([[2, -1], [0, -1], [-1, -1]], dtype=np.int32))
    for one, other in zip(views(alone), views(together), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("strange", [4, -2, NO_CLASS - 1])
def test_a_class_that_does_not_exist_is_refused(runner: Runner, strange: int) -> None:
    with pytest.raises(BadInputError, match="does not have") as caught:
        runner.run(CASE.images(2).numpy(), np.array([[0, 1], [0, strange]], dtype=np.int32))
    assert caught.value.found == str(strange)


@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (4,), (1, 2)])
def test_class_indices_of_another_shape_are_refused(runner: Runner, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match="does not fit the batch"):
        runner.run(CASE.images(2).numpy(), np.zeros(shape, dtype=np.int32))


def test_parity_speaks_for_every_view(graph: Path, choice: str) -> None:
    explainer = Explainer(GRAD_CAM, TWO, only_positive=choice == "positive")
    images = CASE.images(20, seed=6).numpy()
    sound = measure_parity(answering(), explainer, graph, images, classes=CLASSES)
    assert max(sound.logits, sound.attribution, sound.own_class) < 1e-4
    # The second tap, or the second class, exchanged for the first.
    swapped = replace(explainer, taps=TWO[::-1])
    assert measure_parity(answering(), swapped, graph, images, classes=CLASSES).attribution > 0.1


# In the golden set and the verdict


@pytest.fixture(scope="module")
def golden_set(choice: str, tmp_path_factory: pytest.TempPathFactory) -> GoldenSet:
    folder = tmp_path_factory.mktemp("golden")
    save_checkpoint(folder / "m.pt", network("multi-label"))
    rng = np.random.default_rng(3)
    images = Images(rng.integers(0, 256, size=(70, *CASE.side, 3), dtype=np.uint8), rng.integers(0, 4, size=70))
    options = MapOptions(classes=CLASSES, class_choice=choice)
    golden(GoldenRequest(folder / "m.pt", LoadOptions(arch="networks:Inverted"), images, options), folder / "golden")
    return read_golden(folder / "golden")


def test_the_golden_set_holds_every_view(golden_set: GoldenSet, choice: str) -> None:
    assert golden_set.map_spec.class_choice == choice
    assert [item.view.name for item in golden_set.further] == ["last, class 2", "project", "project, class 2"]
    ranked = np.argsort(-golden_set.logits, axis=1, kind="stable")[:, :2]
    positive = np.take_along_axis(golden_set.logits, ranked, axis=1) > 0
    expected = np.where(positive, ranked, NO_CLASS) if choice == "positive" else ranked
    assert np.array_equal(golden_set.explained_classes, expected)
    if choice == "positive":
        assert 10 < positive[:, 1].sum() < 60, "otherwise nothing is shown"
        assert (golden_set.further[0].maps[~positive[:, 1]] == 0).all()


def test_what_is_written_is_read(golden_set: GoldenSet, tmp_path: Path) -> None:
    write_golden(golden_set, tmp_path)
    again = read_golden(tmp_path)
    assert again.map_spec == golden_set.map_spec
    for one, other in zip(again.further, golden_set.further, strict=True):
        assert one.view == other.view
        assert np.array_equal(one.maps, other.maps)
    (tmp_path / "maps_3.npy").unlink()
    with pytest.raises(BadInputError):
        read_golden(tmp_path)


def test_a_sound_engine_passes(golden_set: GoldenSet, runner: Runner) -> None:
    table = score_answers(golden_set, answer_golden(runner, golden_set))
    assert list(table.views) == [view.name for view in golden_set.map_spec.views]
    assert np.nanmin(table.metrics["cosine"]) > 0.999
    assert judge(load_preset("default"), table).outcome == "pass"
    assert scores_to_dict(scores_from_dict(scores_to_dict(table), where="test")) == scores_to_dict(table)


class Damaged:
    """An engine one of whose views is turned round."""

    def __init__(self, runner: Runner, view: int) -> None:
        self._runner, self._view, self.info = runner, view, runner.info

    def run(self, images: np.ndarray, class_index: np.ndarray) -> EngineOutput:
        output = self._runner.run(images, class_index)
        maps = views(output)
        maps[self._view] = maps[self._view][:, ::-1, ::-1].copy()
        return EngineOutput(output.logits, maps[0], tuple(maps[1:]))


@pytest.mark.parametrize("view", range(4))
def test_one_bad_view_blocks(golden_set: GoldenSet, runner: Runner, choice: str, view: int) -> None:
    table = score_answers(golden_set, answer_golden(Damaged(runner, view), golden_set))  # type: ignore[arg-type]
    assert judge(load_preset("default"), table).outcome != "pass"
    means = {name: np.nanmean(columns["cosine"]) for name, columns in table.views.items()}
    assert min(means, key=means.__getitem__) == golden_set.map_spec.views[view].name
    # A sample is as good as its worst map, by every metric.
    for name, metric in METRICS.items():
        columns = np.stack([columns[name] for columns in table.views.values()])
        expected = np.nanmin(columns, axis=0) if metric.better == "higher" else np.nanmax(columns, axis=0)
        assert np.array_equal(table.metrics[name], expected)


def test_scores_that_hide_a_bad_view_are_refused(golden_set: GoldenSet, runner: Runner) -> None:
    stored = scores_to_dict(score_answers(golden_set, answer_golden(Damaged(runner, 2), golden_set)))  # type: ignore[arg-type]
    stored["metrics"]["cosine"] = stored["views"]["last"]["cosine"]
    with pytest.raises(IntegrityError, match="impossible"):
        scores_from_dict(stored, where="test")


def test_an_engine_with_fewer_maps_is_not_this_golden_sets(golden_set: GoldenSet, runner: Runner) -> None:
    class Fewer(Damaged):
        def run(self, images: np.ndarray, class_index: np.ndarray) -> EngineOutput:
            output = super().run(images, class_index)
            return replace(output, further=output.further[:-1])

    with pytest.raises(IntegrityError, match="shapes of the golden set"):
        answer_golden(Fewer(runner, 0), golden_set)  # type: ignore[arg-type]


# In words


def test_a_specification_of_one_map_is_written_as_it_always_was() -> None:
    spec = MapSpec("grad-cam", "layer3", 8, 8)
    assert spec.to_dict() == {"method": "grad-cam", "tap": "layer3", "height": 8, "width": 8, "nonnegative": True}
    assert MapSpec.from_dict(spec.to_dict(), where="test") == spec


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 0},
        {"classes": True},
        {"class_choice": "any"},
        {"layout": "chwn"},
        {"prefix_tokens": -1},
        {"further_taps": [{"tap": "a"}]},
        {"further_taps": ["a"]},
        {"further_taps": 3},
        {"height": 0},
        {"colour": 1},
    ],
    ids=str,
)
def test_a_malformed_specification_is_refused(change: dict[str, object]) -> None:
    raw = MapSpec("grad-cam", "layer3", 8, 8).to_dict() | change
    with pytest.raises(IntegrityError, match="map specification is malformed"):
        MapSpec.from_dict(raw, where="test")
