"""The fifteen faults on a network that minds colours, and that there are fifteen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from engine_faults import ALSO, FAULTS
from fault_subjects import Subject, discs, opened
from fault_suite import NAMES, FaultSuite, seen
from faulty import FaultyRunner

from edgekit.verify.answers import answer_golden
from edgekit.verify.diagnosis.finders import FINDERS
from edgekit.verify.score import score_answers

# Faults that are no part of the fifteen, and have their tests in test_known_faults and test_verify_diagnose.
ELSEWHERE = {"map-flipped", "map-rotated", "map-stale", "map-flat", "class-order"}


class TestDiscs(FaultSuite):
    """Residual, 16 x 16 maps of ten channels, three classes."""

    make = discs

    def test_the_network_knows_its_colours(self, subject: Subject) -> None:
        assert np.mean(subject.golden.teacher_class == subject.golden.labels) > 0.95

    def test_red_and_blue_exchanged_on_the_way_in(self, subject: Subject, tmp_path: Path) -> None:
        """By whoever prepares the images: the engine itself is sound."""
        sound = opened(subject.model, tmp_path / "sound.onnx")
        found = seen(subject.golden, FaultyRunner(sound, before=lambda images: images[:, ::-1]))
        assert found.outcome == "fail"
        assert found.faults[0] == "input-channel-order"
        assert found.findings[0].after > 0.99

    def test_the_map_lies_on_the_disc(self, subject: Subject, tmp_path: Path) -> None:
        """Localisation where there are masks: better than a map that knows only where objects usually are."""
        golden = subject.golden
        with opened(subject.model, tmp_path / "sound.onnx") as runner:
            table = score_answers(golden, answer_golden(runner, golden))
        for metric in ("pixel-auc", "energy-inside"):
            ours, blind = table.localisation[f"engine/{metric}"], table.localisation[f"centre-prior/{metric}"]
            assert np.nanmean(ours) > np.nanmean(blind) + 0.1
            np.testing.assert_allclose(ours, table.localisation[f"teacher/{metric}"], atol=1e-3)


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
