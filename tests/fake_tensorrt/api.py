"""One version of the bindings: its names, enums, argument types, and the way between its objects and what is behind.

A public object holds a `Behaviour`. Whatever a caller passes is unwrapped to the behaviour, and every behaviour that
comes back is wrapped in the version's public class; the same behaviour is always the same public object.
"""

from __future__ import annotations

import json
import re
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from fake_cuda.errors import CudaFault
from fake_cuda.machine import FakeMachine

from fake_tensorrt.values import Dims, EnumMember, HostMemory

__all__ = ["ASSETS", "AS_IF", "VERSIONS", "Api", "Behaviour", "load_dump"]

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "tensorrt_api"
VERSIONS = ("8.5.2", "8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")

AS_IF = {"11.4.1": "11.4.0.106"}
"""Versions whose bindings were not to be had, by the dump that stands for them: its names under the later number."""

# The dumps spell some classes by their C++ names.
ALIASES = {"IParserError": "ParserError", "IEngineInspector": "EngineInspector", "IBuilder": "Builder"}


def load_dump(version: str) -> dict[str, Any]:
    """The trimmed dump of a version, or the one that stands for it.

    Raises:
        ValueError: There is none.
    """
    if version not in (*VERSIONS, *AS_IF):
        raise ValueError(f"no dump of TensorRT {version}; there are {', '.join(VERSIONS)}")
    stored = ASSETS / f"{AS_IF.get(version, version)}.json"
    found: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8"))
    return found if version in VERSIONS else {**found, "about": {**found["about"], "version": version}}


class Behaviour:
    """What is behind a public object. `public_name` is the public class it is wrapped in."""

    public_name: ClassVar[str] = ""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.public: weakref.ReferenceType[Any] | None = None

    @property
    def held(self) -> bool:
        """A caller still holds the public object."""
        return self.public is not None and self.public() is not None

    def on_released(self) -> None:
        """Called when the last public reference goes."""


