"""Programs of torch.export: modes, batches, precisions, outputs, cards, and files that are made to run code."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import CARD, SAID, Bomb, exported, members, residual, rewrite, tap_sizes
from networks import CASES, Inverted, Residual, SharedConvolution, Vgg, made
from torch import nn

from edgekit.compress.cost import measure_cost
from edgekit.errors import BadInputError
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import Uncarded, load_model, open_model
from edgekit.teacher.tap import forward_with_tap


def save(
    path: Path, model: nn.Module, *, side: tuple[int, int] = (17, 15), dynamic: bool = True, **options: Any
) -> Path:
    images = torch.rand(2, 3, *side)
    torch.export.save(exported(model, images, dynamic=dynamic), path, **options)
    return path


@cache
def _residual_program() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(exported(residual(), torch.rand(2, 3, 17, 15)), buffer)
    return buffer.getvalue()


def saved(path: Path) -> Path:
    """The residual network's program, which is exported once."""
    path.write_bytes(_residual_program())
    return path


def said(classes: int, side: tuple[int, int]) -> LoadOptions:
    card = {"input": {"height": side[0], "width": side[1]}, "classes": [str(index) for index in range(classes)]}
    return LoadOptions(card=card)


def refusal(path: Path, options: LoadOptions = SAID) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        load_model(path, options)
    return caught.value


# Modes


@pytest.mark.parametrize("factory", [Residual, Inverted])
def test_training_mode_is_recognised(tmp_path: Path, factory: Callable[[], nn.Module]) -> None:
    path = save(tmp_path / "m.pt2", factory().train())
    error = refusal(path)
    assert "training mode" in error.message
    assert "model.eval()" in (error.hint or "")


class OnlyDropout(nn.Module):
    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3)
        self.drop, self.fc = nn.Dropout(share), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.drop(self.features(x).mean((2, 3))))


def test_dropout_alone_is_recognised_and_a_dropout_of_nothing_is_let_through(tmp_path: Path) -> None:
    assert "training mode" in refusal(save(tmp_path / "m.pt2", OnlyDropout().train())).message
    load_model(save(tmp_path / "n.pt2", OnlyDropout(0.0).train()), SAID)
    load_model(save(tmp_path / "o.pt2", OnlyDropout().eval()), SAID)


class Noisy(OnlyDropout):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + torch.randn_like(x))


class Counting(OnlyDropout):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(1)
        return super().forward(x) + self.seen


@pytest.mark.parametrize(("factory", "message"), [(Noisy, "random numbers"), (Counting, "changes its own state")])
def test_answers_that_are_not_those_of_the_image(
    tmp_path: Path, factory: Callable[[], nn.Module], message: str
) -> None:
    assert message in refusal(save(tmp_path / "m.pt2", factory().eval())).message


def test_a_batch_norm_without_stored_statistics_is_no_training_mode(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, track_running_stats=False), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(*model, nn.Flatten()).eval()
    assert load_model(save(tmp_path / "m.pt2", model), SAID).format == "torch.export program"


# Shapes


def test_a_fixed_batch_is_refused_with_the_remedy(tmp_path: Path) -> None:
    error = refusal(save(tmp_path / "m.pt2", residual(), dynamic=False))
    assert error.found == "batches of 2"
    assert "dynamic_shapes" in (error.hint or "")


