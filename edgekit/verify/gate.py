"""The gate: is this bundle whole, and does its stored evidence show what the policy demands?

Nothing is run here. The verdict is computed anew from the stored per-sample scores; what the bundle claims about
itself is only compared with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgekit.bundle.golden import GoldenSet
from edgekit.bundle.layout import CANDIDATES, CONTROLS, DEVICE_EVIDENCE, POLICY, RECIPE, SCORES, VERDICT
from edgekit.bundle.open import Bundle, open_bundle
from edgekit.errors import BadInputError, EvidenceNeededError, ExitCode, IntegrityError
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import scores_from_dict
from edgekit.policy.context import Baseline
from edgekit.policy.document import policy_from_dict
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import Outcome, Verdict, judge
from edgekit.signing.about import check_about, stated_envelope
from edgekit.verify.beside import bundle_context
from edgekit.verify.control_files import controls_from_files
from edgekit.verify.controls import ControlResult, ControlsState, StoredControls, judge_controls
from edgekit.verify.sequence import check_whole, judged_part

__all__ = [
    "GateResult",
    "bundle_baseline",
    "bundle_controls",
    "bundle_notice",
    "bundle_policy",
    "bundle_scores",
    "device_notice",
    "gate",
    "read_baseline",
    "wants_controls",
    "with_controls",
]


@dataclass(frozen=True)
class GateResult:
    """What the gate says.

    Attributes:
        verdict: Of the policy, about the stored scores.
        controls: Of the same policy, about the controls that were verified beside the engine.
        controls_state: Whether there are any.
        controls_missing: Name of a control that could not be made to the reason.
    """

    verdict: Verdict
    controls: tuple[ControlResult, ...] = ()
    controls_state: ControlsState = "absent"
    controls_missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def too_weak(self) -> tuple[str, ...]:
        """Names of the controls that the policy does not fail: it cannot tell the engine from them."""
        return tuple(control.name for control in self.controls if not control.caught)

    @property
    def outcome(self) -> Outcome:
        """The verdict's; a pass under a policy that is too weak is "inconclusive"."""
        return "inconclusive" if self.verdict.outcome == "pass" and self.too_weak else self.verdict.outcome

    @property
    def exit_code(self) -> ExitCode:
        """0 for pass, 1 for fail, 6 for inconclusive."""
        return ExitCode.INCONCLUSIVE if self.outcome != self.verdict.outcome else self.verdict.exit_code

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, with the clauses in words."""
        return {
            "outcome": self.outcome,
            "verdict": self.verdict.to_dict_in_words(),
            "controls": {
                "state": self.controls_state,
                "too_weak": list(self.too_weak),
                "missing": dict(self.controls_missing),
                "results": [control.to_dict() for control in self.controls],
            },
        }


def with_controls(verdict: Verdict, controls: StoredControls) -> GateResult:
    """A verdict with what its policy says about the controls."""
    return GateResult(verdict, judge_controls(verdict.policy, controls), controls.state, controls.missing)


_STATUS_OF_OUTCOME = {"pass": "released", "fail": "blocked", "inconclusive": "inconclusive"}


def bundle_policy(bundle: Bundle) -> Policy:
    """The policy stored in a bundle. Raises `IntegrityError` when it is malformed."""
    where = str(bundle.path(POLICY))
    try:
        return policy_from_dict(bundle.read_json(POLICY), where=where)
    except BadInputError as cause:
        raise IntegrityError("The bundle's policy is malformed.", where=where, found=str(cause)) from cause


def bundle_notice(bundle: Bundle) -> str:
    """What a reader of a verdict has to know besides; empty where there is nothing.

    That is what a device that completed the release said of its engine's standing, and that nobody looked at a
    signature.
    """
    return " ".join(text for text in (device_notice(bundle), _signature_notice(bundle)) if text)


def _signature_notice(bundle: Bundle) -> str:
    stated = stated_envelope(bundle)
    if stated is None:
        return ""
    return (
        f"The bundle says that key {stated[0].key_id} signed it. The signature was not checked: "
        "'edgekit check BUNDLE --key PUBLIC' does that."
    )


def device_notice(bundle: Bundle) -> str:
    """What a device that completed the release said of its engine's standing; empty where none did."""
    if DEVICE_EVIDENCE not in bundle:
        return ""
    where = str(bundle.path(DEVICE_EVIDENCE))
    try:
        return str(bundle.read_json(DEVICE_EVIDENCE)["notice"])
    except (KeyError, TypeError) as cause:
        raise IntegrityError("The bundle's device evidence is malformed.", where=where, found=repr(cause)) from cause


