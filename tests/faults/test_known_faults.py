"""Wrecked engines of a real, trained network: each is blocked by the default policy, and its fault is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fault_subjects import SAMPLES, demo
from faulty import (
    Before,
    Delayed,
    FaultyRunner,
    FirstForEver,
    on_classifier,
    on_logits,
    on_maps,
    prepared_as,
    shifted,
    with_weights,
)

from edgekit.bundle.golden import GoldenSet
from edgekit.core.progress import NULL_OBSERVER
from edgekit.demo.network import teacher_path
from edgekit.engines.ort_cpu import ENGINE as ORT_CPU
from edgekit.engines.protocol import Engine, EngineOptions, EngineOutput, Runner
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.interface.card import InputSpec
from edgekit.policy.document import load_preset
from edgekit.policy.verdict import Verdict, judge
from edgekit.teacher.explain import Explainer
from edgekit.teacher.golden import teacher_answers
from edgekit.teacher.loading import load_model
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.tap import Tap
from edgekit.verify.answers import answer_golden
from edgekit.verify.diagnosis.diagnose import diagnose
from edgekit.verify.diagnosis.finding import Finding
from edgekit.verify.score import score_answers


@dataclass(frozen=True)
class Subject:
    """A trained network, what it says about held-out images, and its engine's file."""

    golden: GoldenSet
    graph: Path

    def open(self, engine: Engine = ORT_CPU) -> Runner:
        return engine.open(self.graph, EngineOptions(threads=1))


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    made = demo()
    graph = tmp_path_factory.mktemp("subject") / "model.onnx"
    graph.write_bytes(made.model.SerializeToString(deterministic=True))
    return Subject(made.golden, graph)


@pytest.fixture
def sound(subject: Subject) -> Iterator[Runner]:
    with subject.open() as runner:
        yield runner


def examined(golden: GoldenSet, runner: Runner) -> tuple[Verdict, tuple[Finding, ...]]:
    answers = answer_golden(runner, golden)
    table = score_answers(golden, answers)
    return judge(load_preset("default"), table), diagnose(golden, answers, table, runner)


def check_blocked(golden: GoldenSet, runner: Runner, fault: str) -> Finding:
    """The engine does not pass, and the first thing the diagnosis says is `fault`."""
    verdict, findings = examined(golden, runner)
    assert verdict.outcome == "fail"
    assert fault == (findings[0].fault if findings else None), findings
    return findings[0]


@pytest.mark.parametrize("engine", [REFERENCE, ORT_CPU], ids=lambda engine: engine.name)
def test_a_sound_engine_passes_and_nothing_is_found(subject: Subject, engine: Engine) -> None:
    with subject.open(engine) as runner:
        verdict, findings = examined(subject.golden, runner)
    assert verdict.outcome == "pass"
    assert findings == ()


def test_the_subject_is_worth_looking_at(subject: Subject) -> None:
    golden = subject.golden
    assert np.mean(golden.teacher_class == golden.labels) > 0.9
    assert len(np.unique(golden.teacher_class)) == len(golden.card.classes)


@pytest.mark.parametrize(("rows", "columns"), [(-1, 0), (0, 1), (1, 0), (-1, -1)])
def test_a_map_shifted_by_one_cell(subject: Subject, sound: Runner, rows: int, columns: int) -> None:
    finding = check_blocked(subject.golden, FaultyRunner(sound, after=shifted(rows, columns)), "map-shifted")
    assert f"{rows:+d} rows and {columns:+d} columns" in finding.text
    assert finding.after > 0.99


