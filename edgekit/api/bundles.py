"""What is done with a bundle: verify, gate, compare, sign, check, and look into it; and what a device does for one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.progress import NULL_OBSERVER, Observer

if TYPE_CHECKING:
    from datetime import timedelta

    from edgekit.bench.options import LatencyOptions
    from edgekit.bench.result import LatencyReport
    from edgekit.blame.bundled import BlameReport
    from edgekit.ci.comparison import Comparison
    from edgekit.device.evidence import DeviceEvidence
    from edgekit.pipeline.bundle_report import BundleReport
    from edgekit.pipeline.explain import Explanation
    from edgekit.pipeline.inspect import Found
    from edgekit.pipeline.release import BuildResult
    from edgekit.policy.policy import Policy
    from edgekit.policy.suggest import Suggestion
    from edgekit.release.check import Checked
    from edgekit.release.sign import Release
    from edgekit.teacher.load_options import LoadOptions
    from edgekit.verify.gate import GateResult
    from edgekit.verify.stage import Verification

__all__ = [
    "attach",
    "bench",
    "blame",
    "check",
    "compare",
    "device_build",
    "explain",
    "gate",
    "inspect",
    "release",
    "report",
    "suggest_policy",
    "verify",
]

PathLike = str | Path


def verify(
    path: PathLike, *, policy: Policy | None = None, controls: bool = True, observer: Observer = NULL_OBSERVER
) -> Verification:
    """Run a bundle's engine on its golden set, here and now, and judge its maps, with controls beside it."""
    from edgekit.bundle.open import open_bundle
    from edgekit.verify.stage import verify_bundle

    with open_bundle(Path(path)) as opened:
        return verify_bundle(opened, policy, controls=controls, observer=observer)


def gate(path: PathLike, *, policy: Policy | None = None, baseline: PathLike | None = None) -> GateResult:
    """Check a bundle's integrity and judge its stored scores; `baseline` names another release to compare with."""
    from edgekit.bundle.open import open_bundle
    from edgekit.verify import gate as judging

    beside = None if baseline is None else judging.read_baseline(Path(baseline))
    with open_bundle(Path(path)) as opened:
        return judging.gate(opened, policy, beside)


def explain(bundle: PathLike, image: PathLike, output: PathLike, *, class_name: str | None = None) -> Explanation:
    """Answer one image with a bundle's engine and write where it looked as a PNG to `output`."""
    from edgekit.bundle.open import open_bundle
    from edgekit.pipeline.explain import explain_image

    with open_bundle(Path(bundle)) as opened:
        return explain_image(opened, Path(image), Path(output), class_name)


def bench(
    bundle: PathLike, *, options: LatencyOptions | None = None, observer: Observer = NULL_OBSERVER
) -> LatencyReport:
    """Time a bundle's engine here, beside its FP32 graph where the bundle ships INT8; power and memory beside it."""
    from edgekit.bench.latency import LatencySubject, measure_latency
    from edgekit.bench.options import LatencyOptions
    from edgekit.bundle.open import open_bundle
    from edgekit.interface.preprocess import preprocess

    options = options or LatencyOptions(power=True)
    with open_bundle(Path(bundle)) as opened:
        manifest, golden_set = opened.manifest, opened.golden()
        subjects = {manifest.precision: LatencySubject(manifest.engine, opened.model_path)}
        if manifest.precision != "fp32":
            subjects["fp32"] = LatencySubject(manifest.engine, opened.partner_path)
        # A small golden set is repeated: whole batches are timed.
        wanted = [index % len(golden_set) for index in range(8 * options.batch)]
        images = preprocess(golden_set.pixels[wanted], golden_set.card.input)
        return measure_latency(subjects, images, options, observer)


def blame(
    bundle: PathLike, *, output: PathLike | None = None, observer: Observer = NULL_OBSERVER, **options: Any
) -> BlameReport:
    """Say which rounding moved a bundle's maps, and at which hop from teacher to engine they were lost.

    Args:
        bundle: Folder or tar file of a bundle.
        output: Folder for document, table, page and exclude list; None writes nothing.
        observer: Told of the progress.
        **options: options, images, build, student_code, policy, hops_only, as `edgekit.blame.bundled.BlameRequest`.
    """
    from edgekit.blame import bundled
    from edgekit.blame.write import write_blame
    from edgekit.bundle.open import open_bundle
    from edgekit.core.files import check_writable_directory

    if output is not None:
        check_writable_directory(Path(output))  # said before minutes of work
    options |= {name: Path(options[name]) for name in ("images", "build") if options.get(name) is not None}
    with open_bundle(Path(bundle)) as opened:
        report = bundled.blame(bundled.BlameRequest(opened, **options), observer)
    if output is not None:
        write_blame(report, Path(output))
    return report


