"""The gradient of an explained graph's outputs by its activations, written as an ONNX graph.

The backward pass goes through the forward path and through the map branch alike: a map depends on activations directly
and by way of the gradient of the head that it weighs them with, and both are ordinary nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.calibrate.gradients.rules import STOPPING_OPS, VJP_RULES
from edgekit.calibrate.gradients.tape import Step, Tape
from edgekit.calibrate.gradients.tensors import TensorFacts
from edgekit.calibrate.graph import CLASS_INDEX, IMAGE, ExplainedGraph
from edgekit.errors import BadInputError

__all__ = ["GradientParts", "cotangent_name", "gradient_graph", "gradient_name", "gradient_parts"]


# ScatterElements that adds came with 16.
_OLDEST_OPSET = 16


def cotangent_name(output: str) -> str:
    """Name of the input that weighs an output of the explained graph."""
    return f"cotangent/{output}"


def gradient_name(tensor: str) -> str:
    """Name of the output that holds the gradient by a tensor."""
    return f"gradient/{tensor}"


@dataclass(frozen=True)
class GradientParts:
    """The gradient graph in two graphs, so that one forward pass serves several cotangents.

    Attributes:
        forward: From `image` and `class_index` to the outputs, the tensors and all that `backward` reads.
        backward: From that and the cotangents to the gradients.
        kept: What `backward` reads of `forward`, its inputs `image` and `class_index` included.
    """

    forward: onnx.ModelProto
    backward: onnx.ModelProto
    kept: tuple[str, ...]


def gradient_graph(graph: ExplainedGraph, tensors: Sequence[str]) -> onnx.ModelProto:
    """A graph that answers an explained graph's outputs, some of its activations, and the gradients by them.

    Args:
        graph: The explained FP32 graph.
        tensors: Computed float tensors of it, or `image`.

    Returns:
        A model in the graph's operator set, for any batch that the graph takes. Inputs: `image`, `class_index`, and
        for each output o of the explained graph `cotangent/o`, float32 in the shape of o. Outputs: those of the
        explained graph, and for each tensor t of `tensors` the tensor itself (`image` excepted) and `gradient/t`,
        float32 in its shape: the gradient of `sum_o <cotangent/o, o>` by t, zero where no output depends on t.

    Raises:
        BadInputError: An unknown, stored or integer tensor; an operator without a rule, or in a form that has none.
    """
    facts = TensorFacts(graph)
    tape = _backward(graph, facts, tensors)
    model = _model(graph, "gradients")
    model.graph.node.extend(graph.nodes)
    model.graph.node.extend(tape.nodes)
    model.graph.initializer.extend(graph.model.graph.initializer)
    model.graph.initializer.extend(tape.initialisers())
    model.graph.input.extend(value for value in graph.model.graph.input if value.name in (IMAGE, CLASS_INDEX))
    model.graph.input.extend(_cotangent_inputs(graph))
    model.graph.output.extend(graph.model.graph.output)
    model.graph.output.extend(_as_output(facts, name) for name in _further_outputs(graph, tensors))
    model.graph.output.extend(_as_output(facts, name, gradient_name(name)) for name in dict.fromkeys(tensors))
    return model


def gradient_parts(graph: ExplainedGraph, tensors: Sequence[str]) -> GradientParts:
    """`gradient_graph` in two: the backward graph reads what the forward graph kept.

    Raises:
        BadInputError: As `gradient_graph`.
    """
    facts = TensorFacts(graph)
    tape = _backward(graph, facts, tensors)
    read = dict.fromkeys(name for node in tape.nodes for name in node.input if name)
    known = set(graph.names())
    kept = tuple(name for name in read if name in known and not graph.is_constant(name))

    wanted = dict.fromkeys([value.name for value in graph.model.graph.output])
    wanted |= dict.fromkeys(name for name in (*tensors, *kept) if name not in (IMAGE, CLASS_INDEX))
    forward = _model(graph, "forward")
    nodes = [graph.nodes[index] for index in sorted(graph.ancestors(wanted))]
    used = {name for node in nodes for name in node.input}
    forward.graph.node.extend(nodes)
    forward.graph.initializer.extend(item for item in graph.model.graph.initializer if item.name in used)
    forward.graph.input.extend(value for value in graph.model.graph.input if value.name in (IMAGE, CLASS_INDEX))
    forward.graph.output.extend(_as_output(facts, name) for name in wanted)

    backward = _model(graph, "backward")
    backward.graph.node.extend(tape.nodes)
    backward.graph.initializer.extend(tape.initialisers())
    stored = (name for name in read if graph.is_constant(name))
    backward.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(graph.constant(name)), name) for name in stored
    )
    backward.graph.input.extend(_as_output(facts, name) for name in kept)
    backward.graph.input.extend(item for item in _cotangent_inputs(graph) if item.name in read)
    backward.graph.output.extend(_as_output(facts, name, gradient_name(name)) for name in dict.fromkeys(tensors))
    return GradientParts(forward, backward, kept)


def _model(graph: ExplainedGraph, name: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ir_version = graph.model.ir_version
    model.opset_import.extend(graph.model.opset_import)
    model.graph.name = name
    return model


def _cotangent_inputs(graph: ExplainedGraph) -> list[onnx.ValueInfoProto]:
    found = []
    for value in graph.model.graph.output:
        cotangent = onnx.ValueInfoProto()
        cotangent.CopyFrom(value)
        cotangent.name = cotangent_name(value.name)
        found.append(cotangent)
    return found


def _further_outputs(graph: ExplainedGraph, tensors: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(tensors) if name != IMAGE and name not in graph.outputs]


def _as_output(facts: TensorFacts, name: str, called: str | None = None) -> onnx.ValueInfoProto:
    """A tensor's name, type and sizes; a gradient is float32 whatever its tensor is."""
    kind = facts.element_type(name) if called is None else onnx.TensorProto.FLOAT
    return helper.make_tensor_value_info(called or name, kind, facts.dims(name))


