"""Values that bindings hand out: members of enums, dimensions, and memory of the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NoReturn

__all__ = ["Dims", "EnumMember", "HostMemory", "make_dims", "make_enum", "make_host_memory"]


class EnumMember:
    """A member of an enum of the bindings: a number and a name, equal to members of its own enum only.

    The class cannot be walked over and does not compare with numbers, as in the bindings. Those make members of
    numbers that there are none for; here that is refused.
    """

    __slots__ = ("name", "value")
    name: str
    value: int
    __members__: ClassVar[dict[str, Any]] = {}

    def __init__(self, value: int) -> None:
        for name, member in type(self).__members__.items():
            if member.value == value:
                object.__setattr__(self, "name", name)
                object.__setattr__(self, "value", value)
                return
        raise ValueError(f"{value} is no member of {type(self).__name__}")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"property of {type(self).__name__!r} object has no setter")

    def __int__(self) -> int:
        return int(self.value)

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and int(other) == int(self)

    def __hash__(self) -> int:
        return hash((type(self), self.value))

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__}.{self.name}: {self.value}>"

    def __str__(self) -> str:
        return f"{type(self).__qualname__}.{self.name}"


def make_enum(name: str, members: Mapping[str, int]) -> type[EnumMember]:
    """An enum class with these members as attributes. Names that share a number are one member each, as in C++."""
    made: type[EnumMember] = type(name, (EnumMember,), {"__slots__": (), "__members__": {}})
    for member, value in members.items():
        instance = EnumMember.__new__(made)
        object.__setattr__(instance, "name", member)
        object.__setattr__(instance, "value", value)
        made.__members__[member] = instance
        setattr(made, member, instance)
    return made


class Dims:
    """Dimensions: indexed and walked over like a tuple, and equal to tuples and lists.

    Comparing two of them raises, as the genuine bindings were seen to do (8.6.1, 10.3.0, 11.4.0).
    """

    __slots__ = ("_values",)

    def __init__(self, shape: Any = ()) -> None:
        values = [int(each) for each in shape]
        if len(values) > 8:
            raise ValueError(f"at most 8 dimensions, not {len(values)}")
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[int]:
        return iter(self._values)

    def __getitem__(self, index: Any) -> Any:
        found = self._values[index]
        return tuple(found) if isinstance(index, slice) else found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, tuple)):
            raise TypeError(f"__eq__(): incompatible function arguments: Dims and {type(other).__name__}")
        return self._values == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"({', '.join(map(str, self._values))}{',' if len(self._values) == 1 else ''})"


def make_dims() -> type[Dims]:
    """The version's own class of dimensions."""
    made: type[Dims] = type("Dims", (Dims,), {"__slots__": (), "MAX_DIMS": property(lambda self: 8)})
    return made


# Everything that bytes can do and a buffer cannot; constructing, hashing for identity and printing stay.
_REFUSED = (
    *("__add__", "__contains__", "__eq__", "__ge__", "__getitem__", "__gt__", "__iter__", "__le__", "__len__"),
    *("__lt__", "__mod__", "__mul__", "__ne__", "__rmod__", "__rmul__"),
)


class HostMemory(bytes):
    """A buffer of the library: to be read through the buffer protocol, with a size and a type, and no more."""

    _offered: ClassVar[frozenset[str]] = frozenset({"nbytes", "dtype"})

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in type(self)._offered:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return super().__getattribute__(name)

    __hash__ = object.__hash__


def _refuse(name: str) -> Any:
    def refused(self: HostMemory, *args: Any) -> NoReturn:
        raise TypeError(f"{type(self).__name__!r} object does not support {name}; take bytes() or memoryview() of it")

    return refused


for _name in _REFUSED:
    setattr(HostMemory, _name, _refuse(_name))


def make_host_memory(dtype: EnumMember) -> type[HostMemory]:
    """The version's own class of host memory."""

    def nbytes(self: HostMemory) -> int:
        return memoryview(self).nbytes

    made: type[HostMemory] = type(
        "IHostMemory", (HostMemory,), {"nbytes": property(nbytes), "dtype": property(lambda self: dtype)}
    )
    return made
