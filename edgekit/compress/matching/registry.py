"""The known matching losses, each a class made from `MatchingOptions`."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.compress.matching.protocol import MatchingLoss
from edgekit.compress.options import MatchingOptions
from edgekit.core.registry import Registry

__all__ = ["MATCHING"]

MATCHING: Registry[Callable[[MatchingOptions], MatchingLoss]] = Registry(
    "matching loss",
    {
        "none": "edgekit.compress.matching.losses:NoMatching",
        "ewa": "edgekit.compress.matching.losses:EqualMatching",
        "swa": "edgekit.compress.matching.losses:SensitivityMatching",
        "sswa": "edgekit.compress.matching.losses:StochasticSensitivityMatching",
    },
)