LAYOUTS = {
    "transposed": ("map-transposed", lambda maps: maps.transpose(0, 2, 1)),
    "left for right": ("map-flipped", lambda maps: maps[:, :, ::-1]),
    "upside down": ("map-flipped", lambda maps: maps[:, ::-1]),
    "half a turn": ("map-rotated", lambda maps: maps[:, ::-1, ::-1]),
    "a quarter turn": ("map-rotated", lambda maps: np.rot90(maps, 1, (1, 2))),
    "a quarter turn back": ("map-rotated", lambda maps: np.rot90(maps, -1, (1, 2))),
    "negated": ("sign-lost", lambda maps: -maps),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_map_in_another_layout(subject: Subject, sound: Runner, layout: str) -> None:
    fault, change = LAYOUTS[layout]
    finding = check_blocked(subject.golden, FaultyRunner(sound, after=on_maps(change)), fault)
    assert finding.before < 0.9
    assert finding.after > 0.99


@pytest.fixture(scope="module")
def negated(subject: Subject) -> np.ndarray:
    """Maps whose sign was lost in front of the ReLU, where it cannot be found again: those of the negated logit."""
    teacher = load_model(teacher_path())

    class Negated:
        name, nonnegative, domain = "negated", True, "tap"

        def __call__(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
            return GRAD_CAM(activation, -gradient)

    explainer = Explainer(Negated(), (Tap(subject.golden.map_spec.tap),))
    _, (maps,) = teacher_answers(teacher, explainer, 1, subject.golden.pixels, NULL_OBSERVER)
    assert not np.any((maps > 0) & (subject.golden.maps > 0))
    return maps


class Replayed:
    """Answers with stored maps; which sample is asked about is told by the logits that belong to it."""

    def __init__(self, logits: np.ndarray, maps: np.ndarray) -> None:
        self._logits = logits
        self._maps = maps

    def __call__(self, output: EngineOutput) -> EngineOutput:
        apart = np.abs(output.logits[:, None] - self._logits[None]).max(axis=2)
        return EngineOutput(output.logits, self._maps[apart.argmin(axis=1)])


def test_a_sign_that_is_lost_for_good(subject: Subject, sound: Runner, negated: np.ndarray) -> None:
    finding = check_blocked(
        subject.golden, FaultyRunner(sound, after=Replayed(subject.golden.logits, negated)), "sign-lost"
    )
    assert "positive just where the teacher's are zero" in finding.text


UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
WRONG: dict[str, Callable[[InputSpec], InputSpec]] = {
    "no mean or std": lambda spec: replace(spec, **UNIT),
    "values up to 255": lambda spec: replace(spec, divisor=1.0, **UNIT),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("side", ["engine", "card"])
def test_wrong_mean_and_std(subject: Subject, sound: Runner, wrong: str, side: str) -> None:
    """The engine prepares its inputs in a wrong way itself, or it wants another way than the card says."""
    right = subject.golden.card.input
    other = WRONG[wrong](right)
    before: Before = prepared_as(right, other) if side == "engine" else prepared_as(other, right)
    finding = check_blocked(subject.golden, FaultyRunner(sound, before=before), "input-mean-std")
    assert finding.after > 0.99


ORDER = [1, 2, 0, 3, 5, 4]


def test_classes_in_another_order(subject: Subject, sound: Runner) -> None:
    runner = FaultyRunner(sound, after=on_logits(lambda logits: logits[:, ORDER]))
    finding = check_blocked(subject.golden, runner, "class-order")
    classes = subject.golden.card.classes
    assert f"output for {classes[0]!r} is the teacher's for {classes[ORDER[0]]!r}" in finding.text


def classifier_changed(subject: Subject, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Runner:
    classes = len(subject.golden.card.classes)
    path = with_weights(subject.graph, folder / "changed.onnx", on_classifier(classes, 64, change))
    assert path.read_bytes() != subject.graph.read_bytes()
    return ORT_CPU.open(path, EngineOptions(threads=1))


def test_classes_in_another_order_in_the_graph_itself(subject: Subject, tmp_path: Path) -> None:
    """Maps follow their logits, so the map of a class is another class's too."""
    with classifier_changed(subject, tmp_path, lambda weight: weight[ORDER]) as runner:
        verdict, findings = examined(subject.golden, runner)
    assert verdict.outcome == "fail"
    assert [finding.fault for finding in findings][:2] == ["class-order", "map-of-another-class"]


def test_a_randomised_head(subject: Subject, tmp_path: Path) -> None:
    random = np.random.default_rng(0).normal(size=(6, 64))
    with classifier_changed(subject, tmp_path, lambda weight: random * np.abs(weight).mean()) as runner:
        check_blocked(subject.golden, runner, "head-scrambled")


def test_shuffled_channels_of_the_head(subject: Subject, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(64)
    with classifier_changed(subject, tmp_path, lambda weight: weight[:, order]) as runner:
        check_blocked(subject.golden, runner, "head-scrambled")


def test_weights_that_moved_the_maps(subject: Subject, tmp_path: Path) -> None:
    """Noise on every convolution: predictions mostly stay, the maps do not."""
    rng = np.random.default_rng(1)

    def noisy(weight: np.ndarray) -> np.ndarray | None:
        return weight + 0.35 * weight.std() * rng.normal(size=weight.shape) if weight.ndim == 4 else None

    path = with_weights(subject.graph, tmp_path / "noisy.onnx", noisy)
    with ORT_CPU.open(path, EngineOptions(threads=1)) as runner:
        answers = answer_golden(runner, subject.golden)
        agreement = float(np.mean(score_answers(subject.golden, answers).agrees))
        assert agreement > 0.6
        check_blocked(subject.golden, runner, "maps-drifted")


def one_cell_not_finite(maps: np.ndarray) -> np.ndarray:
    maps = maps.copy()
    maps[:, 0, 0] = np.nan
    return maps


BROKEN = {
    "every value NaN": ("map-not-finite", lambda maps: maps * np.nan),
    "one value NaN": ("map-not-finite", one_cell_not_finite),
    "infinite": ("map-not-finite", lambda maps: maps + np.inf),
    "zero": ("map-vanished", np.zeros_like),
    "the same in every cell": ("map-flat", lambda maps: maps * 0 + maps.mean((1, 2), keepdims=True)),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_maps_that_are_none(subject: Subject, sound: Runner, broken: str) -> None:
    fault, change = BROKEN[broken]
    check_blocked(subject.golden, FaultyRunner(sound, after=on_maps(change)), fault)


def test_answers_that_are_not_finite(subject: Subject, sound: Runner) -> None:
    runner = FaultyRunner(sound, after=on_logits(lambda logits: logits * np.nan))
    verdict, findings = examined(subject.golden, runner)
    assert verdict.outcome == "fail"
    assert "logits-not-finite" in {finding.fault for finding in findings}


def turned(output: EngineOutput) -> EngineOutput:
    return EngineOutput(output.logits[::-1], output.attribution[::-1])


@pytest.mark.parametrize(
    "after",
    [on_maps(lambda maps: maps[::-1]), on_maps(lambda maps: np.roll(maps, 3, axis=0)), turned, Delayed()],
    ids=["maps turned", "maps moved on", "maps and answers turned", "a call late"],
)
def test_a_batch_that_is_mixed_up(
    subject: Subject, sound: Runner, after: Callable[[EngineOutput], EngineOutput]
) -> None:
    check_blocked(subject.golden, FaultyRunner(sound, after=after), "batch-mixed-up")


def test_stale_maps(subject: Subject, sound: Runner) -> None:
    finding = check_blocked(subject.golden, FaultyRunner(sound, after=FirstForEver()), "map-stale")
    assert "only 1 different maps" in finding.text


def test_maps_of_the_first_batch_for_every_batch(subject: Subject, sound: Runner) -> None:
    first = Replayed(subject.golden.logits, np.tile(subject.golden.maps[:16], (SAMPLES // 16, 1, 1)))
    check_blocked(subject.golden, FaultyRunner(sound, after=first), "map-stale")


def test_noise_as_int8_makes_it_is_no_fault(subject: Subject, sound: Runner) -> None:
    rng = np.random.default_rng(0)

    def rounded(output: EngineOutput) -> EngineOutput:
        scale = output.attribution.max(axis=(1, 2), keepdims=True) / 100
        maps = np.maximum(output.attribution + scale * rng.normal(size=output.attribution.shape), 0)
        return EngineOutput(output.logits, maps.astype(np.float32))

    verdict, findings = examined(subject.golden, FaultyRunner(sound, after=rounded))
    assert verdict.outcome == "pass"
    assert findings == ()


def test_no_engine_to_ask_again_leaves_the_other_faults_found(subject: Subject, sound: Runner) -> None:
    golden = subject.golden
    answers = answer_golden(FaultyRunner(sound, after=shifted(0, 1)), golden)
    found = diagnose(golden, answers, score_answers(golden, answers), None)
    assert [finding.fault for finding in found] == ["map-shifted"]


def test_a_sound_engine_is_not_asked_again(subject: Subject, sound: Runner) -> None:
    counted = FaultyRunner(sound)
    examined(subject.golden, counted)
    assert counted.calls == SAMPLES // 16 + 1, "all for their own answers, the first batch for the teacher's too"
