"""What a model format has to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from edgekit.teacher.capabilities import Capabilities
from edgekit.teacher.formats.model_path import ModelPath
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.surgery import Surgery

__all__ = ["Content", "ModelFormat"]


@dataclass(frozen=True)
class Content:
    """What a format makes of a file or folder.

    Attributes:
        model: The network with the file's weights.
        card: Card entries that the file, or the library of its architecture, has, in the form of `ModelCard.to_dict`.
        arch: Architecture that a checkpoint of this model can name; the format's name where there is none.
        arguments: Of the architecture.
        surgery: Pruning already applied to `model`, or None.
        size: Height and width of the input where the file fixes them.
        notes: What was decided in loading.
    """

    model: nn.Module
    card: Mapping[str, Any]
    arch: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    surgery: Surgery | None = None
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()


class ModelFormat(Protocol):
    """One way in which people store classifiers.

    Attributes:
        name: What people call it.
        capabilities: What can be done with a model of it.
    """

    name: str
    capabilities: Capabilities

    def recognises(self, found: ModelPath) -> bool:
        """Whether the content, never the name alone, is of this format. At most one format recognises a path."""

    def load(self, found: ModelPath, options: LoadOptions) -> Content:
        """Load it without running code of the file's, unless `options` say so.

        Raises:
            BadInputError: The content cannot be used; or it needs something that `options` do not say.
            UnavailableError: A package that the format needs is not installed.
        """
