"""A candidate bundle as a device sees it: opened, with its plan, and the plan about this very bundle."""

from __future__ import annotations

from edgekit.bundle import layout
from edgekit.bundle.golden_digest import golden_digest
from edgekit.bundle.open import Bundle
from edgekit.device.plan import DevicePlan, read_plan_bytes
from edgekit.errors import BadInputError, IntegrityError, UnavailableError
from edgekit.jetson.detect import Jetson

__all__ = ["GOLDEN_INPUT", "bundle_golden_digest", "candidate_plan", "check_device"]

GOLDEN_INPUT = "golden"
"""The name of the golden set among a plan's inputs."""


def bundle_golden_digest(bundle: Bundle) -> str:
    """`golden_digest` of a bundle's own set."""
    return golden_digest({name: ref.sha256 for name, ref in bundle.manifest.files.items()})


def candidate_plan(bundle: Bundle) -> DevicePlan:
    """The plan of a candidate.

    Raises:
        BadInputError: The bundle is no candidate for a device.
        IntegrityError: Its plan is damaged, or about other files than lie beside it.
    """
    if layout.DEVICE_PLAN not in bundle or not bundle.awaits_device:
        raise BadInputError(
            "This bundle is no candidate that a device completes.",
            where=str(bundle.source),
            expected=f"a bundle of status unverified with {layout.DEVICE_PLAN}",
            found=f"status {bundle.manifest.status}, engine {bundle.manifest.engine}",
            hint="'edgekit build MODEL --target jetson-...' on a machine without TensorRT makes one",
        )
    where = str(bundle.path(layout.DEVICE_PLAN))
    plan = read_plan_bytes(bundle.read_bytes(layout.DEVICE_PLAN), where=where)
    found = {name: ref.sha256 for name, ref in bundle.manifest.files.items()}
    found[GOLDEN_INPUT] = golden_digest(found)
    needed = {GOLDEN_INPUT, layout.POLICY, layout.RECIPE, layout.MODEL, layout.REFERENCE, layout.SCALES}
    beside = {name for build in plan.builds.values() for name in (build.typed, build.unrounded) if name}
    needed |= ({layout.HALF_MODEL, layout.FLOAT16_MODEL} & set(found)) | beside
    named = dict(plan.inputs) | {build.graph: build.sha256 for build in plan.builds.values()}
    other = sorted(name for name, digest in named.items() if found.get(name) != digest)
    if other or not needed <= set(plan.inputs) or plan.target != bundle.manifest.target:
        raise IntegrityError(
            "The device plan is about other files than those of its bundle.",
            where=where,
            expected="the digests of " + ", ".join(sorted(needed)) + f", and target {bundle.manifest.target}",
            found=f"target {plan.target}; " + (f"other digests of {', '.join(other)}" if other else "fewer digests"),
            hint="make the candidate again on the host",
        )
    return plan


def check_device(plan: DevicePlan, jetson: Jetson | None, tensorrt: str, *, where: str) -> None:
    """Refuse a device that the plan is not for, before any work.

    Raises:
        UnavailableError: No Jetson, another module, or a TensorRT outside the plan's range.
    """
    names = (jetson.module, jetson.base_module) if jetson else ()
    if not set(plan.modules) & {name for name in names if name}:
        raise UnavailableError(
            "The plan is for another device.",
            where=where,
            expected=" or ".join(plan.modules),
            found=(jetson.module or jetson.model or "a Jetson whose module cannot be told") if jetson else "no Jetson",
            hint="run it on the device that the bundle was built for, or build a candidate for this one",
        )
    if tensorrt not in plan.tensorrt:
        raise UnavailableError(
            "The plan is for other versions of TensorRT.",
            where=where,
            expected=f"TensorRT {plan.tensorrt} ({plan.tensorrt.basis})",
            found=f"TensorRT {tensorrt or 'of no known version'}",
            hint="install a JetPack that brings one of them; 'edgekit targets NAME' lists them",
        )
