"""The known relevance methods, each a class made from `RelevanceOptions`."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.core.registry import Registry
from edgekit.teacher.relevance.protocol import RelevanceMethod, RelevanceOptions

__all__ = ["RELEVANCE"]

RELEVANCE: Registry[Callable[[RelevanceOptions], RelevanceMethod]] = Registry(
    "relevance method",
    {
        "contrastive-excitation-backprop": "edgekit.teacher.relevance.excitation:ContrastiveExcitationBackprop",
        "excitation-backprop": "edgekit.teacher.relevance.excitation:ExcitationBackprop",
        "lrp-alpha1beta0": "edgekit.teacher.relevance.lrp:LrpAlpha1Beta0",
        "rap": "edgekit.teacher.relevance.rap:RelativeAttributingPropagation",
    },
)
