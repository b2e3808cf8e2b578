"""What units of one run share: the profile, folders, and data sets that are decoded once a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edgekit.interface.card import ModelCard
from paper.datasets import DATASETS
from paper.evaluation import Questions, questions
from paper.masked_images import MaskedImages
from paper.networks import NETWORKS, Network
from paper.profiles import PROFILES, Profile
from paper.units import Unit, folder_of

__all__ = ["Context", "Setting"]


@dataclass(frozen=True)
class Context:
    """One run of the tables.

    Attributes:
        profile: Name of the profile.
        shared: The folder with the data sets and published weights.
        work: Where results are kept.
        threads: Torch threads of one unit.
    """

    profile: str
    shared: Path
    work: Path
    threads: int = 1

    @property
    def settings(self) -> Profile:
        """The profile itself."""
        return PROFILES[self.profile]

    def folder(self, unit: Unit) -> Path:
        """Where a unit's result lies."""
        return folder_of(unit, self.settings, self.work)

    def done(self, unit: Unit) -> bool:
        """Whether a unit's result is there: folders appear whole or not at all."""
        return self.folder(unit).is_dir()

    def setting(self, unit: Unit) -> Setting:
        """Data and network of a unit."""
        network = NETWORKS[unit.network]
        images = _images(unit.dataset, self.shared, network.side_for(unit.dataset))
        card = network.card(unit.dataset, images.classes, self.shared)
        profile = self.settings
        held_out = images.of("val", "test")
        asked = questions(held_out, card.input, network.tap, profile.evaluation, profile.device)
        return Setting(network, card, images.of("train"), asked)


@dataclass(frozen=True)
class Setting:
    """Data and network of a unit.

    Attributes:
        network: The architecture.
        card: What teacher and students share.
        train: Training images.
        asked: What every network is asked.
    """

    network: Network
    card: ModelCard
    train: MaskedImages
    asked: Questions


@lru_cache(maxsize=4)
def _images(dataset: str, shared: Path, side: int) -> MaskedImages:
    return DATASETS[dataset](shared, side)