def test_the_input_size_is_the_programs(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt2")
    error = refusal(path, said(5, (18, 15)))
    assert (error.expected, error.found) == ("17x15", "18x15")
    # Said about the input otherwise, the size needs not be said.
    card = {"input": {"mean": [0.1, 0.2, 0.3]}, "classes": list(CARD.classes)}
    assert load_model(path, LoadOptions(card=card)).card == CARD


def test_a_program_without_a_card_tells_its_size(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt2")
    error = refusal(path, LoadOptions())
    assert "no card" in error.message
    assert "17x15" in (error.where or "")
    opened = open_model(path)
    assert isinstance(opened, Uncarded)
    assert opened.size == (17, 15)


class Words(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


def test_a_program_that_takes_no_images(tmp_path: Path) -> None:
    torch.export.save(exported(Words(), torch.rand(2, 7)), tmp_path / "m.pt2")
    error = refusal(tmp_path / "m.pt2")
    assert error.expected == "one input [N, 3, H, W]"


# Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_computed_in_float32_and_said(tmp_path: Path, dtype: torch.dtype) -> None:
    model = residual()
    lowered = residual().to(dtype)
    program = exported(lowered, torch.rand(2, 3, 17, 15, dtype=dtype))
    torch.export.save(program, tmp_path / "m.pt2")
    loaded = load_model(tmp_path / "m.pt2", SAID)
    assert any(str(dtype).removeprefix("torch.") in note and "float32" in note for note in loaded.notes)
    images = torch.rand(3, 3, 17, 15)
    raised = lowered.float()
    assert torch.allclose(loaded.model(images), raised(images), atol=1e-6)
    assert torch.allclose(loaded.model(images), model(images), atol=0.1)


class LowersInside(OnlyDropout):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.half().float())


def test_a_half_inside_is_raised_too(tmp_path: Path) -> None:
    model = LowersInside().eval().requires_grad_(False)
    loaded = load_model(save(tmp_path / "m.pt2", model), SAID)
    images = torch.rand(2, 3, 17, 15) * 100
    assert torch.allclose(loaded.model(images), OnlyDropout.forward(model, images), atol=1e-5)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 5, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.mean((2, 3)) * torch.ones((), dtype=torch.complex64) @ self.weight).real


def test_complex_weights_are_refused(tmp_path: Path) -> None:
    assert "complex" in refusal(save(tmp_path / "m.pt2", Complex())).message


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = residual()
    model.fc.weight[0, 0] = float("nan")
    assert "not finite" in refusal(save(tmp_path / "m.pt2", model)).message


# Names


def test_modules_that_run_twice_are_told_apart_by_their_operations(tmp_path: Path) -> None:
    model = made(SharedConvolution)
    path = save(tmp_path / "m.pt2", model, side=(9, 9))
    loaded = load_model(path, said(3, (9, 9)))
    names = list(tap_sizes(loaded.model, torch.rand(2, 3, 9, 9)))
    assert names == ["conv2d", "relu", "conv2d_1", "last", "relu_1"]
    images = torch.rand(2, 3, 9, 9)
    first = forward_with_tap(loaded.model, "conv2d", images).activation
    assert torch.equal(first, model.conv(images))
    assert torch.equal(forward_with_tap(loaded.model, "last", images).activation, model.last(model.conv(first.relu())))


@pytest.mark.parametrize("name", CASES)
def test_every_module_of_a_network_can_be_tapped_in_its_program(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    model = case.make()
    images = case.images(3)
    path = save(tmp_path / "m.pt2", model, side=case.side)
    loaded = load_model(path, said(model(images).shape[1], case.side)).model
    there = tap_sizes(model, images)
    here = tap_sizes(loaded, images)
    assert there.items() <= here.items()
    for tap in there:
        expected = forward_with_tap(model, tap, images).activation
        assert torch.allclose(forward_with_tap(loaded, tap, images).activation, expected, atol=1e-6), tap


@pytest.mark.parametrize("name", CASES)
def test_a_graph_costs_what_its_network_costs(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    model = case.make()
    path = save(tmp_path / "m.pt2", model, side=case.side)
    loaded = load_model(path, said(model(case.images(2)).shape[1], case.side)).model
    assert measure_cost(loaded, (3, *case.side)) == measure_cost(model, (3, *case.side))


# Outputs


class Several(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.net, self.form = residual(), form

    def forward(self, x: torch.Tensor) -> Any:
        logits = self.net(x)
        pooled = x.mean((2, 3))
        return {
            "dict": {"pooled": pooled, "logits": logits},
            "pair": (x, logits),
            "list": [logits],
            "unclear": (pooled, logits),
        }[self.form]


@pytest.mark.parametrize(("form", "taken"), [("dict", "'logits'"), ("pair", "'1'"), ("list", "")])
def test_the_logits_among_several_outputs(tmp_path: Path, form: str, taken: str) -> None:
    model = Several(form).eval()
    loaded = load_model(save(tmp_path / "m.pt2", model), SAID)
    images = torch.rand(3, 3, 17, 15)
    assert torch.allclose(loaded.model(images), model.net(images), atol=1e-6)
    assert taken in "".join(loaded.notes)


def test_outputs_that_do_not_say_which_are_the_logits(tmp_path: Path) -> None:
    error = refusal(save(tmp_path / "m.pt2", Several("unclear").eval()))
    assert "which part" in error.message


# Cards


def test_the_card_in_the_file_is_overridden_key_by_key(tmp_path: Path) -> None:
    path = save(tmp_path / "m.pt2", residual(), extra_files={"edgekit.card.json": json.dumps(CARD.to_dict())})
    assert load_model(path).card == CARD
    assert load_model(path, LoadOptions(card={"input": {"std": [2, 2, 2]}})).card.input.std == (2, 2, 2)


@pytest.mark.parametrize("text", ["{", "[1]", '{"classes": ["a"], "classes": ["b"]}', '{"unknown": 1}'])
def test_a_card_in_the_file_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    path = save(tmp_path / "m.pt2", residual(), extra_files={"edgekit.card.json": text})
    assert "card" in refusal(path).message


# Files that are made to run code. Each of these does so in torch.export.load, or is refused there by luck alone.


def changed(path: Path, name: str, change: Callable[[Any], None]) -> None:
    content = members(path)
    root = next(iter(content)).partition("/")[0]
    document = json.loads(content[f"{root}/{name}"])
    change(document)
    rewrite(path, {name: json.dumps(document).encode()})


MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


def pickled_weight(path: Path, bomb: Bomb) -> None:
    def change(document: Any) -> None:
        document["config"]["fc.weight"] |= {"use_pickle": True, "path_name": "weight_900"}

    changed(path, WEIGHTS, change)
    rewrite(path, {"data/weights/weight_900": bomb.torch_bytes()})


def pickled_constant(path: Path, bomb: Bomb) -> None:
    import pickle

    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    changed(path, CONSTANTS, lambda document: document["config"].update(bomb=entry))
    rewrite(path, {"data/constants/opaque_obj_0": pickle.dumps(bomb)})


def pickled_example(path: Path, bomb: Bomb) -> None:
    rewrite(path, {"data/sample_inputs/model.pt": bomb.torch_bytes()})


def legacy_weights(path: Path, bomb: Bomb) -> None:
    rewrite(path, {"data/weights/model.pt": bomb.torch_bytes()})


def formula(path: Path, bomb: Bomb) -> None:
    def change(document: Any) -> None:
        values = document["graph_module"]["graph"]["tensor_values"]
        for value in values.values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = f"__import__('os').mkdir({str(bomb.mark)!r})"

    changed(path, MODEL, change)


def tree_specification(path: Path, bomb: Bomb) -> None:
    folder = bomb.mark.parent
    (folder / "bomb_module.py").write_text(f"import os\nos.mkdir({str(bomb.mark)!r})\n")
    context = json.dumps({"__enum__": True, "fqn": "bomb_module:x", "name": "x"})
    spec = json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": []}])

    def change(document: Any) -> None:
        document["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = spec

    changed(path, MODEL, change)


def guard(path: Path, bomb: Bomb) -> None:
    changed(path, MODEL, lambda document: document.update(guards_code=[f"__import__('os').mkdir({str(bomb.mark)!r})"]))


def operator(path: Path, bomb: Bomb) -> None:
    def change(document: Any) -> None:
        node = document["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.os.mkdir"
        node["inputs"] = [{"name": "path", "arg": {"as_string": str(bomb.mark)}, "kind": 1}]

    changed(path, MODEL, change)


ATTACKS = {
    attack.__name__: attack
    for attack in (
        pickled_weight,
        pickled_constant,
        pickled_example,
        legacy_weights,
        formula,
        tree_specification,
        guard,
        operator,
    )
}
# What torch's own loader runs in torch 2.13; the rest it runs only later, or on another way.
RUN_BY_TORCH = (
    "pickled_weight",
    "pickled_constant",
    "pickled_example",
    "legacy_weights",
    "formula",
    "tree_specification",
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_code_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    bomb = Bomb(tmp_path / "it-ran")
    path = saved(tmp_path / "m.pt2")
    ATTACKS[attack](path, bomb)
    with contextlib.suppress(BadInputError):
        loaded = load_model(path, SAID)
        # What the attack sits in was not needed; without it the program is what it was.
        assert torch.allclose(loaded.model(torch.ones(2, 3, 17, 15)), residual()(torch.ones(2, 3, 17, 15)), atol=1e-5)
    assert not bomb.mark.exists()


@pytest.mark.parametrize("attack", RUN_BY_TORCH)
def test_the_attacks_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    bomb = Bomb(tmp_path / "it-ran")
    path = saved(tmp_path / "m.pt2")
    ATTACKS[attack](path, bomb)
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    try:
        # After the code has run, anything may fail.
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            torch.export.load(io.BytesIO(path.read_bytes()))
    finally:
        logging.getLogger("torch").setLevel(logging.NOTSET)
    assert bomb.mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('x')",
        "s0.__class__",
        "Symbol('s0', positive=open('x', 'w'))",
        "Symbol('os.system')",
        "[s0 for s0 in (1,)]",
        "lambda: 1",
        "eval('1')",
        "s0 ** 9999999",
        "PowByNatural(9, 99999999)",
        "f'{s0}'",
        "'text'",
        "(" * 500 + ")" * 500,
        "s0 if s0 else s0",
        "",
    ],
)
def test_texts_that_are_no_arithmetic(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path / "m.pt2")

    def change(document: Any) -> None:
        document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = text

    changed(path, MODEL, change)
    assert "a formula" in (refusal(path).found or "")


@pytest.mark.parametrize(
    "target", ["torch.ops.aten.from_file.default", "torch.load", "torch.hub.load", "os.mkdir", "#x"]
)
def test_operations_that_are_not_run(tmp_path: Path, target: str) -> None:
    path = saved(tmp_path / "m.pt2")
    changed(path, MODEL, lambda document: document["graph_module"]["graph"]["nodes"][0].update(target=target))
    assert refusal(path).found == target


def test_compiled_code_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt2")
    rewrite(path, {"data/aotinductor/model/model.so": b"\x7fELF"})
    assert "compiled code" in (refusal(path).found or "")


def test_a_program_of_a_vgg_keeps_its_dropout_silent(tmp_path: Path) -> None:
    model = made(Vgg)
    loaded = load_model(save(tmp_path / "m.pt2", model, side=(18, 10)), said(4, (18, 10)))
    images = torch.rand(4, 3, 18, 10)
    assert torch.equal(loaded.model(images), loaded.model(images))
    assert torch.allclose(loaded.model(images), model(images), atol=1e-6)
