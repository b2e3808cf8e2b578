"""What a release is made from: the candidates, and everything that travels with the one that ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.config.recipe import Recipe
from edgekit.core.stages import StageRecord
from edgekit.pipeline.engines import EnginesRun
from edgekit.pipeline.folders import BuildFolders
from edgekit.policy.context import Baseline
from edgekit.policy.policy import Policy

__all__ = ["ReleaseRequest"]


@dataclass(frozen=True)
class ReleaseRequest:
    """What is released.

    Attributes:
        folders: Where the stages lie.
        target: Target name.
        engines: The candidates, and the engines that did not compete.
        recipe: The resolved recipe.
        policy: What is demanded.
        records: What each stage did, by name.
        contents: Bundle path to further files that travel with it.
        lineage: Further names and digests of what it came from.
        baseline: The release that a policy may compare with.
    """

    folders: BuildFolders
    target: str
    engines: EnginesRun
    recipe: Recipe
    policy: Policy
    records: Mapping[str, StageRecord]
    contents: Mapping[str, Path | bytes] = field(default_factory=dict)
    lineage: Mapping[str, str] = field(default_factory=dict)
    baseline: Baseline | None = None