def _backward(graph: ExplainedGraph, facts: TensorFacts, tensors: Sequence[str]) -> Tape:
    """The backward nodes: from the cotangents to `gradient/t` of every tensor."""
    _check(graph, facts, tensors)
    tape, sums = Tape(facts), _Sums(graph)
    depending = _depending(graph, facts, tensors)
    for index in reversed(range(len(graph.nodes))):
        node = graph.nodes[index]
        given = tuple(sums.total(tape, name) for name in node.output)
        slots = frozenset(slot for slot, name in enumerate(node.input) if name in depending)
        if not slots or node.op_type in STOPPING_OPS or all(gradient is None for gradient in given):
            continue
        for slot, gradient in _rule_of(node)(Step(tape, node, given, slots)).items():
            sums.add(node.input[slot], gradient)
    _name_results(tape, {name: sums.total(tape, name) or tape.zeros(name) for name in dict.fromkeys(tensors)})
    return tape


def _name_results(tape: Tape, found: Mapping[str, str]) -> None:
    """Give the gradients their names: that of the node that makes one where it can be, as a copy costs a pass."""
    made = {name for node in tape.nodes for name in node.output}
    renamed: dict[str, str] = {}
    copies = []
    for tensor, gradient in found.items():
        result, kind = gradient_name(tensor), tape.facts.element_type(tensor)
        if kind != onnx.TensorProto.FLOAT:
            copies.append(helper.make_node("Cast", [gradient], [result], result, to=onnx.TensorProto.FLOAT))
        elif gradient in made and gradient not in renamed:
            renamed[gradient] = result
        else:
            copies.append(helper.make_node("Identity", [gradient], [result], result))
    tape.nodes.extend(copies)
    for node in tape.nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]


class _Sums:
    """What has arrived at each tensor so far; final once all its readers are behind."""

    def __init__(self, graph: ExplainedGraph) -> None:
        outputs = (value.name for value in graph.model.graph.output)
        self._terms: dict[str, list[str]] = {name: [cotangent_name(name)] for name in outputs}

    def add(self, name: str, gradient: str) -> None:
        self._terms.setdefault(name, []).append(gradient)

    def total(self, tape: Tape, name: str) -> str | None:
        terms = self._terms.get(name)
        if terms is None:
            return None
        while len(terms) > 1:
            terms[:2] = [tape.op("Add", terms[0], terms[1])]
        return terms[0]


def _depending(graph: ExplainedGraph, facts: TensorFacts, tensors: Sequence[str]) -> set[str]:
    """The float tensors that move when one of `tensors` does, themselves included."""
    found = set(tensors)
    for node in graph.nodes:
        if node.op_type not in STOPPING_OPS and any(name in found for name in node.input):
            found.update(name for name in node.output if name and facts.is_float(name))
    return found


def _rule_of(node: Any) -> Any:
    rule = VJP_RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        raise BadInputError(
            "The graph cannot be differentiated: there is no rule for one of its operators.",
            where=f"node {node.name or node.output[0]!r}, tensor {node.output[0]!r}",
            expected="one of " + ", ".join(sorted(VJP_RULES)),
            found=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
            hint='use the method "mse", which needs no gradients',
        )
    return rule


def _check(graph: ExplainedGraph, facts: TensorFacts, tensors: Sequence[str]) -> None:
    for name in tensors:
        if name != IMAGE and name not in graph.producer:
            known = "stored" if graph.is_constant(name) else "not in the graph"
            raise BadInputError(
                "Gradients are those by activations.", expected="tensors that nodes compute", found=f"{name!r}, {known}"
            )
        if not facts.is_float(name):
            raise BadInputError("Only a tensor of floats has a gradient.", found=f"tensor {name!r}")
    opset = next(item.version for item in graph.model.opset_import if item.domain in ("", "ai.onnx"))
    if opset < _OLDEST_OPSET:
        raise BadInputError(
            "The graph's opset is too old to be differentiated.",
            expected=f"opset {_OLDEST_OPSET} or later",
            found=f"opset {opset}",
            hint="export it again with 'edgekit export'",
        )
