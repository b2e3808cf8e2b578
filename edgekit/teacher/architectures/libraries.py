"""Model libraries: "timm:NAME" and "torchvision:NAME" as architectures, and as models with pretrained weights.

A checkpoint may name these without being asked for trust: the name is looked up in the library's own table, and
nothing that loads files or asks a server can be passed from a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from edgekit.core.registry import Registry
from edgekit.errors import BadInputError, UnavailableError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LIBRARIES", "ModelLibrary", "check_library_arguments", "imported_library", "split_library_name"]

# A model's name in a library's table. Timm would read "hf-hub:..." and "local-dir:..." as places to load from.
_NAME = re.compile(r"\w[\w.\-]*")


class ModelLibrary(Protocol):
    """A package with a table of classifiers.

    Attributes:
        classes_argument: Name of the argument of `construct` that says how many logits there are.
    """

    classes_argument: str

    def construct(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        """The network `name` with random weights. Raises `BadInputError` or `UnavailableError`."""

    def pretrained(self, name: str) -> nn.Module:
        """The network `name` with the library's own weights. Raises `BadInputError` or `UnavailableError`."""

    def card(self, model: nn.Module, name: str) -> dict[str, Any]:
        """Card entries that the library knows: input, and classes where their number is the model's."""


LIBRARIES: Registry[ModelLibrary] = Registry(
    "model library",
    {
        "timm": "edgekit.teacher.architectures.timm_library:LIBRARY",
        "torchvision": "edgekit.teacher.architectures.torchvision_library:LIBRARY",
    },
)


def split_library_name(text: str) -> tuple[str, str] | None:
    """Library and model name of "timm:resnet18", or None where `text` is no such name.

    Raises:
        BadInputError: The library is known and the name cannot be one of its models'.
    """
    library, colon, name = text.partition(":")
    if not colon or library not in LIBRARIES:
        return None
    if not _NAME.fullmatch(name):
        raise BadInputError(f"{name!r} is no name of a model of {library}.", expected=f"such as {library}:resnet18")
    return library, name


def imported_library(name: str, *modules: str) -> tuple[ModuleType, ...]:
    """Import `modules` of an optional package.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        return tuple(import_module(module) for module in modules)
    except ModuleNotFoundError as cause:
        raise UnavailableError(
            f"The package {name!r}, which this model needs, is not installed.",
            found=str(cause),
            hint=f'pip install "edgekit[{name}]"',
        ) from cause


def check_library_arguments(name: str, arguments: Mapping[str, Any], loading: tuple[str, ...]) -> None:
    """Refuse arguments that would make a constructor load something.

    Args:
        name: "timm:resnet18", for the message.
        arguments: The constructor's.
        loading: Beginnings of the names of arguments that load.

    Raises:
        BadInputError: One of them is there.
    """
    refused = sorted(key for key in arguments if str(key).startswith(loading))
    if refused:
        raise BadInputError(
            "An architecture is constructed without weights, so it cannot be told where to load some.",
            where=name,
            found=", ".join(refused),
            hint=f"give {name} in place of the model file to use the library's pretrained weights",
        )
