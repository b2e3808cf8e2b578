"""Loading a classifier: what is wrong with a file, an architecture or a card is said by name."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from networks import Perceptron, Residual, made
from safetensors.torch import save_file
from torch import nn

from edgekit.errors import BadInputError, EdgekitError
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.architectures.registry import ARCHITECTURES
from edgekit.teacher.checkpoint import FORMAT, LoadedModel, save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

ARCH = "networks:Residual"
CARD = ModelCard(InputSpec(17, 15), ("a", "b", "c", "d", "e"))
BY_NAME = LoadOptions(arch=ARCH, card=CARD.to_dict())

State = dict[str, torch.Tensor]


def write(path: Path, content: Any) -> Path:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture
def state() -> State:
    return dict(made(Residual).state_dict())


@pytest.fixture
def content(state: State) -> dict[str, Any]:
    """A sound checkpoint of a built-in architecture, as it lies in the file."""
    model = ARCHITECTURES.load("cifar_resnet")(depth=8, classes=5)
    return {
        "format": FORMAT,
        "arch": "cifar_resnet",
        "arguments": {"depth": 8, "classes": 5},
        "card": CARD.to_dict(),
        "surgery": None,
        "state_dict": dict(model.state_dict()),
    }


def refusal(path: Path, options: LoadOptions | None = None) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        load_model(path, options)
    return caught.value


# Bare state dicts


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_bare_state_dict_with_an_architecture_and_a_card(tmp_path: Path, state: State, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({name: tensor.clone() for name, tensor in state.items()}, path)
    else:
        write(path, state)
    loaded = load_model(path, BY_NAME)
    images = torch.randn(2, 3, 17, 15, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.model(images), made(Residual)(images))
    assert (loaded.card, loaded.arch, dict(loaded.arguments)) == (CARD, ARCH, {})


def test_a_bare_state_dict_does_not_name_its_network(tmp_path: Path, state: State) -> None:
    error = refusal(write(tmp_path / "w.pt", state), LoadOptions(card=CARD.to_dict()))
    assert "--arch" in (error.expected or "")
    assert "cifar_resnet" in (error.hint or "")


def test_a_bare_state_dict_has_no_card(tmp_path: Path, state: State) -> None:
    path = write(tmp_path / "w.pt", state)
    for card in ({}, {"classes": ["a", "b"]}, {"input": {"height": 17, "width": 15}}):
        error = refusal(path, LoadOptions(arch=ARCH, card=card))
        assert "no card" in error.message
        assert "--classes" in (error.hint or "")


def test_the_wrong_architecture_names_the_first_differences(tmp_path: Path, state: State) -> None:
    error = refusal(write(tmp_path / "w.pt", state), LoadOptions(arch="cifar_resnet", card=CARD.to_dict()))
    assert "do not belong" in error.message
    found = (error.found or "").split("; ")
    assert found[0] == "missing layer1.0.conv1.weight"
    assert len(found) == 6
    assert found[-1].startswith("and ")
    # Every missing, unexpected or misshapen name counts.
    wanted = ARCHITECTURES.load("cifar_resnet")().state_dict()
    differing = {name for name in wanted if not name.endswith("_tracked") and name not in state}
    differing |= set(state) - set(wanted)
    differing |= {name for name in set(state) & set(wanted) if state[name].shape != wanted[name].shape}
    assert found[-1] == f"and {len(differing) - 5} more"


def test_wrong_shapes_are_told_from_both_sides(tmp_path: Path, state: State) -> None:
    state["fc.weight"] = torch.zeros(7, 10)
    error = refusal(write(tmp_path / "w.pt", state), BY_NAME)
    assert error.found == "fc.weight: [7, 10] in the file, [5, 10] in the network"
    assert error.hint == "check --arch and its arguments"


def test_missing_and_unexpected_names(tmp_path: Path, state: State) -> None:
    state["head.weight"] = state.pop("fc.weight")
    error = refusal(write(tmp_path / "w.pt", state), BY_NAME)
    assert error.found == "missing fc.weight; unexpected head.weight"


def test_the_prefix_of_data_parallel_is_recognised(tmp_path: Path, state: State) -> None:
    path = write(tmp_path / "w.pt", {f"module.{name}": tensor for name, tensor in state.items()})
    assert "'module.'" in (refusal(path, BY_NAME).hint or "")
    mixed = {f"module.{name}" if name.startswith("fc") else name: tensor for name, tensor in state.items()}
    assert "'module.'" not in (refusal(write(path, mixed), BY_NAME).hint or "")


def test_the_step_counters_of_batch_norm_may_be_absent(tmp_path: Path, state: State) -> None:
    slim = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(slim) < len(state)
    load_model(write(tmp_path / "w.pt", slim), BY_NAME)


class Numbered(Residual):
    """Refuses weights whose layout has no number, as torchvision's MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state: State, prefix: str, metadata: dict[str, Any], *rest: Any) -> None:
        if metadata.get("version") != 2:
            raise ValueError(f"version should be 2 instead of {metadata.get('version')}")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", "checkpoint"])