def bundle_scores(bundle: Bundle, golden: GoldenSet) -> ScoreTable:
    """The scores stored in a bundle.

    Raises:
        IntegrityError: They are malformed, or are not about this bundle's golden set.
    """
    where = str(bundle.path(SCORES))
    table = scores_from_dict(bundle.read_json(SCORES), where=where)
    about = judged_part(golden, bundle_policy(bundle), len(table))
    same = (
        table.sample == about.digests
        and np.array_equal(table.label, about.labels)
        and np.array_equal(table.teacher_class, about.teacher_class)
    )
    if not same:
        raise IntegrityError(
            "The stored scores are about other samples than the golden set.",
            where=where,
            hint="run 'edgekit verify' to make new ones",
        )
    return table


def bundle_baseline(bundle: Bundle) -> Baseline:
    """A verified bundle as what another is to be no worse than.

    Raises:
        BadInputError: It was never verified.
        IntegrityError: Its scores are malformed, or are not about its golden set.
    """
    if SCORES not in bundle:
        raise BadInputError(
            "A bundle that was never verified is no baseline.",
            where=str(bundle.source),
            expected="a bundle with scores",
            found=f"status {bundle.manifest.status}",
            hint="name a bundle that 'edgekit build' or 'edgekit attach' completed",
        )
    return Baseline(bundle.manifest.digest, bundle_scores(bundle, bundle.golden()))


def read_baseline(path: Path) -> Baseline:
    """The bundle at `path`, a folder or a tar file, as a baseline; raises like `open_bundle` and `bundle_baseline`."""
    with open_bundle(path) as opened:
        return bundle_baseline(opened)


def wants_controls(bundle: Bundle) -> bool | None:
    """What the bundle's recipe says of controls: True, False where they were switched off, None in older bundles."""
    raw = bundle.read_json(RECIPE)
    said = raw.get("verify") if isinstance(raw, dict) else None
    wanted = said.get("controls") if isinstance(said, dict) else None
    return wanted if isinstance(wanted, bool) else None


def bundle_controls(bundle: Bundle, golden: GoldenSet, engine: ScoreTable) -> StoredControls:
    """The controls stored in a bundle; state "absent" where it is from before there were any.

    Args:
        bundle: The bundle.
        golden: What its scores are about: the golden set, or the part that a sequential policy looked at.
        engine: Its scores.

    Raises:
        IntegrityError: The recipe says that they ran and they are not there, or not whole, or not about this golden set
            and these scores.
    """
    wanted = wants_controls(bundle)
    if CONTROLS not in bundle:
        if wanted is None:
            return StoredControls()
        raise IntegrityError(
            "The bundle's controls are missing.",
            where=str(bundle.source),
            expected=f"{CONTROLS}, since the recipe says verify.controls {str(wanted).lower()}",
            found="no such file",
            hint="take the bundle from where it was made, or build it again",
        )
    where = str(bundle.path(CONTROLS))

    def read(name: str) -> bytes:
        place = (PurePosixPath(CONTROLS).parent / name).as_posix()
        if place not in bundle:
            raise IntegrityError("A control is missing.", where=where, expected=place, found="no such file")
        return bundle.read_bytes(place)

    stored = controls_from_files(bundle.read_bytes(CONTROLS), read, golden, engine, where=where)
    if wanted is not None and wanted != (stored.state == "ran"):
        raise IntegrityError(
            "The bundle's recipe and its evidence say different things of controls.",
            where=where,
            expected=f"verify.controls {str(wanted).lower()}",
            found=f"state {stored.state}",
        )
    return stored


