"""What nobody reads."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgekit.export.passes.graph_index import drop_unread

__all__ = ["DROP_DEAD", "DropDead"]


@dataclass(frozen=True)
class DropDead:
    """Nodes that lead to no output of the graph, and initialisers without a reader."""

    name: str = "drop-dead"
    needs: str = "nothing"
    promise: str = "every node leads to an output of the graph, and every initialiser is read"

    def obstacle(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        del model
        return None

    def apply(self, model: onnx.ModelProto) -> int:
        """See `GraphPass`."""
        alive = _alive(model.graph)
        dead = [node for node in model.graph.node if not alive & set(node.output)]
        for node in dead:
            model.graph.node.remove(node)
        return len(dead) + drop_unread(model.graph)

    def violation(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        alive = _alive(model.graph)
        dead = [node.output[0] for node in model.graph.node if not alive & set(node.output)]
        unread = [item.name for item in model.graph.initializer if item.name not in alive]
        return f"left: {', '.join((dead + unread)[:5])}" if dead or unread else None


def _alive(graph: onnx.GraphProto) -> set[str]:
    alive = {value.name for value in graph.output}
    # The nodes are in an order in which each comes before its readers.
    for node in reversed(graph.node):
        if alive & set(node.output):
            alive.update(name for name in node.input if name)
    return alive


DROP_DEAD = DropDead()
