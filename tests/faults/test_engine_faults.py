"""The fifteen faults on two trained networks: none passes, each is named first; sound and drifted engines are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from coloured_discs import train
from engine_faults import ALSO, FAULTS, half_repeated, swapped_channels
from explained_graphs import ArrayImages
from fault_subjects import SUBJECTS, Subject, opened
from graph_faults import without_relu

from edgekit.bundle.golden import GoldenSet, read_golden, write_golden
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import quantise_graph
from edgekit.compress.options import PruneOptions
from edgekit.compress.pruning.structured import prune
from edgekit.engines.ort_cpu import ENGINE as ORT_CPU
from edgekit.engines.protocol import Engine, Runner
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.errors import IntegrityError
from edgekit.interface.preprocess import preprocess
from edgekit.policy.document import load_preset
from edgekit.policy.verdict import judge
from edgekit.verify.answers import answer_golden
from edgekit.verify.diagnose import diagnose
from edgekit.verify.finders import FINDERS
from edgekit.verify.finding import Finding
from edgekit.verify.score import score_answers

# Told by drift, too, since no answer can tell the two apart; every other name belongs to a fault alone.
SHARED = "maps-drifted"
NAMES = {fault.names for fault in FAULTS.values()} - {SHARED}
# Faults that are no part of the fifteen, and have their tests in test_known_faults and test_verify_diagnose.
ELSEWHERE = {"map-flipped", "map-rotated", "map-stale", "map-flat", "class-order"}


@dataclass(frozen=True)
class Seen:
    """What came of an engine."""

    outcome: str
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> list[str]:
        return [finding.fault for finding in self.findings]


def seen(golden: GoldenSet, runner: Runner) -> Seen:
    with runner:
        answers = answer_golden(runner, golden)
        table = score_answers(golden, answers)
        return Seen(judge(load_preset("default"), table).outcome, diagnose(golden, answers, table, runner))


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    made: Callable[[], Subject] = SUBJECTS[request.param]
    return made()


def test_there_are_fifteen() -> None:
    assert len(set(FAULTS) - set(ALSO)) == 15
    assert set(ALSO) <= set(FAULTS)
    assert set(ALSO.values()) <= set(FAULTS)


def test_every_fault_that_can_be_found_is_made_somewhere() -> None:
    known = {fault for finder in FINDERS.values() for fault in finder.faults}
    assert known == NAMES | ELSEWHERE
    here = Path(__file__).parent
    others = (here / "test_known_faults.py").read_text() + (
        here.parent / "unit" / "test_verify_diagnose.py"
    ).read_text()
    assert all(f'"{fault}"' in others for fault in ELSEWHERE)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_does_not_pass_and_is_named_first(subject: Subject, name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    golden, runner = fault.open(subject, tmp_path)
    found = seen(golden, runner)
    assert found.findings
    first = found.findings[0]
    assert first.fault == fault.names, found.faults
    assert all(words in first.text for words in fault.says), first.text
    if fault.names == "golden-repeated":
        # No score can show it: what stops it is that such a set is refused.
        write_golden(golden, tmp_path / "golden")
        with pytest.raises(IntegrityError, match="repeats samples"):
            read_golden(tmp_path / "golden")
    else:
        assert (found.outcome == "pass") == (subject.name in fault.harmless)


def quantised(subject: Subject, method: str) -> onnx.ModelProto:
    graph = parse_graph(subject.model.SerializeToString(), where="test")
    images = ArrayImages(preprocess(subject.training[0][:64], subject.golden.card.input))
    options = CalibrateOptions(method=method, bins=512)
    model: onnx.ModelProto = quantise_graph(graph, images, number_format("x86-u8s8"), options).model
    return model


@pytest.mark.parametrize("engine", [REFERENCE, ORT_CPU], ids=lambda engine: engine.name)
@pytest.mark.parametrize("method", ["", "minmax"])
def test_a_sound_engine_is_accused_of_nothing(subject: Subject, engine: Engine, method: str, tmp_path: Path) -> None:
    model = quantised(subject, method) if method else subject.model
    found = seen(subject.golden, opened(model, tmp_path / "sound.onnx", engine))
    assert found.outcome == "pass"
    assert not NAMES & set(found.faults)


def drifted(subject: Subject, rate: float, importance: str, epochs: int) -> onnx.ModelProto:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        pruned = prune(
            subject.teacher.model, PruneOptions(rate=rate, importance=importance), subject.teacher.card.input.shape
        )
        train(pruned.model, subject.teacher.card, *subject.training, epochs=epochs, lr=0.02)
    return subject.of_network(pruned.model)


@pytest.mark.parametrize(
    ("rate", "importance", "epochs"), [(0.2, "l1", 0), (0.36, "l1", 0), (0.36, "l2", 0), (0.5, "l2", 0), (0.4, "l1", 1)]
)
def test_an_honestly_drifted_engine_is_accused_of_nothing(
    subject: Subject, rate: float, importance: str, epochs: int, tmp_path: Path
) -> None:
    """Pruned a lot, with and without training after it: the maps moved, and that is all that is said."""
    found = seen(subject.golden, opened(drifted(subject, rate, importance, epochs), tmp_path / "drifted.onnx"))
    assert not NAMES & set(found.faults), found.findings


@pytest.fixture(scope="module")
def demo() -> Subject:
    return SUBJECTS["demo"]()


@pytest.mark.parametrize("seed", range(4))
def test_channels_in_any_order_are_told_from_drift(demo: Subject, seed: int, tmp_path: Path) -> None:
    golden, model = swapped_channels(demo, seed)
    assert seen(golden, opened(model, tmp_path / "swapped.onnx")).faults[0] == "head-scrambled"


def test_a_lost_relu_is_named_even_where_the_policy_passes(demo: Subject, tmp_path: Path) -> None:
    """The best answer's map is hardly negative anywhere: its scores hold, though the engine is broken."""
    model = demo.copied()
    without_relu(model)
    found = seen(demo.golden, opened(model, tmp_path / "lost.onnx"))
    assert found.outcome == "pass"
    assert found.faults == ["relu-missing"]


def test_findings_do_not_change_a_verdict(demo: Subject, tmp_path: Path) -> None:
    """Half of the set twice: what the policy says of such a table is the policy's; that the set is refused is not."""
    golden, model = half_repeated(demo)
    found = seen(golden, opened(model, tmp_path / "sound.onnx"))
    assert (found.outcome, found.faults) == ("pass", ["golden-repeated"])


@pytest.fixture
def runner(demo: Subject, tmp_path: Path) -> Iterator[Runner]:
    with opened(demo.model, tmp_path / "sound.onnx") as opened_runner:
        yield opened_runner


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_handful_of_samples_upsets_nothing(demo: Subject, runner: Runner, samples: int) -> None:
    whole = demo.golden
    golden = replace(
        whole,
        pixels=whole.pixels[:samples][:, ::-1].copy(),
        labels=whole.labels[:samples],
        logits=whole.logits[:samples],
        maps=whole.maps[:samples],
        names=whole.names[:samples],
        masks=None,
    )
    answers = answer_golden(runner, golden)
    found = diagnose(golden, answers, score_answers(golden, answers), runner)
    assert all(np.isfinite([finding.before, finding.after]).all() for finding in found)