def gate(bundle: Bundle, policy: Policy | None = None, baseline: Baseline | None = None) -> GateResult:
    """Judge a bundle by its stored scores.

    Args:
        bundle: Opened, so every byte was already checked against the manifest.
        policy: Judge under this one instead of the bundle's own.
        baseline: Compare with this release instead of the one that the bundle was judged beside, if any.

    Raises:
        EvidenceNeededError: The device has yet to build and verify its engine.
        BadInputError: The bundle holds no evidence.
        IntegrityError: The evidence does not belong to the bundle or is of another engine, its stored verdict or
            status is not what its own policy says about its own scores, or the envelope of a signed bundle is about
            something else. Whose signature that is takes a key, and is not asked.
    """
    _check_there_is_evidence(bundle)
    _check_engine(bundle)
    stated = stated_envelope(bundle)
    if stated is not None:
        check_about(bundle, stated[1])
    golden = bundle.golden()
    table = bundle_scores(bundle, golden)
    own, controls = _own_verdict(bundle, golden, table)
    if policy is None and baseline is None:
        return own
    demanded = own.verdict.policy if policy is None else policy
    check_whole(golden, demanded, table)
    return with_controls(judge(demanded, table, bundle_context(bundle, demanded, baseline)), controls)


def _check_there_is_evidence(bundle: Bundle) -> None:
    if bundle.awaits_device:
        raise EvidenceNeededError(
            "The bundle has status unverified: it needs evidence from the device.",
            where=str(bundle.source),
            expected=f"scores of the engine that {bundle.manifest.target} builds",
            found="a candidate whose engine nothing has built yet",
            hint="run 'edgekit device build' with it on the device, then 'edgekit attach' here",
        )
    if SCORES not in bundle:
        raise BadInputError(
            "The bundle was never verified, so there is nothing to judge.",
            where=str(bundle.source),
            hint="run 'edgekit verify' on the device it was built for",
        )


def _own_verdict(bundle: Bundle, golden: GoldenSet, table: ScoreTable) -> tuple[GateResult, StoredControls]:
    """What the bundle's own policy says, and the controls; `IntegrityError` where the bundle claims anything else."""
    policy, released = bundle_policy(bundle), bundle.manifest.status == "released"
    own = judge(policy, table, bundle_context(bundle, policy))
    stored = bundle.read_json(VERDICT)
    if own.to_dict() != stored:
        raise IntegrityError(
            "The stored verdict is not what the bundle's policy says about its scores.",
            where=str(bundle.path(VERDICT)),
            expected=own.outcome,
            found=str(stored.get("outcome")) if isinstance(stored, dict) else "something else than a verdict",
        )
    if released and own.outcome != "pass":
        raise IntegrityError(
            "The bundle calls itself released and its own evidence does not pass.",
            where=str(bundle.source),
            expected=f"status {_STATUS_OF_OUTCOME[own.outcome]}",
            found="status released",
        )
    controls = bundle_controls(bundle, judged_part(golden, policy, len(table)), table)
    judged = with_controls(own, controls)
    if released and judged.outcome != "pass":
        raise IntegrityError(
            "The bundle calls itself released, and its own policy is too weak.",
            where=str(bundle.source),
            expected="status inconclusive, since the policy does not fail " + ", ".join(judged.too_weak),
            found="status released",
        )
    return judged, controls


def _check_engine(bundle: Bundle) -> None:
    """Raise `IntegrityError` where the candidate that the evidence chose is on another engine than the manifest says.

    Bundles of before engines competed say only a candidate's name, and some have no candidates at all.
    """
    if CANDIDATES not in bundle:
        return
    stored, manifest = bundle.read_json(CANDIDATES), bundle.manifest
    known = {"engine": manifest.engine, "precision": manifest.precision}
    try:
        told = next(item for item in stored["candidates"] if item["name"] == stored["chosen"])
        found = {key: told[key] for key in known if key in told}
    except (KeyError, TypeError, StopIteration) as cause:
        raise IntegrityError(
            "The bundle's list of candidates is malformed.", where=str(bundle.path(CANDIDATES)), found=repr(cause)
        ) from cause
    if not found.items() <= known.items():
        raise IntegrityError(
            "The evidence chose an engine that is not the bundle's.",
            where=str(bundle.path(CANDIDATES)),
            expected=f"{manifest.precision} on {manifest.engine}",
            found=", ".join(f"{key} {value}" for key, value in found.items()),
        )
