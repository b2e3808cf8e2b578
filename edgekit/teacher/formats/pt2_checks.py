"""The archive of a torch.export program, reduced to what cannot run code.

`torch.export.load` is not made for files of strangers: it unpickles weights and example inputs, imports modules that
a tree specification names, evaluates texts as formulas, and resolves any dotted name under `torch` as an operator.
None of that is left to it here. The archive is read, every text in it that torch would act upon is held against a
list of what may stand there, and a new archive is written from what passed, without example inputs, guards, source
paths and compiled code.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils import _pytree as pytree

from edgekit.errors import BadInputError
from edgekit.teacher.formats.model_path import ModelPath

__all__ = ["SafeProgram", "safe_program"]

_MODEL = "models/model.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_PLAIN = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_SYMBOL = re.compile(r"[a-z]{1,4}\d{1,5}")
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+"
    r"|_operator\.(add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pow|sub|truediv)"
    r"|torch\.sym_(float|int|ite|max|min|not|sqrt|sum)"
    r"|math\.(ceil|floor|sqrt|trunc)"
)
# Operators that read or write files.
_FILES = re.compile(r"torch\.ops\.\w+\.(from_file|load|save)\.")
_FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        """
        Abs Add And CeilDiv CeilToInt CleanDiv Eq FloatPow FloatTrueDiv FloorDiv FloorToInt Ge Gt Identity
        IntTrueDiv Integer IsNonOverlappingAndDenseIndicator Le LShift Lt Max Min Mod ModularIndexing Mul Ne
        Not Or Pow PowByNatural PythonMod Rational RoundDecimal RoundToInt RShift ToFloat TruncToFloat
        TruncToInt Where ceiling floor int_oo oo
        """,
    )
)
_ASSUMPTIONS = frozenset({"extended_real", "finite", "integer", "negative", "nonnegative", "positive", "real", "zero"})
_ARITHMETIC = (ast.Add, ast.Div, ast.FloorDiv, ast.Mod, ast.Mult, ast.Pow, ast.Sub)
_COMPARISONS = (ast.Eq, ast.Gt, ast.GtE, ast.Lt, ast.LtE, ast.NotEq)
_LONGEST_FORMULA = 2000
_LARGEST_EXPONENT = 8


@dataclass(frozen=True)
class SafeProgram:
    """What may be handed to `torch.export.load`.

    Attributes:
        members: Name to bytes, for `rebuilt_archive`.
        outputs: Names of the program's outputs, in the order in which the rebuilt program returns them.
    """

    members: Mapping[str, bytes]
    outputs: tuple[str, ...]


def safe_program(found: ModelPath) -> SafeProgram:
    """Check a program and write it down anew.

    Raises:
        BadInputError: The archive is damaged, of a form that is not read, or holds something that could run code.
    """
    path = found.path
    archive = found.archive()
    _check_members(archive, path)
    program = _read(archive, _MODEL, found)
    members = {name: archive[name] for name in _PLAIN if name in archive}
    try:
        outputs = _checked_program(program, path)
        for config in (_WEIGHTS, _CONSTANTS):
            payloads = _read(archive, config, found)
            folder = config.rpartition("/")[0]
            for name in _payload_names(payloads, path):
                members[f"{folder}/{name}"] = archive[f"{folder}/{name}"]
            members[config] = json.dumps(payloads).encode()
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as cause:
        raise found.damaged(cause) from cause
    members[_MODEL] = json.dumps(program).encode()
    members["data/sample_inputs/model.pt"] = b""
    return SafeProgram(members, outputs)


def _check_members(archive: Mapping[str, bytes], path: Path) -> None:
    if "serialized_exported_program.json" in archive:
        raise BadInputError(
            "The program was saved by a torch before 2.8, in a form that holds pickles.",
            where=str(path),
            hint="load it with torch.export.load in a newer torch, save it again with torch.export.save",
        )
    compiled = [name for name in archive if name.startswith("data/aotinductor/")]
    if archive.get("archive_format") != b"pt2" or compiled:
        raise BadInputError(
            "The archive holds no plain torch.export program.",
            where=str(path),
            expected="what torch.export.save writes",
            found="compiled code, such as " + compiled[0] if compiled else "an archive of another format",
        )


def _read(archive: Mapping[str, bytes], name: str, found: ModelPath) -> Any:
    try:
        return json.loads(archive[name])
    except (KeyError, ValueError, RecursionError) as cause:
        raise found.damaged(cause) from cause


def _checked_program(program: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Check a program in place and take away what is not needed; returns names of outputs."""
    module = program["graph_module"]
    program["guards_code"] = []
    for symbol in program["range_constraints"]:
        _require(_SYMBOL.fullmatch(symbol) is not None, symbol, "a symbol in a range", path)
    module["metadata"], module["treespec_namedtuple_fields"] = {}, {}
    _require(not module["graph"].get("custom_obj_values"), "custom objects", "the graph", path)
    for place, text in _acted_upon(module):
        if place == "operator":
            _check_operator(text, path)
        elif place == "formula":
            _require(_is_formula(text), text, "a formula", path)
        else:
            _require(False, place, "the graph", path)
    for node in module["graph"]["nodes"]:
        stack = node["metadata"].get("nn_module_stack")
        node["metadata"] = {} if stack is None else {"nn_module_stack": stack}
    return _plain_call(module)


