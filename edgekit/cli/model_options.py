"""Options about a model file: its architecture, and the card of files that carry none."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import FILE
from edgekit.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from edgekit.teacher.load_options import LoadOptions

__all__ = ["model_options"]

_OPTIONS = (
    click.option(
        "--arch",
        metavar="NAME",
        help="Architecture: a built-in name, timm:NAME, torchvision:NAME, or package.module:factory of code you trust.",
    ),
    click.option("--arch-args", metavar="JSON", help="""Arguments of the architecture, such as '{"depth": 20}'."""),
    click.option("--card", type=FILE, metavar="FILE", help="Model card (YAML or JSON) for files that carry none."),
    click.option("--input-size", metavar="HxW", help="Input size, such as 224x224."),
    click.option("--mean", metavar="R,G,B", help="Mean of the inputs, after scaling to 0..1."),
    click.option("--std", metavar="R,G,B", help="Standard deviation of the inputs, after scaling to 0..1."),
    click.option("--classes", metavar="A,B,...", help="Class names in the order of the logits, or a file of lines."),
    click.option(
        "--tap",
        metavar="MODULE",
        multiple=True,
        help="Module whose output the map lives on; again for a map at another. [default: found]",
    ),
    click.option(
        "--trust-pickle",
        is_flag=True,
        help="Unpickle a model that was saved whole: runs whatever code its file holds, with your rights.",
    ),
)
_NAMES = ("arch", "arch_args", "card", "input_size", "mean", "std", "classes", "tap", "trust_pickle")


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options and hand their outcome on as one argument, `load: LoadOptions`."""

    @wraps(command)
    def wrapper(**arguments: Any) -> Any:
        said = {name: arguments.pop(name) for name in _NAMES}
        return command(load=_load_options(said), **arguments)

    decorated: Callable[..., Any] = wrapper
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _load_options(said: dict[str, Any]) -> LoadOptions:
    from edgekit.config.documents import load_document
    from edgekit.teacher.load_options import LoadOptions

    card: dict[str, Any] = load_document(said["card"]) if said["card"] else {}
    entries = dict(card.get("input") or {})
    if said["input_size"]:
        entries["height"], entries["width"] = _size(said["input_size"])
    for name in ("mean", "std"):
        if said[name]:
            entries[name] = _three_numbers(name, said[name])
    if entries:
        card["input"] = entries
    if said["classes"]:
        card["classes"] = _class_names(said["classes"])
    if said["tap"]:
        card["tap"], *further = said["tap"]
        card["further_taps"] = further
    if said["trust_pickle"]:
        # Said before it happens; a note afterwards could be written by the very code it warns of.
        click.echo("warning: --trust-pickle runs whatever code the model's file holds, with your rights", err=True)
    return LoadOptions(
        arch=said["arch"], arguments=_arguments(said["arch_args"]), card=card, trust_pickle=said["trust_pickle"]
    )


def _arguments(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError as cause:
        raise UsageError("--arch-args is not JSON.", found=text, hint="""such as '{"depth": 20}'""") from cause
    if not isinstance(arguments, dict):
        raise UsageError("--arch-args is not a JSON object.", found=text, hint="""such as '{"depth": 20}'""")
    return arguments


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError("--input-size cannot be read.", expected="height x width, such as 224x224", found=text)
    return int(height), int(width)


def _three_numbers(name: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3:
        raise UsageError(f"--{name} cannot be read.", expected="three numbers, such as 0.485,0.456,0.406", found=text)
    return numbers


def _class_names(text: str) -> list[str]:
    path = Path(text)
    if "," not in text and path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as cause:
            raise BadInputError("The class file cannot be read.", where=str(path), found=str(cause)) from cause
        return [line.strip() for line in text.splitlines() if line.strip()]
    return [name.strip() for name in text.split(",") if name.strip()]
