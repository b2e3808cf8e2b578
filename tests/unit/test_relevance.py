"""What every relevance method owes on any wiring: conservation, samples for themselves, taps, and clear refusals."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CASES, DependsOnData, SharedConvolution, made
from relevance_networks import HIGH, LOW, RELU_NETWORKS, WIRINGS, without_biases
from torch import nn

from edgekit.errors import BadInputError, DefectError
from edgekit.interface.card import InputSpec
from edgekit.teacher.relevance import propagate
from edgekit.teacher.relevance.network import LayeredNetwork, layered
from edgekit.teacher.relevance.protocol import RelevanceMethod, RelevanceOptions
from edgekit.teacher.relevance.registry import RELEVANCE
from edgekit.teacher.tap import forward_with_tap

CONSERVING = ("excitation-backprop", "lrp-alpha1beta0", "rap")


def method(name: str, tap: str | None = None) -> RelevanceMethod:
    return RELEVANCE.load(name)(RelevanceOptions(LOW, HIGH, tap))


def top_one(count: int) -> torch.Tensor:
    return torch.full((count,), -1, dtype=torch.int32)


@cache
def prepared(name: str, *, biases: bool = True, tap: str | None = None) -> tuple[nn.Module, LayeredNetwork]:
    network = WIRINGS[name]
    model = copy.deepcopy(network.make())
    model = (model if biases else without_biases(model)).double()
    return model, layered(model, network.images(2).double(), tap)


@pytest.mark.parametrize("name", list(WIRINGS))
class TestEveryWiring:
    def test_taken_apart_it_answers_the_same(self, name: str) -> None:
        model, network = prepared(name)
        # Another batch size and other pixels than it was taken apart with.
        images = WIRINGS[name].images(5, seed=8).double()
        found = network.values(images)[network.logits]
        assert torch.allclose(found, model(images), rtol=1e-10, atol=1e-13)

    @pytest.mark.parametrize("way", RELEVANCE.names())
    def test_each_sample_is_explained_on_its_own(self, name: str, way: str) -> None:
        _, network = prepared(name)
        images, asked = WIRINGS[name].images(3).double(), torch.tensor([0, -1, 2], dtype=torch.int32)
        together = method(way)(network, images, asked)
        assert together.shape == (3, *images.shape[2:])
        assert together.dtype == torch.float64
        assert together.isfinite().all()
        assert together[1].any()
        for index in range(3):
            alone = method(way)(network, images[index : index + 1], asked[index : index + 1])
            assert torch.allclose(alone[0], together[index], rtol=1e-9, atol=1e-14)

    def test_rap_sums_to_the_logit(self, name: str) -> None:
        model, network = prepared(name)
        images = WIRINGS[name].images(4).double()
        for chosen in range(3):
            asked = torch.full((4,), chosen, dtype=torch.int32)
            maps = method("rap")(network, images, asked)
            assert torch.allclose(maps.sum((1, 2)), model(images)[:, chosen], rtol=1e-9, atol=1e-12)

    def test_excitation_is_a_probability_and_lrp_never_more_than_the_logit(self, name: str) -> None:
        model, network = prepared(name)
        images = WIRINGS[name].images(4).double()
        excitation = method("excitation-backprop")(network, images, top_one(4))
        assert (excitation >= 0).all()
        assert (excitation.sum((1, 2)) <= 1 + 1e-12).all()
        lrp, logits = method("lrp-alpha1beta0")(network, images, top_one(4)), model(images).amax(dim=1)
        assert (lrp * logits.sign()[:, None, None] >= 0).all()
        assert (lrp.sum((1, 2)).abs() <= logits.abs() * (1 + 1e-12)).all()


def scores(way: str, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(images), dtype=images.dtype) if way == "excitation-backprop" else model(images).amax(dim=1)


@pytest.mark.parametrize("way", CONSERVING)
@pytest.mark.parametrize("name", list(RELU_NETWORKS))
def test_without_biases_nothing_is_lost(name: str, way: str) -> None:
    model, network = prepared(name, biases=False)
    images = WIRINGS[name].images(6).double()
    images = images[model(images).amax(dim=1) > 0]
    assert len(images) > 0
    sums = method(way)(network, images, top_one(len(images))).sum((1, 2))
    assert torch.allclose(sums, scores(way, model, images), rtol=1e-9)


@pytest.mark.parametrize("way", CONSERVING)
@pytest.mark.parametrize("name", ["bottlenecks", "residual"])
def test_a_residual_sum_that_hands_all_to_both_branches_is_caught(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classic fault: the derivative of an addition is one for each operand."""
    faulty = method(way)

    def duplicated(total: propagate.Sum, relevance: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if len(total.inputs) == 1:
            return type(faulty).through_sum(faulty, total, relevance)
        return tuple(relevance for _ in total.inputs)

    monkeypatch.setattr(faulty, "through_sum", duplicated)
    model, network = prepared(name, biases=False)
    images = WIRINGS[name].images(6).double()
    images = images[model(images).amax(dim=1) > 0]
    sums = faulty(network, images, top_one(len(images))).sum((1, 2))
    assert (sums > 1.2 * scores(way, model, images)).all()


@pytest.mark.parametrize("way", ["excitation-backprop", "lrp-alpha1beta0"])
def test_a_batch_norm_that_is_not_merged_is_another_map(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative scales turn the signs of weights; passing relevance through the batch norm would miss that."""
    model = made(CASES["residual"].factory, 2).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight *= torch.where(torch.arange(len(module.weight)) % 2 == 0, 1.0, -1.0)
    images = CASES["residual"].images(2).double().clamp(-4.4, 4.5)
    right = method(way)(model, images, top_one(2))
    monkeypatch.setattr("edgekit.teacher.relevance.network.merge_batch_norms", lambda *_: {})
    wrong = method(way)(model, images, top_one(2))
    assert not torch.allclose(right, wrong, rtol=0.05, atol=0.05 * float(right.abs().max()))


def test_a_lone_batch_norm_stays_and_a_shared_output_is_not_merged() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return self.fc((self.norm(x).relu() + x.relu()).mean((2, 3)))

    model = made(Shared).double()
    images = WIRINGS["vgg"].images(3).double()
    network = layered(model, images)
    assert any("batch_norm" in str(node.target) for node in network.graph.nodes)
    assert torch.allclose(network.values(images)[network.logits], model(images))


@pytest.mark.parametrize("way", RELEVANCE.names())
@pytest.mark.parametrize(
    ("name", "tap"),
    [("residual", "layer1"), ("residual", "layer2.bn2"), ("vgg", "features"), ("dense", "grow1"), ("mobile", "head")],
)
def test_at_a_tap(name: str, tap: str, way: str) -> None:
    case = WIRINGS[name]
    model, network = prepared(name, tap=tap)
    images = case.images(3).double()
    maps = method(way, tap)(network, images, top_one(3))
    if way == "rap":  # taking a network apart is what takes time
        assert torch.equal(maps, method(way, tap)(model, images, top_one(3)))
    activation = forward_with_tap(model, tap, images).activation
    assert maps.shape == (3, *activation.shape[2:])
    assert maps.any()
    if way == "excitation-backprop" and name != "dense":
        # Nothing wins where nothing is active; behind that tap of `dense` a batch norm shifts what is active.
        assert (maps[(activation <= 0).all(dim=1)] == 0).all()


def test_relevance_at_the_last_tap_of_a_pooled_linear_head_is_worked_out() -> None:
    """RAP there is `logit * |w_k mean_k| / sum |w mean|`, and within a channel in proportion to the activation."""
    model, network = prepared("residual", tap="layer2")
    images = WIRINGS["residual"].images(2).double()
    found = method("rap", "layer2")(network, images, top_one(2))
    activation = forward_with_tap(model, "layer2", images).activation
    logits = model(images)
    weight = model.fc.weight[logits.argmax(dim=1)]
    influence = (weight * activation.mean((2, 3))).abs()
    influence = logits.amax(dim=1)[:, None] * influence / influence.sum(dim=1, keepdim=True)
    within = activation / activation.sum((2, 3), keepdim=True).clamp(min=1e-300)
    assert torch.allclose(found, (influence[:, :, None, None] * within).sum(dim=1), rtol=1e-10, atol=1e-16)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.1, 10.0),
    seed=st.integers(0, 10_000),
    name=st.sampled_from(["grouped", "inception", "bottlenecks", "averagedstem"]),
)
def test_a_score_twice_as_steep_has_a_map_twice_as_strong(scale: float, seed: int, name: str) -> None:
    """Scaling the last layer scales LRP and RAP; probabilities stay what they are."""
    _, network = prepared(name, biases=False)
    images = WIRINGS[name].images(2, seed).double()
    constants = dict(network.constants)
    (weight,) = (node for node in constants if node.name == "p_fc_weight")
    constants[weight] = constants[weight] * scale
    steeper = LayeredNetwork(network.graph, constants, network.images, network.logits, network.tap_name, network.tap)
    for way in CONSERVING:
        before, after = (method(way)(which, images, top_one(2)) for which in (network, steeper))
        factor = 1.0 if way == "excitation-backprop" else scale
        assert torch.allclose(after, factor * before, rtol=1e-8, atol=1e-13)


class TestRefusals:
    def refused(self, model: nn.Module, tap: str | None = None, side: int = 12) -> BadInputError:
        images = torch.zeros(2, 3, side, side)
        with pytest.raises(BadInputError) as caught:
            method("lrp-alpha1beta0", tap)(model, images, top_one(2))
        return caught.value

    @pytest.mark.parametrize(
        ("layer", "operation"),
        [
            (nn.GroupNorm(2, 4), "aten::group_norm"),
            (nn.InstanceNorm2d(4), "aten::instance_norm"),
            (nn.LocalResponseNorm(2), "aten::div"),
            (nn.Sigmoid(), "aten::sigmoid"),
            (nn.Softplus(), "aten::softplus"),
            (nn.LPPool2d(2, 2), "aten::"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
    )
    def test_an_unknown_operation_is_named_with_its_module(self, layer: nn.Module, operation: str) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
        error = self.refused(model)
        assert operation in str(error.found)
        assert error.where == "1"

    def test_group_and_layer_norms_of_the_shared_cases(self) -> None:
        assert self.refused(CASES["norms"].make(), side=14).where == "norm"

    def test_below_a_tap_anything_may_stand(self) -> None:
        model = nn.Sequential(
            *(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
            *(nn.Flatten(), nn.Linear(4, 2)),
        ).eval()
        images = WIRINGS["vgg"].images(2)
        assert method("lrp-alpha1beta0", "2")(model, images, top_one(2)).any()

    def test_a_product_of_two_signals(self) -> None:
        class Product(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.two, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc((self.one(x).relu() * self.two(x).relu()).mean((2, 3)))

        error = self.refused(Product().eval())
        assert "signal and a gate" in str(error.expected)
        assert error.found == "aten::mul"

    def test_attention(self) -> None:
        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                tokens = self.conv(x).flatten(2)
                return self.fc((torch.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens).mean(2))

        assert self.refused(Attention().eval()).found == "aten::matmul"

    def test_a_softmax_behind_the_logits(self) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 2), nn.Softmax(dim=1)).eval()
        assert "softmax" in str(self.refused(model).found)

    def test_control_flow_that_depends_on_data(self) -> None:
        assert "control flow" in str(self.refused(DependsOnData().eval()).hint)

    def test_training_mode(self) -> None:
        assert self.refused(CASES["vgg"].make().train()).found == "training mode"

    @pytest.mark.parametrize("tap", ["nothing", "conv"])
    def test_a_tap_that_does_not_exist_or_runs_twice(self, tap: str) -> None:
        assert tap in str(self.refused(SharedConvolution().eval(), tap))

    def test_a_tap_without_operations_or_without_effect(self) -> None:
        class Taps(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.nothing, self.unused, self.fc = nn.Identity(), nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.unused(x)
                return self.fc(self.nothing(x).mean((2, 3)))

        assert "operation of that module" in str(self.refused(Taps().eval(), "nothing"))
        assert "has no part in the logits" in str(self.refused(Taps().eval(), "unused"))

    def test_a_tap_that_only_makes_a_gate(self) -> None:
        class Gated(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.signal, self.gate, self.fc = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc((self.signal(x) * self.gate(x).sigmoid()).mean((2, 3)))

        assert "no relevance reaches" in str(self.refused(Gated().eval(), "gate")).lower()

    def test_a_network_taken_apart_for_another_tap(self) -> None:
        _, network = prepared("vgg")
        with pytest.raises(BadInputError, match="another tap"):
            method("rap", "features")(network, WIRINGS["vgg"].images(1).double(), top_one(1))

    @pytest.mark.parametrize(("value", "channels"), [(4.9, 3), (-4.9, 3), (float("nan"), 3), (0.0, 1)])
    def test_pixels_outside_the_bounds(self, value: float, channels: int) -> None:
        images = torch.zeros(1, channels, 18, 10)
        images[0, 0, 3, 4] = value
        with pytest.raises(BadInputError, match=r"bounds of the input"):
            method("lrp-alpha1beta0")(WIRINGS["vgg"].make(), images, top_one(1))

    def test_parts_that_answer_differently_are_a_defect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def wrong(_graph: object, constants: dict[object, torch.Tensor]) -> dict[object, object]:
            for node, value in constants.items():
                constants[node] = value * 1.01 if value.dim() == 4 else value
            return {}

        monkeypatch.setattr("edgekit.teacher.relevance.network.merge_batch_norms", wrong)
        with pytest.raises(DefectError, match="merging its batch norms"):
            layered(WIRINGS["vgg"].make(), WIRINGS["vgg"].images(2))


class TestOptions:
    def test_bounds_are_those_of_black_and_white_after_the_cards_preprocessing(self) -> None:
        spec = InputSpec(8, 8, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
        options = RelevanceOptions.from_input(spec, "features")
        assert options.low == (-1.0, -1.0, 0.0)
        assert options.high == (1.0, 3.0, 0.5)
        assert options.tap == "features"
        raw = RelevanceOptions.from_input(InputSpec(8, 8, divisor=1.0, mean=(128.0, 128.0, 0.0)))
        assert raw.low == (-128.0, -128.0, 0.0)
        assert raw.high == (127.0, 127.0, 255.0)

    @pytest.mark.parametrize(
        ("low", "high"), [((), ()), ((0.0,), (1.0, 1.0)), ((1.0,), (1.0,)), ((0.0,), (float("inf"),))]
    )
    def test_unusable_bounds(self, low: tuple[float, ...], high: tuple[float, ...]) -> None:
        with pytest.raises(BadInputError, match="bounds"):
            RelevanceOptions(low, high)


@pytest.mark.parametrize("name", RELEVANCE.names())
def test_it_is_called_what_it_is_registered_as(name: str) -> None:
    assert method(name).name == name


@pytest.mark.parametrize("name", ["bottlenecks", "mobile", "inception"])
@pytest.mark.parametrize("way", CONSERVING)
def test_single_precision_is_near_double(name: str, way: str) -> None:
    images, double_network = WIRINGS[name].images(3), prepared(name)[1]
    single = method(way)(single_network(name), images, top_one(3))
    double = method(way)(double_network, images.double(), top_one(3))
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), double, rtol=1e-3, atol=1e-4 * float(double.abs().max()))


@cache
def single_network(name: str) -> LayeredNetwork:
    return layered(WIRINGS[name].make(), WIRINGS[name].images(2))
