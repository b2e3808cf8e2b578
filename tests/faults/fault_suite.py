"""What every trained network is put through: the fifteen faults, sound engines, and engines that drifted honestly.

A file a network, so that workers share them, and each is trained and exported once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import numpy as np
import onnx
import pytest
import torch
from coloured_discs import train
from engine_faults import FAULTS
from explained_graphs import ArrayImages
from fault_subjects import Subject, opened

from edgekit.bundle.golden import GoldenSet, read_golden, write_golden
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import quantise_graph
from edgekit.compress.options import PruneOptions
from edgekit.compress.pruning.structured import prune
from edgekit.engines.ort_cpu import ENGINE as ORT_CPU
from edgekit.engines.protocol import EngineInfo, EngineOutput, Runner
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.errors import IntegrityError
from edgekit.interface.preprocess import preprocess
from edgekit.policy.document import load_preset
from edgekit.policy.verdict import judge
from edgekit.teacher.explain import Explainer
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.tap import Tap
from edgekit.verify.answers import answer_golden
from edgekit.verify.diagnosis.diagnose import diagnose
from edgekit.verify.diagnosis.finding import Finding
from edgekit.verify.score import score_answers

# Told by drift, too, since no answer can tell the two apart; every other name belongs to a fault alone.
SHARED = "maps-drifted"
NAMES = {fault.names for fault in FAULTS.values()} - {SHARED}


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


class TorchRunner:
    """A network that answers as its engine would, without the seconds that writing one takes."""

    def __init__(self, network: torch.nn.Module, tap: str) -> None:
        self._network = network
        self._explainer = Explainer(GRAD_CAM, (Tap(tap),))

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("torch", torch.__version__, "cpu")

    def run(self, images: np.ndarray, class_index: np.ndarray) -> EngineOutput:
        explained = self._explainer(self._network, torch.from_numpy(images), torch.from_numpy(class_index))
        return EngineOutput(explained.logits.numpy(), explained.maps[0].numpy())

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> TorchRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""


def quantised(subject: Subject, method: str) -> onnx.ModelProto:
    graph = parse_graph(subject.model.SerializeToString(), where="test")
    images = ArrayImages(preprocess(subject.training[0][:64], subject.golden.card.input))
    options = CalibrateOptions(method=method, bins=512)
    model: onnx.ModelProto = quantise_graph(graph, images, number_format("x86-u8s8"), options).model
    return model


def drifted(subject: Subject, rate: float, importance: str, epochs: int) -> torch.nn.Module:
    card = subject.teacher.card
    with torch.random.fork_rng():
        torch.manual_seed(1)
        pruned = prune(subject.teacher.model, PruneOptions(rate=rate, importance=importance), card.input.shape)
        train(pruned.model, card, *subject.training, epochs=epochs, lr=0.02)
    return pruned.model


class FaultSuite:
    """Faults do not pass and are named first; what is no fault is not accused of one."""

    make: ClassVar[Callable[[], Subject]]

    @pytest.fixture
    def subject(self) -> Subject:
        return type(self).make()

    @pytest.mark.parametrize("name", FAULTS)
    def test_a_fault_does_not_pass_and_is_named_first(self, subject: Subject, name: str, tmp_path: Path) -> None:
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

    @pytest.mark.parametrize("method", ["", "minmax"])
    def test_a_sound_engine_is_accused_of_nothing(self, subject: Subject, method: str, tmp_path: Path) -> None:
        model = quantised(subject, method) if method else subject.model
        for engine in (REFERENCE, ORT_CPU):
            found = seen(subject.golden, opened(model, tmp_path / "sound.onnx", engine))
            assert found.outcome == "pass", engine.name
            assert not NAMES & set(found.faults), engine.name

    @pytest.mark.parametrize(
        ("rate", "importance", "epochs"),
        [(0.2, "l1", 0), (0.36, "l1", 0), (0.5, "l2", 0), (0.4, "l1", 1)],
    )
    def test_an_honestly_drifted_engine_is_accused_of_nothing(
        self, subject: Subject, rate: float, importance: str, epochs: int
    ) -> None:
        """Pruned a lot, with and without training after it: the maps moved, and that is all that is said."""
        tap = subject.golden.map_spec.tap
        found = seen(subject.golden, TorchRunner(drifted(subject, rate, importance, epochs), tap))
        assert not NAMES & set(found.faults), found.findings

    @pytest.mark.parametrize("samples", [1, 2, 3])
    def test_a_handful_of_samples_upsets_nothing(self, subject: Subject, samples: int, tmp_path: Path) -> None:
        whole = subject.golden
        golden = replace(
            whole,
            pixels=whole.pixels[:samples][:, ::-1].copy(),
            labels=whole.labels[:samples],
            logits=whole.logits[:samples],
            maps=whole.maps[:samples],
            names=whole.names[:samples],
            masks=None,
        )
        found = seen(golden, opened(subject.model, tmp_path / "sound.onnx"))
        assert all(np.isfinite([finding.before, finding.after]).all() for finding in found.findings)
