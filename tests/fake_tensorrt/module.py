"""The module that goes into `sys.modules["tensorrt"]`."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from fake_cuda.machine import FakeMachine

from fake_tensorrt.api import Api
from fake_tensorrt.builder import Builder
from fake_tensorrt.engine import NUMPY_TYPES
from fake_tensorrt.logger import Logger
from fake_tensorrt.parser import ParserOfOnnx
from fake_tensorrt.runtime import Runtime
from fake_tensorrt.signatures import bind, parse_signature
from fake_tensorrt.surface import build_classes

__all__ = ["FUNCTIONS", "MAKERS", "make_tensorrt"]

MAKERS: dict[str, Callable[..., Any]] = {
    "Builder": Builder,
    "Logger": Logger,
    "OnnxParser": ParserOfOnnx,
    "Runtime": Runtime,
}


def make_tensorrt(version: str, machine: FakeMachine | None = None) -> types.ModuleType:
    """A module with the names of one version, and no other.

    Args:
        version: One of `VERSIONS`.
        machine: Where it runs; a new one by default.

    Raises:
        ValueError: No such version.
    """
    api = Api(version, machine or FakeMachine())
    build_classes(api)
    api.makers.update({name: partial(maker, api) for name, maker in MAKERS.items()})
    module = types.ModuleType("tensorrt")
    module.__version__ = api.version  # type: ignore[attr-defined]
    for name, kind in api.classes.items():
        setattr(module, name, kind)
    for name, text in api.dump["constants"].items():
        owner, _, member = text.partition(".")
        setattr(module, name, api.enum(owner, member))
    for name in api.dump["functions"]:
        setattr(module, name, _function(api, name))
    return module


def _function(api: Api, name: str) -> Callable[..., Any]:
    text = api.dump["functions"][name]
    overloads = (parse_signature(text),)

    def call(*args: Any, **kwargs: Any) -> Any:
        values = bind(overloads, args, kwargs, api.accepts, api.default)
        if values is None:
            raise TypeError(f"{name}(): incompatible function arguments. Supported: {name}{text}")
        return FUNCTIONS[name](api, *values)

    call.__name__ = call.__qualname__ = name
    return call


def _init_plugins(api: Api, logger: Any, namespace: str) -> bool:
    return True


def _nptype(api: Api, kind: Any) -> Any:
    found = NUMPY_TYPES.get(kind.name)
    if found is None:
        raise TypeError(f"Could not resolve TensorRT datatype to an equivalent numpy datatype: {kind}")
    return found


def _volume(api: Api, sizes: Any) -> int:
    return int(np.prod(tuple(sizes)))


def _parser_version(api: Api) -> int:
    patch = int(api.version.split(".")[2])
    return api.number[0] * 10000 + api.number[1] * 100 + patch


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "get_nv_onnx_parser_version": _parser_version,
    "init_libnvinfer_plugins": _init_plugins,
    "nptype": _nptype,
    "volume": _volume,
}