def inspect(path: PathLike, *, load: LoadOptions | None = None) -> Found:
    """Say what a file or folder is."""
    from edgekit.pipeline.inspect import inspect_path

    return inspect_path(Path(path), load)


def compare(older: PathLike, newer: PathLike, *, policy: Policy | None = None) -> Comparison:
    """Show two bundles side by side, with their scores paired by sample; `policy` judges both in place of their own."""
    from edgekit.bundle.open import open_bundle
    from edgekit.ci.comparison import compare_bundles

    with open_bundle(Path(older)) as before, open_bundle(Path(newer)) as after:
        return compare_bundles((Path(older), before), (Path(newer), after), policy)


def report(
    bundle: PathLike,
    output: PathLike,
    *,
    blame: PathLike | None = None,
    policy: Policy | None = None,
    observer: Observer = NULL_OBSERVER,
) -> BundleReport:
    """Write a bundle's evidence as one page to the folder `output`, with the document `blame` where there is one."""
    from edgekit.pipeline.bundle_report import report_file

    chosen = None if blame is None else Path(blame)
    return report_file(Path(bundle), Path(output), blame=chosen, policy=policy, observer=observer)


def suggest_policy(
    bundle: PathLike,
    *,
    runs: int = 3,
    margin: float = 0.1,
    confidence: float = 0.95,
    observer: Observer = NULL_OBSERVER,
) -> Suggestion:
    """Measure how far a bundle's maps move through noise alone, and make a policy that lies beyond it.

    Args:
        bundle: Folder or tar file of a bundle.
        runs: How often each graph is opened and run without any difference; at least 2.
        margin: Where a threshold stands on the way from noise (0) to maps that say nothing of the image (1).
        confidence: Of every bound of the policy.
        observer: Told of the progress.
    """
    from edgekit.bundle.open import open_bundle
    from edgekit.policy.suggest import suggest
    from edgekit.policy.suggested_clauses import SuggestOptions
    from edgekit.verify.noise import NoiseOptions, measure_noise

    with open_bundle(Path(bundle)) as opened:
        found = measure_noise(opened, NoiseOptions(runs=runs), observer)
    return suggest(found.measurements, SuggestOptions(margin, confidence), found.grids)


def release(bundle: PathLike, key: PathLike, *, passphrase: str = "", lifetime: timedelta | None = None) -> Release:
    """Sign a bundle that passes its gate, in place; any other is refused, which is a result and raises nothing.

    Args:
        bundle: Folder or tar file of a bundle.
        key: PEM file of an Ed25519 private key.
        passphrase: Of that key; used only where it is encrypted.
        lifetime: After so long the signature has expired; None lets it stand.
    """
    from edgekit.release.sign import release as sign
    from edgekit.signing.private import read_private_key

    return sign(Path(bundle), read_private_key(Path(key), lambda: passphrase), lifetime=lifetime)


def check(
    bundle: PathLike, keys: Sequence[PathLike], *, max_age: timedelta | None = None, any_device: bool = False
) -> Checked:
    """Check a signed bundle before it is installed here.

    Args:
        bundle: Folder or tar file of a bundle.
        keys: PEM files of public keys, one of which must have signed it.
        max_age: Refuse a signature that is older.
        any_device: Do not compare this device with the one that the bundle was verified on.

    Raises:
        IntegrityError: It is changed, unsigned, or not signed by one of the keys.
        UnavailableError: It was verified on another kind of device.
        EvidenceNeededError: The signature has expired or is too old.
    """
    from edgekit.release.check import CheckOptions
    from edgekit.release.check import check as checked
    from edgekit.signing.keys import read_public_key

    known = [read_public_key(Path(key)) for key in keys]
    return checked(Path(bundle), known, CheckOptions(max_age=max_age, any_device=any_device))


def device_build(bundle: PathLike, output: PathLike, *, observer: Observer = NULL_OBSERVER) -> DeviceEvidence:
    """On a device: build, verify and time the engines of a candidate's plan, and write evidence of it to `output`."""
    from edgekit.device.build import DeviceBuildRequest
    from edgekit.device.build import device_build as work

    return work(DeviceBuildRequest(Path(bundle), Path(output)), observer)


def attach(
    bundle: PathLike, evidence: PathLike, output: PathLike | None = None, *, observer: Observer = NULL_OBSERVER
) -> BuildResult:
    """On the host: check what a device wrote of a candidate, and complete its release; see `AttachRequest`."""
    from edgekit.pipeline.attach import AttachRequest
    from edgekit.pipeline.attach import attach as complete

    request = AttachRequest(Path(bundle), Path(evidence), None if output is None else Path(output))
    return complete(request, observer)
