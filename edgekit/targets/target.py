"""What a target is: the facts about a device family that a build needs, and that a support table judges by."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.engines.registry import ENGINES
from edgekit.errors import DefectError
from edgekit.export.operator_table import table_names
from edgekit.jetson.releases import RELEASES, Release, numbers_of, release_named

__all__ = ["PLANNED_ENGINES", "JetsonFacts", "Peak", "Target", "registered_engines"]

PLANNED_ENGINES: frozenset[str] = frozenset()
"""Engines that a target may name before the registry has them; building for it is refused until then."""


@dataclass(frozen=True)
class Peak:
    """What a module could reach at most in one power mode, for a roofline.

    Attributes:
        mode: Power mode, as nvpmodel names it.
        gpu_int8_tops: Dense INT8 operations of the GPU alone, 1e12 a second. Data sheets quote twice that, for 2:4
            sparsity, and add the DLAs.
        gpu_fp16_tops: Dense FP16 operations; None where no source says.
        dla_int8_tops: Dense INT8 operations of all DLA cores together; 0 where there is none.
        bandwidth: Memory bandwidth, GB/s (1e9 bytes).
        basis: Where the numbers come from.
    """

    mode: str
    gpu_int8_tops: float
    gpu_fp16_tops: float | None
    dla_int8_tops: float
    bandwidth: float
    basis: str

    @property
    def ridge(self) -> float:
        """INT8 operations for each byte of memory traffic from which on the GPU's arithmetic is the limit."""
        return self.gpu_int8_tops * 1000 / self.bandwidth


@dataclass(frozen=True)
class JetsonFacts:
    """What is known of a Jetson module.

    Attributes:
        soc: System on chip, as the device tree calls it.
        compute_capability: Of the GPU, such as "8.7".
        sms: Streaming multiprocessors.
        dla_cores: Deep learning accelerators, 0 where there is none.
        jetpack_oldest: First JetPack release that runs on it.
        jetpack_newest: Last one known to.
        power_modes: As nvpmodel names them; the device decides.
        peaks: What it can reach at most, the mode it is sold with first.
        unconfirmed: Which of the above stand here without a source; nothing is decided by them.
    """

    soc: str
    compute_capability: str
    sms: int
    dla_cores: int
    jetpack_oldest: str
    jetpack_newest: str
    power_modes: tuple[str, ...]
    peaks: tuple[Peak, ...]
    unconfirmed: tuple[str, ...]

    def __post_init__(self) -> None:
        for holds, what in (
            (any(self.soc in release.socs for release in RELEASES), "soc"),
            (numbers_of(self.compute_capability) >= (5,), "compute_capability"),
            (self.sms >= 1 and self.dla_cores >= 0, "sms, dla_cores"),
            (bool(self.releases), "jetpack_oldest, jetpack_newest"),
            (bool(self.power_modes) and bool(self.peaks), "power_modes, peaks"),
            (all(peak.mode in self.power_modes for peak in self.peaks), "peaks: mode"),
            (all((peak.dla_int8_tops > 0) == (self.dla_cores > 0) for peak in self.peaks), "peaks: dla_int8_tops"),
            (
                all(min(peak.gpu_int8_tops, peak.bandwidth, peak.gpu_fp16_tops or 1.0) > 0 for peak in self.peaks),
                "peaks",
            ),
            (all(peak.basis for peak in self.peaks), "peaks: basis"),
        ):
            if not holds:
                raise DefectError(f"A Jetson module is described wrongly: {what}.")

    @property
    def releases(self) -> tuple[Release, ...]:
        """JetPack releases that run on it, oldest first."""
        oldest, newest = release_named(self.jetpack_oldest), release_named(self.jetpack_newest)
        if oldest is None or newest is None:
            return ()
        known = [release for release in RELEASES if oldest.numbers <= release.numbers <= newest.numbers]
        return tuple(release for release in known if self.soc in release.socs)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, with the releases that the range stands for."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return {
            **plain,
            "peaks": [{**asdict(peak), "ridge": round(peak.ridge, 1)} for peak in self.peaks],
            "releases": [_release_dict(release) for release in self.releases],
        }


@dataclass(frozen=True)
class Target:
    """A device family.

    Attributes:
        name: As `--target` takes it.
        title: For people.
        engines: Registry names of the engines that run there, the preferred first; or names in `PLANNED_ENGINES`.
        number_format: How INT8 is written, a name in `edgekit.calibrate.formats`: "x86-u8s8" (uint8 asymmetric
            activations), "arm-s8s8" (int8 activations) or "trt-s8s8" (int8, symmetric); weights int8 per channel.
        opset: ONNX opset of the graph.
        channel_multiple: Pruned layers keep a multiple of this many channels.
        machines: What `platform.machine()` says there, in lower case.
        status: How far the target can be trusted.
        operators: Name of the table of what the engine's parser can read (`edgekit.export.operator_table`); None where
            the engine reads every operator that edgekit writes.
        jetson: Facts about the module; None where the target is no Jetson, or a family of them.
        members: The targets that a family stands for, empty otherwise. The family has what they have in common.
    """

    name: str
    title: str
    engines: tuple[str, ...]
    number_format: str
    opset: int
    channel_multiple: int
    machines: tuple[str, ...]
    status: str
    operators: str | None = None
    jetson: JetsonFacts | None = None
    members: tuple[Target, ...] = ()

    def __post_init__(self) -> None:
        for holds, what in (
            (bool(self.engines) and {*ENGINES, *PLANNED_ENGINES}.issuperset(self.engines), "engines"),
            (self.number_format in NUMBER_FORMATS, "number_format"),
            (self.opset >= 13, "opset"),  # the first with per-channel QuantizeLinear
            (self.channel_multiple >= 1, "channel_multiple"),
            (self.operators is None or self.operators in table_names(), "operators"),
            (bool(self.machines) and all(name == name.lower() for name in self.machines), "machines"),
            (self.jetson is None or not self.members, "jetson, members"),
            (all(member.jetson is not None for member in self.members), "members"),
        ):
            if not holds:
                raise DefectError(f"The target {self.name!r} is described wrongly: {what}.")

    @property
    def modules(self) -> tuple[Target, ...]:
        """The targets with facts about one Jetson module that this one stands for; itself, its members, or none."""
        return (self,) if self.jetson is not None else self.members

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; members by name."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **plain,
            "engines": list(self.engines),
            "machines": list(self.machines),
            "jetson": self.jetson.to_dict() if self.jetson else None,
            "members": [member.name for member in self.members],
        }


def registered_engines(target: Target) -> tuple[str, ...]:
    """Those of the target's engines that this version of edgekit has, the preferred first."""
    return tuple(name for name in target.engines if name in ENGINES)


def _release_dict(release: Release) -> dict[str, Any]:
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(release).items()}
    return {**plain, "python": ".".join(map(str, release.python))}
