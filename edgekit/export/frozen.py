"""Nothing in an exported graph is drawn at random or learnt from its batch: dropout and batch norm are frozen.

The network is traced in evaluation mode, which freezes everything that asks for the mode. What does not ask, such as
`functional.dropout(x, training=True)`, shows in the traced graph and is refused there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import fx, nn

from edgekit.errors import BadInputError
from edgekit.export.module_names import module_of
from edgekit.export.origin import MAP

__all__ = ["check_frozen", "evaluating"]

_aten = torch.ops.aten
# The position of the flag `training` among the operation's arguments.
_TRAINING_FLAG = {
    _aten.native_batch_norm.default: 5,
    _aten._native_batch_norm_legit.default: 5,
    _aten._native_batch_norm_legit_functional.default: 5,
    _aten._native_batch_norm_legit.no_stats: 3,
    _aten.batch_norm.default: 5,
    _aten.native_dropout.default: 2,
}


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put every module of `network` into evaluation mode, and back to what it was."""
    before = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def check_frozen(graph: fx.GraphModule) -> None:
    """Raise where a traced graph holds something that is random, or normalises with the statistics of its batch.

    Raises:
        BadInputError: Names the operation and the module it came from.
    """
    for node in graph.graph.nodes:
        target = node.target
        if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
            continue
        position = _TRAINING_FLAG.get(target)
        trained = position is not None and len(node.args) > position and node.args[position] is True
        random = torch.Tag.nondeterministic_seeded in target.tags and (position is None or trained)
        if random or trained:
            module = module_of(node)
            what = "draws random numbers" if random else "normalises with the statistics of its batch"
            raise BadInputError(
                f"The network {what} even in evaluation mode, so no graph gives its answers.",
                expected="dropout and batch normalisation that ask whether the network is in training",
                found=str(target),
                where="the network" if module == MAP else module,
                hint="pass training=self.training where the network calls the function",
            )
