"""Which module of the network an operation came from, its gradient included.

`make_fx` writes down operations and forgets who asked for them. A dispatch mode above it sees every operation as it is
written: on the way forward the module that runs is on a stack kept by hooks, and on the way back autograd says whose
gradient it is computing, by the sequence number that the forward operation got when it ran.
"""

from __future__ import annotations

import operator
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.utils._python_dispatch import TorchDispatchMode

from edgekit.export.origin import MAP, MODULE_KEY, OUTPUT_KEY

__all__ = ["ModuleNames", "module_of", "outputs_of"]


def module_of(node: fx.Node) -> str:
    """The module `node` came from, or `MAP`."""
    custom: Mapping[str, Any] = node.meta.get("custom", {})
    return str(custom.get(MODULE_KEY, MAP))


def outputs_of(node: fx.Node) -> tuple[str, ...]:
    """The modules whose output `node` is, the innermost first."""
    custom: Mapping[str, Any] = node.meta.get("custom", {})
    return tuple(str(custom.get(OUTPUT_KEY, "")).split())


class ModuleNames:
    """Names the nodes that are written while a network runs.

    Args:
        model: The network whose modules are named.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._running: list[str] = []
        self.failed_in: str | None = None
        """The innermost module during whose forward pass an error was raised."""
        # Sequence numbers at which the running module changed, ascending, and the module from there on.
        self._starts: list[int] = []
        self._owners: list[str] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Name every node that `make_fx` writes inside."""
        with ExitStack() as stack:
            for name, module in self._model.named_modules():
                if name:
                    stack.callback(module.register_forward_pre_hook(self._entering(name)).remove)
                    stack.callback(module.register_forward_hook(self._leaving(name), always_call=True).remove)
            stack.enter_context(_NamingMode(self))
            yield

    def current(self) -> str:
        """The module whose operation, or whose gradient, is being computed."""
        if self._running:
            return self._running[-1]
        node: Any = torch._C._current_autograd_node()
        if node is None:
            return MAP
        place = bisect_right(self._starts, node._sequence_nr()) - 1
        return self._owners[place] if place >= 0 else MAP

    def _entering(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object) -> None:
            self._running.append(name)
            self._note()

        return hook

    def _leaving(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            # A hook that is always called is called while the error is on its way.
            if self.failed_in is None and sys.exc_info()[0] is not None:
                self.failed_in = name
            self._running.pop()
            self._note()
            if isinstance(output, torch.Tensor):
                _mark_output(output, name)

        return hook

    def _note(self) -> None:
        number = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        if self._starts and self._starts[-1] == number:
            self._owners[-1] = self._running[-1] if self._running else MAP
        else:
            self._starts.append(number)
            self._owners.append(self._running[-1] if self._running else MAP)


def _mark_output(output: torch.Tensor, name: str) -> None:
    mode = get_proxy_mode()
    if mode is None:
        return
    while torch._C._functorch.is_functorch_wrapped_tensor(output):
        output = torch._C._functorch.get_unwrapped(output)
    slot = get_proxy_slot(output, mode.tracer, None)
    if slot is not None:
        node: Any = slot.proxy.node
        # Of an operation with several results, what is said of the first is said of the operation: export keeps that.
        if node.target is operator.getitem and node.args[1] == 0:
            node = node.args[0]
        custom = node.meta.setdefault("custom", {})
        custom[OUTPUT_KEY] = " ".join([*custom.get(OUTPUT_KEY, "").split(), name])


class _NamingMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives each node written for an operation the name of the module that is current."""

    def __init__(self, names: ModuleNames) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = names

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        mode = get_proxy_mode()
        if mode is None:
            return func(*args, **(kwargs or {}))
        graph = mode.tracer.graph
        last = graph._root._prev
        result = func(*args, **(kwargs or {}))
        name, node = self._names.current(), graph._root._prev
        while node is not last and node is not graph._root:
            node.meta.setdefault("custom", {}).setdefault(MODULE_KEY, name)
            node = node._prev
        return result
