"""The fifteen faults on the classifier that comes with edgekit, and what is peculiar to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_faults import half_repeated, swapped_channels
from fault_subjects import Subject, demo, opened
from fault_suite import FaultSuite, seen
from graph_faults import without_relu


class TestDemo(FaultSuite):
    """Residual, 8 x 8 maps, six shapes."""

    make = demo

    @pytest.mark.parametrize("seed", range(3))
    def test_channels_in_any_order_are_told_from_drift(self, subject: Subject, seed: int, tmp_path: Path) -> None:
        golden, model = swapped_channels(subject, seed)
        assert seen(golden, opened(model, tmp_path / "swapped.onnx")).faults[0] == "head-scrambled"

    def test_a_lost_relu_is_named_even_where_the_policy_passes(self, subject: Subject, tmp_path: Path) -> None:
        """The best answer's map is hardly negative anywhere: its scores hold, though the engine is broken."""
        model = subject.copied()
        without_relu(model)
        found = seen(subject.golden, opened(model, tmp_path / "lost.onnx"))
        assert found.outcome == "pass"
        assert found.faults == ["relu-missing"]

    def test_findings_do_not_change_a_verdict(self, subject: Subject, tmp_path: Path) -> None:
        """Half of the set twice: what the policy says of such a table is the policy's; that it is refused is not."""
        golden, model = half_repeated(subject)
        found = seen(golden, opened(model, tmp_path / "sound.onnx"))
        assert (found.outcome, found.faults) == ("pass", ["golden-repeated"])