def test_a_network_that_numbers_its_layout(tmp_path: Path, suffix: str) -> None:
    arch = f"{__name__}:Numbered"
    model = made(Numbered)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, path)
    elif suffix == ".pt":
        write(path, model.state_dict())
    else:
        path = path.with_suffix(".pt")
        save_checkpoint(path, LoadedModel(model, CARD, arch, {}, None, ""))
    loaded = load_model(path, LoadOptions(arch=arch, card=CARD.to_dict()))
    assert all(torch.equal(tensor, loaded.model.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(tmp_path: Path, state: State, value: float) -> None:
    state["layer1.conv1.weight"] = state["layer1.conv1.weight"].clone()
    state["layer1.conv1.weight"][2, 1, 0, 0] = value
    state["bn1.running_var"] = torch.full((6,), value)
    error = refusal(write(tmp_path / "w.pt", state), BY_NAME)
    assert "not finite" in error.message
    assert error.found == "2 tensors, such as bn1.running_var, layer1.conv1.weight"


def test_half_precision_is_read_and_whole_numbers_are_not(tmp_path: Path, state: State) -> None:
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    loaded = load_model(write(tmp_path / "w.pt", halves), BY_NAME)
    assert loaded.model.fc.weight.dtype == torch.float32
    assert torch.equal(loaded.model.fc.weight, state["fc.weight"].half().float())
    quantised = {**state, "fc.weight": (state["fc.weight"] * 127).to(torch.int8)}
    error = refusal(write(tmp_path / "w.pt", quantised), BY_NAME)
    assert error.found == "fc.weight: whole numbers in the file, floating-point numbers in the network"


@pytest.mark.parametrize("key", ["state_dict", "model", "net"])
def test_a_training_checkpoint_says_which_entry_to_save(tmp_path: Path, state: State, key: str) -> None:
    error = refusal(write(tmp_path / "w.pt", {key: state, "epoch": 3}), BY_NAME)
    assert "not a state dict" in error.message
    assert error.hint == f"save its entry {key!r} on its own"


@pytest.mark.parametrize("content", [{}, {"a": 1}, {"a": torch.ones(1), "b": "text"}])
def test_a_dictionary_of_other_things(tmp_path: Path, content: dict[str, Any]) -> None:
    assert "not a state dict" in refusal(write(tmp_path / "w.pt", content), BY_NAME).message


# Checkpoints and the code they may ask for


def test_a_checkpoint_of_a_built_in_architecture_needs_nothing_else(tmp_path: Path, content: dict[str, Any]) -> None:
    loaded = load_model(write(tmp_path / "m.pt", content))
    assert (loaded.arch, loaded.card) == ("cifar_resnet", CARD)
    assert dict(loaded.arguments) == {"depth": 8, "classes": 5}


@pytest.fixture
def tripwire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on the path that leaves a mark when it is imported."""
    mark = tmp_path / "it-ran"
    (tmp_path / "somebodys_code.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nfrom networks import Residual as factory\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return mark


def test_a_file_does_not_decide_which_code_runs(tmp_path: Path, state: State, tripwire: Path) -> None:
    model = made(Residual)
    arch = "somebodys_code:factory"
    save_checkpoint(tmp_path / "m.pt", LoadedModel(model, CARD, arch, {}, None, ""))
    error = refusal(tmp_path / "m.pt")
    assert error.found == arch
    assert error.hint == f"if you trust that code, say so with --arch {arch}"
    assert not tripwire.exists()
    error = refusal(tmp_path / "m.pt", LoadOptions(arch="networks:Residual"))
    assert "differs" in error.message
    assert not tripwire.exists()
    load_model(tmp_path / "m.pt", LoadOptions(arch=arch))
    assert tripwire.exists(), "the user said so"


def test_a_system_call_as_architecture(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr(os, "system", lambda *command: called.append(command))
    content |= {"arch": "os:system", "arguments": {"command": "true"}}
    error = refusal(write(tmp_path / "m.pt", content))
    assert "code outside edgekit" in error.message
    assert not called


@pytest.mark.parametrize(
    ("arch", "named"),
    [
        ("no_such_module:factory", "no_such_module"),
        ("networks:no_such_factory", "no_such_factory"),
        ("networks:", "attribute"),
        (":factory", "Empty module name"),
        ("cifar_resnet_2", "cifar_resnet, "),
        ("", "cifar_resnet, "),
        ("networks:CLOSED", "not callable"),
        ("builtins:dict", "torch.nn.Module"),
    ],
)
def test_architectures_that_cannot_be_had(tmp_path: Path, state: State, arch: str, named: str) -> None:
    path = write(tmp_path / "w.pt", state)
    assert named in str(refusal(path, LoadOptions(arch=arch, card=CARD.to_dict())))


@pytest.mark.parametrize(
    "code", ["def factory(:\n", "raise RuntimeError('no licence')\n", "1 / 0\n", "import nothing_\n"]
)
def test_code_that_fails_to_import_is_told_with_its_reason(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    (tmp_path / "broken_code.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    error = refusal(write(tmp_path / "w.pt", state), LoadOptions(arch="broken_code:factory", card=CARD.to_dict()))
    assert "cannot be imported" in error.message
    assert error.__cause__ is not None
    assert type(error.__cause__).__name__ in (error.found or "")


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": "eight"},
        {"depth": 8.5},
        {"depth": 9},
        {"depth": None},
        {"classes": -3},
        {"classes": 2.5},
        {"classes": 10**13},
        {"widths": 16},
        {"widths": "abc"},
        {"widths": [16, 32]},
        {"widths": [16, -32, 64]},
        {"no_such_argument": 1},
        {"stem_stride": "2"},
    ],
    ids=str,
)
def test_arguments_of_the_wrong_kind(tmp_path: Path, content: dict[str, Any], arguments: dict[str, Any]) -> None:
    path = write(tmp_path / "m.pt", {**content, "arguments": arguments})
    for options in (None, LoadOptions(arguments=arguments)):
        with pytest.raises(EdgekitError) as caught:
            load_model(path, options)
        assert isinstance(caught.value, BadInputError)


def change(**entries: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {**content, **entries}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (change(format="edgekit.checkpoint/99"), "edgekit.checkpoint/99"),
        (change(format=1), "a form this version does not know"),
        (change(extra=1), "extra"),
        (lambda content: {key: item for key, item in content.items() if key != "card"}, "a form this version"),
        (change(arch=3), "architecture entry"),
        (change(arch="no_such"), "no_such"),
        (change(arguments=[1]), "architecture entry"),
        (change(arguments={1: 2}), "keywords must be strings"),
        (change(card=None), "card is malformed"),
        (change(card={}), "no card"),
        (change(card={"input": [1, 2], "classes": ["a", "b"]}), "card is malformed"),
        (change(card={"input": {"height": 8, "width": 8, "mean": [1]}, "classes": ["a", "b"]}), "three values"),
        (change(card={"input": {"height": 8, "width": 8}, "classes": 3}), "card cannot be read"),
        (change(card={"input": {"height": 8, "width": 8}, "classes": ["a", "b"], "tsk": 1}), "tsk"),
        (change(surgery=[]), "pruning"),
        (change(surgery={"format": "edgekit.surgery/1", "layers": {"no.such": {"out": [0], "in": None}}}), "no.such"),
        (change(state_dict=None), "not a state dict"),
        (change(state_dict={}), "not a state dict"),
        (change(state_dict={"a": "b"}), "not a state dict"),
        (change(state_dict={"a": torch.ones(1)}), "missing conv1.weight"),
    ],
)
def test_a_checkpoint_with_a_damaged_section(
    tmp_path: Path, content: dict[str, Any], damage: Callable[[dict[str, Any]], dict[str, Any]], named: str
) -> None:
    assert named in str(refusal(write(tmp_path / "m.pt", damage(content))))


# The network as a classifier of this card


def test_a_card_for_other_inputs(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pt", made(Perceptron).state_dict())
    card = {"input": {"height": 9, "width": 9}, "classes": ["a", "b", "c"]}
    error = refusal(path, LoadOptions(arch="networks:Perceptron", card=card))
    assert error.expected == "to run on float32 [2, 3, 9, 9]"


def test_a_card_with_too_few_classes(tmp_path: Path, state: State) -> None:
    card = {"input": {"height": 17, "width": 15}, "classes": ["a", "b", "c"]}
    error = refusal(write(tmp_path / "w.pt", state), LoadOptions(arch=ARCH, card=card))
    assert "classifier" in error.message
    assert (error.expected, error.found) == ("logits [2, 3] for 3 classes", "[2, 5]")


class Odd(nn.Module):
    """Answers with whatever it is told to."""

    def __init__(self, answer: str = "") -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.answer = answer

    def forward(self, x: torch.Tensor) -> Any:
        logits = x.mean((2, 3)) * self.scale
        if self.answer == "raises":
            raise AssertionError
        return {
            "tuple": (logits,),
            "dict": {"out": logits},
            "two": (logits, x.amax((2, 3))),
            "none": (x,),
            "text": "cat",
            "maps": x,
            "nan": logits / 0 * 0,
        }[self.answer]


@pytest.mark.parametrize(
    ("answer", "message", "found"),
    [
        ("two", "which part", "0 float32 [2, 3], 1 float32 [2, 3]"),
        ("none", "which part", "0 float32 [2, 3, 8, 8]"),
        ("text", "which part", "answer a sequence of 3"),
        ("maps", "classifier", "[2, 3, 8, 8]"),
        ("nan", "not finite", "NaN or infinite logits"),
        ("raises", "does not accept", "AssertionError"),
    ],
)
def test_networks_that_do_not_answer_as_classifiers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, message: str, found: str
) -> None:
    monkeypatch.setattr(networks, "Odd", Odd, raising=False)
    card = {"input": {"height": 8, "width": 8}, "classes": ["a", "b", "c"]}
    options = LoadOptions(arch="networks:Odd", arguments={"answer": answer}, card=card)
    error = refusal(write(tmp_path / "w.pt", Odd().state_dict()), options)
    assert message in error.message
    assert error.found == found


def test_a_model_is_loaded_in_evaluation_mode_on_fixed_weights(tmp_path: Path, state: State) -> None:
    model = load_model(write(tmp_path / "w.pt", state), BY_NAME).model
    images = torch.randn(4, 3, 17, 15, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model(images)[:1], model(images[:1]), atol=1e-6)
    assert not model(images).requires_grad


def test_the_options_are_part_of_a_stages_key() -> None:
    options = LoadOptions("a", {"b": 1}, {"tap": "c"})
    assert options.to_dict() == {"arch": "a", "arguments": {"b": 1}, "card": {"tap": "c"}}
    assert LoadOptions().to_dict() == {"arch": None, "arguments": None, "card": {}}


# Real weights


@pytest.mark.shared_data
@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_published_cifar_weights_load_as_they_are(shared_data: Path, depth: int) -> None:
    card = {"input": {"height": 32, "width": 32}, "classes": [str(number) for number in range(10)]}
    path = shared_data / "models" / f"cifar10-resnet{depth}.safetensors"
    loaded = load_model(path, LoadOptions("cifar_resnet", {"depth": depth}, card))
    assert loaded.model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.shared_data
def test_published_weights_of_another_depth_are_refused(shared_data: Path) -> None:
    card = {"input": {"height": 32, "width": 32}, "classes": [str(number) for number in range(10)]}
    path = shared_data / "models" / "cifar10-resnet20.safetensors"
    error = refusal(path, LoadOptions("cifar_resnet", {"depth": 32}, card))
    assert (error.found or "").startswith("missing layer1.3.conv1.weight")
