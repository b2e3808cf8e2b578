"""Documents that people write, in YAML or JSON, read so that a file means one thing or is refused.

Beyond safe loading: no key twice, no aliases (a few lines of them can stand for gigabytes), no dates, no merge keys,
and numbers as in YAML 1.2, since YAML 1.1 takes `1e-4` for text. Needs PyYAML for YAML and nothing for JSON, so that a
device without PyYAML can still be given a policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.config.names import is_file_name
from edgekit.core.canonical import parse_strict
from edgekit.core.files import read_bytes
from edgekit.errors import BadInputError, IntegrityError, UnavailableError
from edgekit.policy.document import load_preset, policy_from_dict
from edgekit.policy.policy import Policy

if TYPE_CHECKING:
    import yaml

__all__ = ["load_document", "parse_yaml", "read_policy"]

# Larger than any recipe or policy; a file beyond this is not what the user meant to name.
_MAX_BYTES = 256 * 1024
_MAX_DEPTH = 32
_YAML_SUFFIXES = (".yaml", ".yml")
_SUFFIXES = (*_YAML_SUFFIXES, ".json")
# YAML 1.2 core schema, https://yaml.org/spec/1.2.2/#1032-tag-resolution; no octal, no sexagesimal, no underscores.
_SCALARS = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


def load_document(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file whose top level is a mapping.

    Args:
        path: Ends in .yaml, .yml or .json.

    Returns:
        Mappings with text keys, lists, text, booleans, finite numbers and None.

    Raises:
        BadInputError: The file cannot be read, is not what its name says, or means more than one thing.
        UnavailableError: A YAML file, and PyYAML is not installed.
    """
    where = str(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise BadInputError(
            "A document's name does not say what it is.", where=where, expected="a name in " + ", ".join(_SUFFIXES)
        )
    data = read_bytes(path)
    if len(data) > _MAX_BYTES:
        raise BadInputError(
            "A document is implausibly large.",
            where=where,
            expected=f"at most {_MAX_BYTES} bytes",
            found=f"{len(data)} bytes",
        )
    if path.suffix.lower() in _YAML_SUFFIXES:
        return parse_yaml(data, where=where)
    try:
        value = parse_strict(data, where=where)
    except IntegrityError as cause:
        # Nobody vouched for this file's bytes: it is a slip of the pen, not a broken seal.
        raise BadInputError(cause.message, where=where, found=cause.found, expected=cause.expected) from cause
    return _checked_mapping(value, where)


def read_policy(source: str | Path | Mapping[str, Any]) -> Policy:
    """The policy that a recipe or a command line names.

    Args:
        source: The name of a preset, a path (whatever holds a slash or ends in .yaml, .yml or .json), or the document
            itself.

    Raises:
        BadInputError: There is no such preset or file, or the document is not a policy.
        UnavailableError: A YAML file, and PyYAML is not installed.
    """
    if isinstance(source, Mapping):
        return policy_from_dict(source, where="policy")
    if is_file_name(source):
        return policy_from_dict(load_document(Path(source)), where=str(source))
    return load_preset(str(source))


def parse_yaml(data: bytes, *, where: str) -> dict[str, Any]:
    """Parse YAML whose top level is a mapping; see `load_document` for what is accepted and raised."""
    try:
        import yaml
    except ImportError as cause:
        raise UnavailableError(
            "Reading YAML needs the package PyYAML, which is not installed.",
            where=where,
            hint="pip install pyyaml, or write the document as JSON",
        ) from cause
    try:
        value = yaml.load(data.decode("utf-8"), Loader=_strict_loader())  # derived from SafeLoader
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark
        raise BadInputError(
            "A file is not YAML that edgekit reads.",
            where=f"{where}, line {mark.line + 1}" if mark else where,
            found=cause.problem,
        ) from cause
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as cause:
        raise BadInputError("A file is not YAML that edgekit reads.", where=where, found=str(cause)) from cause
    return _checked_mapping(value, where)


@cache
def _strict_loader() -> type[yaml.SafeLoader]:
    """A safe loader in which a document has one meaning. Built on first use, so that importing needs no PyYAML."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        # Emptied here and filled below: the inherited table is YAML 1.1's.
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                event = self.peek_event()  # type: ignore[no-untyped-call]
                raise yaml.composer.ComposerError(None, None, "an alias; write the value out", event.start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key_node, _ in node.value:
                if key_node.tag != "tag:yaml.org,2002:str":
                    raise yaml.constructor.ConstructorError(
                        None, None, "a key that is not text; put it in quotes", key_node.start_mark
                    )
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key_node.value!r} twice", key_node.start_mark
                    )
                seen.add(key_node.value)
            return super().construct_mapping(node, deep)

    # PyYAML's own reads 010 as eight.
    StrictLoader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
    for tag, pattern, first in _SCALARS:
        StrictLoader.add_implicit_resolver(tag, re.compile(rf"^(?:{pattern})$"), [*first.replace("\0", ""), ""])
    return StrictLoader


def _checked_mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise BadInputError("A document has no keys.", where=where, expected="key: value lines", found=found)
    _check_plain(value, where, "", 0)
    return dict(value)


def _check_plain(value: Any, where: str, key: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise BadInputError("A document is nested too deeply.", where=where, expected=f"at most {_MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for name, child in value.items():
            _check_plain(name, where, key, depth)
            _check_plain(child, where, f"{key}.{name}" if key else str(name), depth + 1)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            _check_plain(child, where, f"{key}[{index}]", depth + 1)
    elif isinstance(value, str):
        # Half a character, which escapes can write and UTF-8 cannot: no file of ours could hold the document again.
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise BadInputError(
                "A document holds text that is not Unicode.", where=f"{where}: {key}", found=ascii(value)
            )
    elif isinstance(value, float) and not (abs(value) < float("inf")):
        raise BadInputError("A document holds a number that is not finite.", where=f"{where}: {key}", found=repr(value))
    elif not (value is None or isinstance(value, (bool, int, float))):
        raise BadInputError(
            "A document holds a value edgekit does not read.", where=f"{where}: {key}", found=type(value).__name__
        )