class Api:
    """A version on a machine.

    Attributes:
        version: As `tensorrt.__version__`.
        number: (major, minor).
        machine: Where it runs.
        dump: The trimmed dump.
        classes: Public classes by name, enums included.
        makers: How constructors make the behaviour.
    """

    def __init__(self, version: str, machine: FakeMachine) -> None:
        self.dump = load_dump(version)
        self.version: str = self.dump["about"]["version"]
        major, minor = self.version.split(".")[:2]
        self.number = (int(major), int(minor))
        self.machine = machine
        self.classes: dict[str, Any] = {}
        self.makers: dict[str, Callable[..., Behaviour]] = {}

    def enum(self, name: str, member: str) -> Any:
        """A member of one of this version's enums."""
        return self.classes[name].__members__[member]

    def has(self, owner: str, name: str) -> bool:
        """Whether a class of this version offers a name."""
        spec = self.dump["classes"].get(owner, {})
        return any(name in spec.get(part, {}) for part in ("enum", "methods", "properties"))

    def dims(self, shape: Any) -> Dims:
        """Public dimensions."""
        made: Dims = self.classes["Dims"](tuple(shape))
        return made

    def host_memory(self, data: bytes) -> HostMemory:
        """Public host memory."""
        made: HostMemory = self.classes["IHostMemory"](data)
        return made

    def log(self, logger: Any, severity: str, message: str) -> None:
        """Tell the caller's logger."""
        self.ask(logger, "log", self.classes["ILogger"].Severity.__members__[severity], message)

    def ask(self, target: Any, method: str, *args: Any, otherwise: Any = None) -> Any:
        """Call an object that a caller derived from one of the interfaces.

        The bindings let no exception through: they print it and go on with an answer of their own (seen with the
        genuine ones). Printed so, an error of ours would go unseen, so it is counted as a misuse besides.
        """
        try:
            return getattr(target, method)(*args)
        except Exception as error:
            self.caught(method, f"{type(error).__name__}: {error}")
            return otherwise

    def caught(self, method: str, words: str) -> None:
        """Tell of an exception that ends here."""
        sys.stderr.write(f"[ERROR] Exception caught in {method}(): {words}\n")
        self.machine.misuses.append(f"an exception ends in {method}(): {words}")

    def touch(self) -> None:
        """What every use of the library does: work in the thread's context, or in the runtime library's own.

        Raises:
            CudaFault: The driver does not start, or the context was lost.
        """
        if self.machine.stack:
            self.machine.check_lost()
        else:
            self.machine.enter_runtime()

    def start(self, logger: Any) -> None:
        """What the factories of builder and runtime do first.

        Raises:
            TypeError: There is no driver to work with, in pybind11's words.
        """
        try:
            self.touch()
        except CudaFault as fault:
            self.log(logger, "ERROR", f"CUDA initialization failure with error: {fault.code}. {fault.message}")
            raise TypeError("pybind11::init(): factory function returned nullptr") from None

    def wrap(self, value: Any) -> Any:
        """The public form of a result."""
        if isinstance(value, Behaviour):
            known = None if value.public is None else value.public()
            if known is not None:
                return known
            kind = self.classes[value.public_name]
            public = kind.__new__(kind)
            public._fake = value
            value.public = weakref.ref(public)
            return public
        if isinstance(value, (list, tuple)):
            return type(value)(self.wrap(each) for each in value)
        return value

    def unwrap(self, value: Any) -> Any:
        """What is behind an argument; objects that callers derive from our interfaces stay what they are."""
        inner = getattr(value, "_fake", None)
        if isinstance(inner, Behaviour) and not getattr(type(value), "_is_interface", False):
            return inner
        return [self.unwrap(each) for each in value] if type(value) is list else value

    def accepts(self, kind: str, value: Any) -> bool:
        """Whether an argument is of the type that a dump spells."""
        kind = ALIASES.get(kind, kind.replace("::", "."))
        if (match := re.fullmatch(r"list\[(.+)\]", kind)) is not None:
            return isinstance(value, (list, tuple)) and all(self.accepts(match[1], each) for each in value)
        if kind == "Dims":
            return isinstance(value, Dims) or (
                isinstance(value, (list, tuple)) and all(self.accepts("int", each) for each in value)
            )
        plain = _PLAIN.get(kind)
        if plain is not None:
            return plain(value)
        owner, _, nested = kind.partition(".")
        wanted = self.classes.get(owner)
        if wanted is not None and nested:
            wanted = getattr(wanted, nested)
        return wanted is not None and isinstance(value, wanted)

    def default(self, kind: str, text: str) -> Any:
        """The value of a default's spelling."""
        if (match := re.fullmatch(r"<\w+\.(\w+): -?\d+>", text)) is not None:
            owner, _, nested = kind.replace("::", ".").partition(".")
            found = getattr(self.classes[owner], nested) if nested else self.classes[owner]
            return found.__members__[match[1]]
        return {"None": None, "''": "", "True": True, "False": False}[text] if not text.isdigit() else int(text)


def _is_int(value: Any) -> bool:
    # The bindings would take a member of an enum, which is a bit's number where masks are wanted: refused here.
    if isinstance(value, (bool, np.bool_, float, np.floating, EnumMember)):
        return False
    return hasattr(type(value), "__index__")


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _anything(value: Any) -> bool:
    return True


_PLAIN: dict[str, Callable[[Any], bool]] = {
    "": _anything,
    "object": _anything,
    "capsule": _anything,
    "typing_extensions.CapsuleType": _anything,
    "int": _is_int,
    "float": lambda value: isinstance(value, (int, float, np.floating)) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, (bool, np.bool_)),
    "str": lambda value: isinstance(value, str),
    "tuple": lambda value: isinstance(value, tuple),
    "list": lambda value: isinstance(value, list),
    "buffer": _is_buffer,
}