def _acted_upon(value: Any) -> Iterator[tuple[str, str]]:
    """Every text that torch would act upon: kind of place and text. Kinds of arguments that hold code come as kinds."""
    if isinstance(value, dict):
        if {"target", "inputs", "outputs"} <= set(value):
            yield "operator", value["target"]
        for key, item in value.items():
            if key == "expr_str":
                yield "formula", item
            elif key in ("as_custom_obj", "as_graph", "as_operator", "custom_obj", "token", "as_opaque_obj"):
                yield f"an argument of the kind {key}", ""
            else:
                yield from _acted_upon(item)
    elif isinstance(value, list):
        for item in value:
            yield from _acted_upon(item)


def _check_operator(text: str, path: Path) -> None:
    if not _OPERATORS.fullmatch(text) or _FILES.match(text):
        raise BadInputError(
            "The program uses an operation that edgekit does not run from a file.",
            where=str(path),
            expected="operations of torch.ops.aten",
            found=str(text)[:200],
            hint="leave torch.no_grad, autocast and custom operators out of the exported forward; "
            "or save the state dict and pass --arch package.module:factory",
        )


def _is_formula(text: str) -> bool:
    """Whether a text is arithmetic on symbols, which sympy may be given: it evaluates what it is given."""
    if not isinstance(text, str) or len(text) > _LONGEST_FORMULA:
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return _is_arithmetic(tree.body)


def _is_arithmetic(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float, bool)
    if isinstance(node, ast.Name):
        return _SYMBOL.fullmatch(node.id) is not None or node.id in _FUNCTIONS
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, (ast.UAdd, ast.USub)) and _is_arithmetic(node.operand)
    if isinstance(node, ast.BinOp):
        small = not isinstance(node.op, ast.Pow) or _is_small(node.right)
        return small and isinstance(node.op, _ARITHMETIC) and _is_arithmetic(node.left) and _is_arithmetic(node.right)
    if isinstance(node, ast.Compare):
        known = all(isinstance(item, _COMPARISONS) for item in node.ops)
        return known and all(map(_is_arithmetic, (node.left, *node.comparators)))
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    if node.func.id == "Symbol":
        return _is_symbol(node)
    small = "Pow" not in node.func.id or _is_small(node.args[-1])
    return small and node.func.id in _FUNCTIONS and not node.keywords and all(map(_is_arithmetic, node.args))


def _is_symbol(node: ast.Call) -> bool:
    """`Symbol('s0', positive=True, integer=True)`."""
    names = [item.value for item in node.args if isinstance(item, ast.Constant)]
    named = len(node.args) == len(names) == 1 and isinstance(names[0], str) and _SYMBOL.fullmatch(names[0]) is not None
    assumed = (isinstance(item.value, ast.Constant) and isinstance(item.value.value, bool) for item in node.keywords)
    return named and all(assumed) and {item.arg for item in node.keywords} <= _ASSUMPTIONS


def _is_small(exponent: ast.expr) -> bool:
    value = exponent.operand if isinstance(exponent, ast.UnaryOp) else exponent
    return isinstance(value, ast.Constant) and isinstance(value.value, int) and value.value <= _LARGEST_EXPONENT


def _plain_call(module: dict[str, Any]) -> tuple[str, ...]:
    """Let the program take a tuple and return a tuple, so that no tree specification of the file is followed."""
    root = module["module_call_graph"][0]
    signature = root["signature"]
    inputs, outputs = len(_user(module["signature"]["input_specs"])), _user(module["signature"]["output_specs"])
    names = _output_names(signature["out_spec"], len(outputs))
    signature["in_spec"] = _spec((tuple(range(inputs)), {}))
    signature["out_spec"] = _spec(tuple(range(len(outputs))))
    signature["forward_arg_names"] = None
    module["module_call_graph"] = [{"fqn": "", "signature": signature}]
    return names


def _user(specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [spec for spec in specs if set(spec) & {"user_input", "user_output"}]


def _spec(tree: Any) -> str:
    return pytree.treespec_dumps(pytree.tree_structure(tree))


def _output_names(spec: str, count: int) -> tuple[str, ...]:
    """Keys of a flat dictionary of outputs, or their positions."""
    positions = tuple(str(index) for index in range(count))
    _, tree = json.loads(spec)
    if not tree.get("children_spec") or len(tree["children_spec"]) != count:
        return positions
    try:
        keys = json.loads(tree["context"])
    except (ValueError, TypeError):
        return positions
    # A class that behaves like a dictionary, as transformers' outputs do, stores its keys among other things.
    for candidate in (keys, *(keys if isinstance(keys, list) else ())):
        if isinstance(candidate, list) and len(candidate) == count and all(isinstance(key, str) for key in candidate):
            return tuple(candidate)
    return positions


def _payload_names(config: dict[str, Any], path: Path) -> list[str]:
    entries = config["config"]
    for name, entry in entries.items():
        plain = entry["use_pickle"] is False and _PAYLOAD.fullmatch(entry["path_name"]) is not None
        _require(plain, f"{name} as {entry['path_name']}", "a pickle among the weights", path)
    return [entry["path_name"] for entry in entries.values()]


def _require(holds: bool, found: str, place: str, path: Path) -> None:
    if not holds:
        raise BadInputError(
            "The program holds something that could run code, which edgekit does not do.",
            where=str(path),
            expected="tensors, operations of torch.ops.aten and arithmetic on sizes",
            found=f"{place}: {found[:200]}",
            hint="save the state dict and pass --arch package.module:factory",
        )
