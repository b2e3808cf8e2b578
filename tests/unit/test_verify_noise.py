"""The noise of a bundle's maps: found at the level at which an engine makes it, never taken from a compressed graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import UNCOMPRESSED, tiny_bundle
from tiny_golden import tiny_golden

from edgekit.attribution.spec import TapSpec
from edgekit.bundle.golden import FurtherMaps, GoldenSet, RandomAnswers
from edgekit.bundle.open import open_bundle
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.registry import Registry
from edgekit.engines.protocol import Availability, EngineInfo, EngineOptions, EngineOutput, Runner
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError, EvidenceNeededError, IntegrityError, UnavailableError
from edgekit.metrics.agreement import score_agreement
from edgekit.policy.floors import Measurement, gaps
from edgekit.policy.suggest import suggest
from edgekit.policy.suggested_clauses import SuggestOptions
from edgekit.verify import noise as module
from edgekit.verify.noise import NoiseOptions, NoiseReport, measure_noise, teachers_own
from edgekit.verify.noise_tables import Answers, compared, control_measurements

STORED = Path(__file__).parents[1] / "golden" / "bundle-1.tar"
QUICK = NoiseOptions(runs=2, batches=(1,), threads=(2,))

Change = Callable[[EngineOutput, int], EngineOutput]


@dataclass
class StandIn:
    """An engine that answers as the reference does, and then otherwise: `change` is told how often it was opened."""

    name: str
    change: Change = lambda output, _: output
    here: Availability = field(default_factory=lambda: Availability(True))
    opened: int = 0
    asked: list[tuple[int, int]] = field(default_factory=list)

    def availability(self) -> Availability:
        return self.here

    def build(self, graph: Path, artifact: Path, observer: Observer = NULL_OBSERVER) -> EngineInfo:
        raise NotImplementedError

    def open(self, artifact: Path, options: EngineOptions) -> Runner:
        self.opened += 1
        return _Changed(REFERENCE.open(artifact, EngineOptions()), self, self.opened - 1, options.threads)


class _Changed:
    def __init__(self, inner: Runner, engine: StandIn, number: int, threads: int) -> None:
        self._inner, self._engine, self._number, self._threads = inner, engine, number, threads

    @property
    def info(self) -> EngineInfo:
        return replace(self._inner.info, engine=self._engine.name)

    def run(self, images: Any, class_index: Any) -> EngineOutput:
        self._engine.asked.append((len(images), self._threads))
        return self._engine.change(self._inner.run(images, class_index), self._number)

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> _Changed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


ENGINES_HERE: dict[str, StandIn] = {}


class _Registry(Registry[Any]):
    def load(self, name: str) -> Any:
        return ENGINES_HERE[name] if name in ENGINES_HERE else super().load(name)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the known engines by stand-ins."""

    def install(*stand_ins: StandIn) -> None:
        ENGINES_HERE.clear()
        ENGINES_HERE.update({each.name: each for each in stand_ins})
        monkeypatch.setattr(module, "ENGINES", _Registry("engine", {each.name: "none:none" for each in stand_ins}))

    return install


def measured(bundle: Path, options: NoiseOptions = QUICK) -> NoiseReport:
    with open_bundle(bundle) as opened:
        return measure_noise(opened, options)


def of(report: NoiseReport, **wanted: str) -> list[Measurement]:
    return [each for each in report.measurements if all(getattr(each, key) == wanted[key] for key in wanted)]


def turned(angle: float) -> Change:
    """Turn every map by an angle, as seen from the map as a vector, from the second opening on."""

    def change(output: EngineOutput, number: int) -> EngineOutput:
        if number == 0:
            return output
        rows = output.attribution.reshape(len(output.attribution), -1).astype(np.float64)
        other = np.random.default_rng(number).normal(size=rows.shape)
        other -= rows * ((other * rows).sum(1) / (rows * rows).sum(1))[:, None]
        other *= (np.linalg.norm(rows, axis=1) / np.linalg.norm(other, axis=1))[:, None]
        maps = np.cos(angle) * rows + np.sin(angle) * other
        return replace(output, attribution=maps.reshape(output.attribution.shape).astype(np.float32))

    return change


