"""How much is measured: everything, or what shows a change within minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from calibration.networks import NETWORKS

__all__ = ["PROFILES", "REAL_FORMAT", "Profile"]

# The format that this machine's engine computes in integers, and the only one that other tools have.
REAL_FORMAT = "x86-u8s8"
_SIMULATED = ("x86-u6s6", "x86-u8s4", "x86-u4s4")


@dataclass(frozen=True)
class Profile:
    """The size of a run.

    Attributes:
        name: On the command line.
        evaluated: Held-out images that are answered, at most all there are.
        calibrated: Images that calibrate.
        rounds: Times that a method and min-max are timed in turns.
        networks: Names of networks.
        formats: Number formats.
        few: Numbers of images of the table of few images.
        few_networks: Its networks.
        memory: Numbers of images of the table of memory.
        memory_network: Its network.
    """

    name: str
    evaluated: int
    calibrated: int = 128
    rounds: int = 1
    networks: tuple[str, ...] = tuple(NETWORKS)
    formats: tuple[str, ...] = (REAL_FORMAT,)
    few: tuple[int, ...] = ()
    few_networks: tuple[str, ...] = ("cifar10-resnet20", "person-mobilenetv1-96", "cifar10-mobilenetv2-like")
    memory: tuple[int, ...] = ()
    memory_network: str = "person-mobilenetv1-96"
    memory_theirs: tuple[int, ...] = field(default=(16, 64, 128))


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile("quick", evaluated=1024),
            Profile(
                "full",
                evaluated=2048,
                rounds=5,
                formats=(REAL_FORMAT, *_SIMULATED),
                few=(8, 32),
                memory=(64, 256, 1024),
            ),
        )
    }
)
