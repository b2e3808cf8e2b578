"""Learned weights go back into the torch network, and what is exported again is the network that learned."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import SharedConvolution, made
from qat_networks import explained, graph_of, images, network, run, table_of
from torch import nn

from edgekit.calibrate.graph import LOGITS, ExplainedGraph
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.errors import DefectError
from edgekit.qat.interpreter import Interpreter, weight_names
from edgekit.qat.owners import find_owners, write_back
from edgekit.qat.quantiser import Quantiser
from edgekit.qat.transfer import check_weights, renamed_constants, transferred
from edgekit.teacher.checkpoint import LoadedModel

# Folded and plain convolutions, grouped ones, linear layers, normalisations that stay: exporting takes seconds.
NETWORKS = ("vgg", "mobile")


def disturbed(graph: ExplainedGraph, trainable: set[str], table: ScaleTable | None = None) -> Interpreter:
    """As after training: weights moved, by a tenth of the largest."""
    found = Interpreter(graph, trainable, None if table is None else Quantiser(graph, table))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in found.trainable.values():
            weight.add_(0.1 * weight.abs().max() * torch.randn(weight.shape, generator=generator))
    return found.eval()


def written_back(
    name: str, table: ScaleTable | None = None
) -> tuple[LoadedModel, Interpreter, ExplainedGraph, set[str]]:
    graph, model = graph_of(name), copy.deepcopy(network(name).model)
    owners, lost = find_owners(graph, model, images(name, 2))
    assert lost == ()
    trainable = {tensor for owner in owners for tensor in (owner.weight, owner.bias) if tensor is not None}
    learned = disturbed(graph, trainable, table)
    write_back(owners, {tensor: learned.stored(tensor) for tensor in weight_names(graph)}, model)
    return replace(network(name), model=model), learned, graph, trainable


def of_three_classes(model: nn.Module) -> LoadedModel:
    """With the card of a network that takes the same images."""
    card = replace(network("vgg").card, classes=("a", "b", "c"), tap=None)
    return replace(network("vgg"), model=model, card=card)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_that_is_exported_again_is_the_one_that_learned(name: str) -> None:
    table = table_of(name, "x86-u8s8")
    assert table is not None
    model, learned, graph, trainable = written_back(name, table)
    assert trainable == weight_names(graph), "every weight has an owner"
    again = explained(model)
    renamed = renamed_constants(graph, again)
    check_weights(learned.trainable, renamed, graph, again)
    for tensor, weight in learned.trainable.items():
        np.testing.assert_array_equal(again.constant(renamed[tensor]), weight.detach().numpy())
    # And so the Q/DQ graph that is written for it is what learned.
    assert learned.quantiser is not None
    moved = transferred(learned.quantiser.table(learned.stored), renamed, again, {"qat": {}})
    assert moved.provenance.method.endswith("then learned")
    pixels = images(name)
    with torch.no_grad():
        wanted = learned(pixels).numpy()
    (found,) = run(write_qdq(again, moved), pixels.numpy(), [LOGITS], optimised=True)
    assert np.abs(found - wanted).max() <= np.abs(wanted).max() / 127


def test_a_normalisation_without_a_bias_keeps_the_learned_one_in_its_mean() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)
            # Without a bias it is exported as a MatMul.
            self.fc = nn.Linear(4, 3, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))

    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Plain()
        nn.init.uniform_(model.norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(model.norm.running_var, 0.3, 1.5)
    model.eval().requires_grad_(False)
    pixels = images("vgg", 4)
    graph = explained(of_three_classes(model))
    owners, lost = find_owners(graph, model, pixels)
    assert lost == ()
    assert [(owner.module, owner.norm, owner.transposed) for owner in owners] == [
        ("conv", "norm", False),
        ("fc", None, True),
    ]
    trainable = {tensor for owner in owners for tensor in (owner.weight, owner.bias) if tensor is not None}
    learned = disturbed(graph, trainable)
    write_back(owners, {tensor: learned.stored(tensor) for tensor in trainable}, model)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), learned(pixels))


def test_a_module_that_runs_twice_is_one_weight() -> None:
    model = made(SharedConvolution)
    graph = explained(of_three_classes(model))
    owners, lost = find_owners(graph, model, images("vgg", 2))
    assert lost == ()
    assert [owner.module for owner in owners] == ["conv", "conv", "last", "fc"]
    assert owners[0] == owners[1]


def test_what_no_module_holds_is_told_and_left_alone() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding)

    class Fixed(nn.Conv2d):
        """Holds what the graph holds, but no other weight would reach the answer."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(x, self.weight.detach(), self.bias)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fixed, self.fc = Standardised(3, 4, 3), Fixed(4, 4, 1), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.fixed(torch.relu(self.conv(x))).mean((2, 3)))

    model = made(Net)
    graph = explained(of_three_classes(model))
    owners, lost = find_owners(graph, model, images("vgg", 2))
    assert [owner.module for owner in owners] == ["fc"]
    convolutions = [graph.nodes[index] for index in graph.forward if graph.nodes[index].op_type == "Conv"]
    assert set(lost) == {name for node in convolutions for name in node.input[1:] if name}


def test_other_weights_than_the_learned_ones_are_a_defect() -> None:
    graph = graph_of("residual")
    renamed = renamed_constants(graph, graph)
    learned = Interpreter(graph, weight_names(graph)).trainable
    check_weights(learned, renamed, graph, graph)
    with torch.no_grad():
        next(iter(learned.values())).view(-1)[0] += 1e-3
    with pytest.raises(DefectError, match="does not hold the weights") as caught:
        check_weights(learned, renamed, graph, graph)
    assert "bn1" in str(caught.value.where)


def test_another_graph_is_a_defect() -> None:
    with pytest.raises(DefectError, match="another graph than the one that learned"):
        renamed_constants(graph_of("residual"), graph_of("vgg"))