@pytest.mark.parametrize("angle", [0.002, 0.02, 0.1, 0.3])
def test_the_noise_of_an_engine_is_found_at_its_level(
    angle: float, tmp_path: Path, engines: Callable[..., None]
) -> None:
    engines(StandIn("noisy", turned(angle)))
    report = measured(tiny_bundle(tmp_path, engine="noisy"))
    noisy = of(report, role="floor", against="first-run")
    assert [each.source for each in noisy] == ["repeat", "batch", "threads"]
    for each in noisy:
        assert not each.identical
        np.testing.assert_allclose(gaps("cosine", each.table.metrics["cosine"]), 1 - np.cos(angle), atol=1e-6)
    suggestion = suggest(report.measurements, SuggestOptions())
    clause = next(each for each in suggestion.clauses if getattr(each.clause, "metric", "") == "cosine")
    assert 1 - clause.floor == pytest.approx(1 - np.cos(angle), abs=1e-6)
    assert clause.control is not None
    assert clause.exact == pytest.approx(clause.floor + 0.1 * (clause.control - clause.floor))
    assert clause.floor > clause.clause.threshold > clause.control  # type: ignore[union-attr]


def test_an_engine_that_answers_alike_is_told_to_be_deterministic(tmp_path: Path, engines: Callable[..., None]) -> None:
    calm = StandIn("calm")
    engines(calm)
    report = measured(tiny_bundle(tmp_path, 40, engine="calm"), NoiseOptions(runs=4, batches=(1, 7), threads=(3,)))
    again = of(report, source="repeat", against="first-run")
    assert len(again) == 3
    assert all(each.identical for each in again)
    assert calm.opened == 7, "every run opens the engine anew"
    assert {size for size, _ in calm.asked} == {16, 8, 1, 7, 5}
    assert {threads for _, threads in calm.asked} == {0, 3}
    floor = of(report, source="first", against="teacher")[0]
    assert floor.role == "floor"
    np.testing.assert_allclose(floor.table.metrics["cosine"], 1, atol=1e-6)


