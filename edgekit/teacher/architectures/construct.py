"""From the name of an architecture and its arguments to a network with random weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from edgekit.errors import BadInputError, EdgekitError
from edgekit.teacher.architectures.libraries import LIBRARIES, split_library_name
from edgekit.teacher.architectures.registry import ARCHITECTURES, CONFIGURED

__all__ = ["classes_argument", "construct", "known_card"]

# What factories call their number of logits.
_CLASSES_ARGUMENTS = ("classes", "num_classes")


def construct(arch: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network that `arch` ("name", "timm:name", "torchvision:name" or "package.module:factory") makes.

    Raises:
        BadInputError: The architecture is unknown, cannot be imported, or does not accept its arguments.
        UnavailableError: It needs a package that is not installed.
    """
    factory = _factory(arch)
    try:
        model = factory(**arguments)
    except EdgekitError:
        raise
    except Exception as cause:  # a factory is anybody's code, and its arguments come from a file
        raise BadInputError(
            "The architecture does not accept its arguments.",
            where=arch,
            found=f"{dict(arguments)}: {type(cause).__name__}: {cause}",
        ) from cause
    if not isinstance(model, nn.Module):
        raise BadInputError(
            "The architecture's factory did not return a network.",
            where=arch,
            expected="a torch.nn.Module",
            found=type(model).__name__,
        )
    return model


def known_card(arch: str, model: nn.Module) -> dict[str, Any]:
    """Card entries that the library of `arch` knows about its model; none for other architectures."""
    named = split_library_name(arch)
    return {} if named is None else LIBRARIES.load(named[0]).card(model, named[1])


def classes_argument(arch: str) -> str | None:
    """The argument by which the factory of `arch` is told the number of its logits; None where there is none.

    Built-in architectures and those of a user are asked for a parameter called "classes" or "num_classes".

    Raises:
        BadInputError: The architecture is unknown or cannot be imported.
        UnavailableError: It needs a package that is not installed.
    """
    named = split_library_name(arch)
    if named is not None:
        return LIBRARIES.load(named[0]).classes_argument
    try:
        parameters = inspect.signature(_factory(arch)).parameters
    except (TypeError, ValueError):  # no function, or one that does not tell
        return None
    return next((name for name in _CLASSES_ARGUMENTS if name in parameters), None)


def _factory(arch: str) -> Any:
    named = split_library_name(arch)
    if named is not None:
        library, name = named
        return partial(_from_library, library, name)
    if arch in CONFIGURED:
        return CONFIGURED.load(arch)
    if ":" not in arch:
        return ARCHITECTURES.load(arch)
    module_name, _, attribute = arch.partition(":")
    try:
        return getattr(import_module(module_name), attribute)
    except Exception as cause:  # importing runs the user's own code, which may raise anything
        raise BadInputError(
            "The architecture cannot be imported.",
            where=arch,
            found=f"{type(cause).__name__}: {cause}",
            hint="run from the folder that holds the module, or install its package",
        ) from cause


def _from_library(library: str, name: str, /, **arguments: Any) -> nn.Module:
    return LIBRARIES.load(library).construct(name, arguments)
