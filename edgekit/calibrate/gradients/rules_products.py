"""Gradients of matrix products, with stored and with computed operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from edgekit.calibrate.gradients.tape import InputGradients, Step
from edgekit.calibrate.gradients.tensors import Dims

__all__ = ["PRODUCT_RULES"]

_Rule = Callable[[Step], InputGradients]


def _gemm(step: Step) -> InputGradients:
    """`Y = alpha op(A) op(B) + beta C`, all but C matrices."""
    tape, gradient = step.tape, step.gradient
    left, right = str(step.node.input[0]), str(step.node.input[1])
    turned_left, turned_right = step.attribute("transA", 0), step.attribute("transB", 0)
    alpha, beta = step.attribute("alpha", 1.0), step.attribute("beta", 1.0)
    found: dict[int, str] = {}
    if 0 in step.wanted:
        if turned_left:
            found[0] = tape.op("Gemm", right, gradient, alpha=alpha, transA=turned_right, transB=1)
        else:
            found[0] = tape.op("Gemm", gradient, right, alpha=alpha, transB=1 - turned_right)
    if 1 in step.wanted:
        if turned_right:
            found[1] = tape.op("Gemm", gradient, left, alpha=alpha, transA=1, transB=turned_left)
        else:
            found[1] = tape.op("Gemm", left, gradient, alpha=alpha, transA=1 - turned_left)
    if 2 in step.wanted:
        scaled = gradient if beta == 1 else tape.op("Mul", gradient, tape.number(beta, step.y))
        found[2] = tape.summed_to(scaled, tape.dims(step.y), str(step.node.input[2]))
    return found


def _matmul(step: Step) -> InputGradients:
    """`Y = A B` over the last two axes, those before them broadcast; a vector counts as one row or one column."""
    tape, gradient = step.tape, step.gradient
    names = str(step.node.input[0]), str(step.node.input[1])
    ranks = [len(tape.dims(name)) for name in names]
    left, right = names
    dims: Dims = tape.dims(step.y)
    if ranks[0] == 1:
        left, gradient = (
            tape.op("Unsqueeze", left, tape.integers([0])),
            tape.op("Unsqueeze", gradient, tape.integers([-2 if ranks[1] > 1 else -1])),
        )
        dims = (*dims[:-1], 1, *dims[-1:]) if ranks[1] > 1 else (1,)
    if ranks[1] == 1:
        right, gradient = (
            tape.op("Unsqueeze", right, tape.integers([1])),
            tape.op("Unsqueeze", gradient, tape.integers([-1])),
        )
        dims = (*dims, 1)
    found: dict[int, str] = {}
    for slot, like in enumerate(names):
        if slot not in step.wanted:
            continue
        rank = max(ranks[1 - slot], 2)
        other = tape.transposed(right if slot == 0 else left, rank - 2, rank - 1, rank)
        product = tape.op("MatMul", *((gradient, other) if slot == 0 else (other, gradient)))
        found[slot] = _summed_over_batch(step, product, dims[:-2], like)
    return found


def _summed_over_batch(step: Step, product: str, batch: Dims, like: str) -> str:
    """An operand's gradient from one that has the batch axes of the product."""
    tape, own = step.tape, step.tape.dims(like)
    if len(own) == 1:
        total = tape.op("ReduceSum", product, tape.integers(range(len(batch))), keepdims=0) if batch else product
        return tape.reshaped(total, like)
    return tape.summed_to(product, (*batch, *own[-2:]), like)


PRODUCT_RULES: Mapping[str, _Rule] = MappingProxyType({"Gemm": _gemm, "MatMul": _matmul})
"""Operator to rule."""