def test_two_measurements_are_the_same(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    assert measured(bundle).to_dict() == measured(bundle).to_dict()


def test_answers_that_flip_lower_the_agreement(tmp_path: Path, engines: Callable[..., None]) -> None:
    def flip(output: EngineOutput, number: int) -> EngineOutput:
        logits = output.logits.copy()
        if number == 1 and len(logits) == 16:
            logits[0] = logits[0][::-1]
        return replace(output, logits=logits)

    engines(StandIn("flipping", flip))
    report = measured(tiny_bundle(tmp_path, engine="flipping"))
    (again,) = of(report, source="repeat", against="first-run")
    moved = int((~again.table.agrees).sum())
    assert 0 < moved <= 5, "the first of each of five batches"
    (clause,) = [
        each for each in suggest(report.measurements, SuggestOptions()).clauses if each.clause.kind == "agreement"
    ]
    assert clause.floor_from == again.name
    assert f"{80 - moved} of 80" in clause.comment


def test_engines_that_cannot_run_are_told_of(tmp_path: Path, engines: Callable[..., None]) -> None:
    def refuse(output: EngineOutput, number: int) -> EngineOutput:
        raise UnavailableError("The runtime failed while running.", found="out of luck")

    gone = StandIn("gone", here=Availability(False, "gone is not installed", "pip install gone"))
    engines(StandIn("calm"), gone, StandIn("failing", refuse), StandIn("tensorrt"), StandIn("other"))
    report = measured(tiny_bundle(tmp_path, 40, engine="calm"))
    told = {each.engine: each.reason for each in report.absent}
    assert told.keys() == {"gone", "failing", "tensorrt"}
    assert told["gone"] == "gone is not installed"
    assert "out of luck" in told["failing"]
    assert "plan" in told["tensorrt"]
    assert report.runtimes.keys() == {"calm", "other"}
    assert [each.engine for each in of(report, source="backend", against="first-run")] == ["other"]


def test_every_known_engine_is_measured_or_told_of(tmp_path: Path) -> None:
    report = measured(tiny_bundle(tmp_path, 20))
    assert {*report.runtimes, *(each.engine for each in report.absent)} == set(ENGINES)


@pytest.mark.parametrize("where", ["logits", "attribution"])
def test_values_that_are_not_finite_are_no_yardstick(where: str, tmp_path: Path, engines: Callable[..., None]) -> None:
    def broken(output: EngineOutput, number: int) -> EngineOutput:
        array = getattr(output, where).copy()
        array[3] = np.nan
        return replace(output, **{where: array})

    engines(StandIn("broken", broken))
    with pytest.raises(BadInputError, match="not finite") as caught:
        measured(tiny_bundle(tmp_path, engine="broken"))
    assert caught.value.found == "5 of 80 samples with NaN or infinity"


def test_noise_that_is_not_finite_leaves_no_policy(tmp_path: Path, engines: Callable[..., None]) -> None:
    def sometimes(output: EngineOutput, number: int) -> EngineOutput:
        return replace(output, attribution=output.attribution * (np.nan if number == 1 else 1))

    engines(StandIn("sometimes", sometimes))
    report = measured(tiny_bundle(tmp_path, engine="sometimes"))
    with pytest.raises(EvidenceNeededError, match="cannot be told apart") as caught:
        suggest(report.measurements, SuggestOptions())
    assert "fp32 on sometimes, run 2" in (caught.value.found or "")


def test_an_engine_of_another_build_is_refused(tmp_path: Path, engines: Callable[..., None]) -> None:
    engines(StandIn("narrow", lambda output, _: replace(output, attribution=output.attribution[:, :2])))
    with pytest.raises(IntegrityError, match="shapes of the golden set"):
        measured(tiny_bundle(tmp_path, engine="narrow"))


def test_an_engine_that_is_not_here_or_not_known(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, 20, engine="tensorrt", verified=False)
    with pytest.raises(EvidenceNeededError):
        measured(bundle)
    assert measured(bundle, replace(QUICK, engine="reference")).engine == "reference"
    with pytest.raises(BadInputError) as caught:
        measured(bundle, replace(QUICK, engine="tpu"))
    assert "reference" in (caught.value.expected or "")


def test_one_run_says_nothing() -> None:
    with pytest.raises(BadInputError, match="One run"):
        NoiseOptions(runs=1)


def changed(*path: str, to: Any) -> dict[str, Any]:
    """The lineage of an uncompressed build with one value changed."""
    steps = {name: dict(step) for name, step in UNCOMPRESSED["compress"]["options"]["compress"].items()}
    steps.setdefault(path[0], {})
    if len(path) == 2:
        steps[path[0]][path[1]] = to
    return {"compress": {"options": {"compress": steps}}}


@pytest.mark.parametrize(
    ("lineage", "own"),
    [
        (UNCOMPRESSED, True),
        (changed("prune", "rate", to=0.1), False),
        (changed("finetune", "epochs", to=1), False),
        (changed("distil", "student", to="resnet"), False),
        (changed("sparsify", "sparsity", to=0.5), False),
        (changed("something-new", to=None), False),
        ({**UNCOMPRESSED, "qat": {}}, False),
        ({"compress": {"options": {"compress": {"prune": {"rate": 0}, "finetune": {"epochs": 0}}}}}, True),
        ({"stages": []}, False),
        ({"compress": {"options": []}}, False),
        ({"compress": {"options": {"compress": {"prune": 0}}}}, False),
    ],
)
def test_only_the_teachers_own_network_is_compared_with_the_teacher(
    lineage: dict[str, Any], own: bool, tmp_path: Path
) -> None:
    bundle = tiny_bundle(tmp_path, 20, lineage=lineage)
    with open_bundle(bundle) as opened:
        assert teachers_own(opened) is own
    report = measured(bundle)
    assert {each.role for each in of(report, against="teacher", graph="fp32")} == {"floor" if own else "reached"}
    assert {each.role for each in of(report, against="first-run")} == {"floor"}


def test_a_quantised_graph_is_never_a_floor() -> None:
    """A stored release whose network was pruned, and whose engine is INT8."""
    report = measured(STORED)
    assert not report.teachers_own
    assert {each.role for each in of(report, graph="int8")} == {"reached"}
    floors = of(report, role="floor")
    assert {(each.graph, each.against) for each in floors} == {("fp32", "first-run")}
    assert {each.source for each in floors} >= {"repeat", "batch", "threads", "backend"}
    assert {each.name for each in of(report, role="control")} == {"permuted maps", "shuffled maps", "centre blobs"}


def test_controls_say_nothing_of_the_image() -> None:
    golden = tiny_golden(60)
    first = Answers(golden.logits, (golden.maps,))
    controls = {each.graph: each.table for each in control_measurements(golden, first)}
    assert controls.keys() == {"permuted maps", "shuffled maps", "centre blobs"}
    same = compared(golden, first)
    assert (same.metrics["cosine"] == 1).all()
    for table in controls.values():
        assert table.metrics["cosine"].mean() < 0.9
        assert table.agrees.all(), "answers are the engine's: only maps are nonsense"


def with_two_maps(count: int = 30) -> GoldenSet:
    """The usual golden set with a second tap of 2 x 2 cells: the first map's means."""
    golden = tiny_golden(count)
    spec = replace(golden.map_spec, further_taps=(TapSpec("other", 2, 2),))
    coarse = golden.maps.reshape(count, 2, 2, 2, 2).mean(axis=(2, 4))
    return replace(golden, map_spec=spec, further=(FurtherMaps(spec.views[1], coarse),))


def test_of_several_maps_the_worst_counts() -> None:
    golden = with_two_maps()
    (further,) = golden.further
    sound = Answers.fitting(golden, golden.logits, (golden.maps, further.maps))
    assert (compared(golden, sound).metrics["cosine"] == 1).all()
    turned_round = replace(sound, maps=(golden.maps, further.maps[:, ::-1]))
    worse = compared(golden, turned_round).metrics["cosine"]
    np.testing.assert_allclose(worse, score_agreement(further.maps, further.maps[:, ::-1]).metrics["cosine"])
    assert (compared(golden, sound, turned_round).metrics["cosine"] == worse).all()
    for each in control_measurements(golden, sound):
        assert each.table.metrics["cosine"].mean() < 0.95
    with pytest.raises(IntegrityError, match="shapes"):
        Answers.fitting(golden, golden.logits, (golden.maps,))


def test_one_sample_has_no_map_of_another() -> None:
    golden = tiny_golden(1)
    names = {each.graph for each in control_measurements(golden, Answers(golden.logits, (golden.maps,)))}
    assert names == {"shuffled maps", "centre blobs"}


def test_random_weights_are_a_control_where_they_are_known() -> None:
    golden = tiny_golden(40)
    maps = np.random.default_rng(3).random((2, *golden.maps.shape)).astype(np.float16)
    classes = np.zeros(len(golden), dtype=np.int64)
    drawn = dataclasses.replace(golden, random=RandomAnswers("drawn", 0, classes, (maps,)))
    found = {each.graph: each for each in control_measurements(drawn, Answers(golden.logits, (golden.maps,)))}
    table = found["random weights"].table
    assert (table.engine_class == 0).all()
    assert table.metrics["cosine"].mean() < 0.9
