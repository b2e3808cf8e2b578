"""Public classes, made from the dump: only its names exist, and every call is held against its signatures."""

from __future__ import annotations

from typing import Any, NoReturn

from fake_tensorrt.api import Api, Behaviour
from fake_tensorrt.signatures import bind, parse_signature
from fake_tensorrt.values import make_dims, make_enum, make_host_memory

__all__ = ["INTERFACES", "build_classes"]

# Classes that callers derive from, and the methods that they may leave alone.
INTERFACES: dict[str, frozenset[str]] = {
    "IInt8Calibrator": frozenset(),
    "IInt8EntropyCalibrator2": frozenset({"get_algorithm"}),
    "IInt8MinMaxCalibrator": frozenset({"get_algorithm"}),
    "ILogger": frozenset(),
    "IProfiler": frozenset(),
    "IProgressMonitor": frozenset(),
}
ALGORITHMS = {"IInt8EntropyCalibrator2": "ENTROPY_CALIBRATION_2", "IInt8MinMaxCalibrator": "MINMAX_CALIBRATION"}


class _Checked(type):
    """Refuses objects of derived classes whose `__init__` did not call the interface's, as pybind11 does."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        if getattr(made, "_fake", None) is None:
            raise TypeError(f"{cls.__name__}.__init__() must be called when overriding __init__")
        return made


class _Public(metaclass=_Checked):
    """Base of all public objects."""

    __slots__ = ("__weakref__", "_fake")
    _is_interface = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"{type(self).__name__}: No constructor defined!")

    def __del__(self) -> None:
        inner = getattr(self, "_fake", None)
        if isinstance(inner, Behaviour):
            inner.on_released()


class _Interface(metaclass=_Checked):
    """Base of all classes that callers derive from: objects of derived classes have attributes of their own."""

    __slots__ = ("__weakref__", "_fake")
    _is_interface = True


def build_classes(api: Api) -> None:
    """Fill `api.classes` from its dump, bases before what derives from them."""
    specs = api.dump["classes"]
    for name, spec in specs.items():
        if "enum" in spec:
            api.classes[name] = make_enum(name, spec["enum"])
    api.classes["Dims"] = make_dims()
    api.classes["IHostMemory"] = make_host_memory(api.enum("DataType", "INT8"))
    waiting = [name for name in specs if name not in api.classes]
    while waiting:
        name = waiting.pop(0)
        bases = [base for base in specs[name].get("bases", ()) if base in specs]
        if any(base not in api.classes for base in bases):
            waiting.append(name)
            continue
        api.classes[name] = _build(api, name, specs[name], tuple(api.classes[base] for base in bases))


def _build(api: Api, name: str, spec: dict[str, Any], bases: tuple[type, ...]) -> type:
    interface = name in INTERFACES or name == "Logger"
    members: dict[str, Any] = {"__module__": "tensorrt", "__doc__": None}
    for nested, inner in spec.get("nested", {}).items():
        # A class that inherits the enum has the very same one.
        members[nested] = getattr(bases[0], nested) if bases else make_enum(nested, inner["enum"])
        members |= {key: members[nested].__members__[key] for key in spec.get("constants", {})}
    for method, text in spec.get("methods", {}).items():
        members[method] = _method(api, name, method, text)
    for attribute, access in spec.get("properties", {}).items():
        members[attribute] = _property(api, name, attribute, access)
    members["__slots__"] = ()
    return _Checked(name, bases or ((_Interface,) if interface else (_Public,)), members)


def _refused(owner: str, method: str, texts: list[str], args: Any, kwargs: Any) -> TypeError:
    given = [type(each).__name__ for each in args] + [f"{key}={type(value).__name__}" for key, value in kwargs.items()]
    what = "constructor arguments" if method == "__init__" else "function arguments"
    listed = "".join(f"\n    {number}. {owner}.{method}{text}" for number, text in enumerate(texts, start=1))
    return TypeError(
        f"{method}(): incompatible {what}. Supported:{listed}\nInvoked with: {', '.join(given) or 'nothing'}"
    )


def _method(api: Api, owner: str, method: str, text: str | list[str]) -> Any:
    texts = [text] if isinstance(text, str) else list(text)
    overloads = tuple(map(parse_signature, texts))

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        values = bind(overloads, args, kwargs, api.accepts, api.default)
        if values is None:
            raise _refused(owner, method, texts, args, kwargs)
        if method == "__init__":
            _construct(api, owner, self, values)
            return None
        if owner in INTERFACES:
            return _inherited(api, owner, method, overloads[0].returns)
        return api.wrap(getattr(self._fake, method)(*(api.unwrap(value) for value in values)))

    call.__name__, call.__qualname__ = method, f"{owner}.{method}"
    return call


def _construct(api: Api, owner: str, public: Any, values: tuple[Any, ...]) -> None:
    if owner in INTERFACES:
        public._fake = Behaviour(api)
        return
    if owner != "Logger" and api.machine.faults.null_factory:
        raise TypeError("pybind11::init(): factory function returned nullptr")
    import weakref

    inner = api.makers[owner](*(api.unwrap(value) for value in values))
    inner.public = weakref.ref(public)
    public._fake = inner


def _inherited(api: Api, owner: str, method: str, returns: str) -> Any:
    if method in INTERFACES[owner]:
        return api.enum("CalibrationAlgoType", ALGORITHMS[owner])
    api.caught(method, f'Tried to call pure virtual function "{owner}::{method}"')
    return {"bool": False, "int": -1, "list[int]": []}.get(returns)


def _property(api: Api, owner: str, attribute: str, access: dict[str, str]) -> property:
    def read(self: Any) -> Any:
        return api.wrap(getattr(self._fake, attribute))

    def unreadable(self: Any) -> NoReturn:
        raise AttributeError(f"property of {owner!r} object has no getter")

    def write(self: Any, value: Any) -> None:
        kind = access["set"]
        # A pointer to an interface may be cleared.
        if not (value is None and kind.startswith("I")) and not api.accepts(kind, value):
            raise _refused(owner, attribute, [f"(arg0: {kind}) -> None"], (value,), {})
        setattr(self._fake, attribute, api.unwrap(value))

    return property(read if "get" in access else unreadable, write if "set" in access else None)
