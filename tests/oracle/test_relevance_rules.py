"""Each rule against numbers worked out by hand, and against loops over single connections."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from relevance_networks import HIGH, LOW
from torch import nn

from edgekit.teacher.relevance.protocol import RelevanceOptions
from edgekit.teacher.relevance.registry import RELEVANCE

BOUNDS = RelevanceOptions(LOW, HIGH)


def maps_of(name: str, model: nn.Module, images: torch.Tensor, chosen: int, options: RelevanceOptions) -> torch.Tensor:
    asked = torch.full((len(images),), chosen, dtype=torch.int32)
    return RELEVANCE.load(name)(options)(model.eval(), images, asked)


class OnPaper(nn.Module):
    """One pixel (a, b) -> two hidden units -> one score and its opposite; every weight can be chosen."""

    def __init__(self, first: list[list[float]], second: list[float], bias: list[float] | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 2, 1, bias=bias is not None)
        self.second = nn.Linear(2, 2, bias=False)
        self.first.weight.data = torch.tensor(first)[:, :, None, None]
        if bias is not None:
            self.first.bias.data = torch.tensor(bias)
        self.second.weight.data = torch.tensor([second, [-weight for weight in second]])
        self.hidden = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.hidden(self.first(x)).flatten(1))


class Pixels(nn.Module):
    """The same numbers at two cells of one channel, so that a map shows each for itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.reshape(-1, 2, 1, 1))


TWO = torch.tensor([[[[3.0, 1.0]]]])
UNIT = RelevanceOptions((0.0,), (4.0,))


def test_lrp_on_paper() -> None:
    # hidden: h1 = 2*3 - 1 = 5, h2 = 3 + 1 = 4; score 1*5 + 2*4 = 13, shared 5 and 8.
    # z^B with l = 0, h = 4. To h1 from a: 3*2 = 6, from b: 1*(-1) - 4*(-1) = 3, so 5 goes 10/3 and 5/3.
    # To h2: 3 and 1, so 8 goes 6 and 2. Together 28/3 and 11/3, in sum 13.
    model = Pixels(OnPaper([[2.0, -1.0], [1.0, 1.0]], [1.0, 2.0]))
    (found,) = maps_of("lrp-alpha1beta0", model, TWO, 0, UNIT)
    assert found[0].tolist() == pytest.approx([28 / 3, 11 / 3])


def test_lrp_gives_a_negative_score_away_as_a_negative_map() -> None:
    # The opposite class: score -13, but no weight of it is positive, so nothing has contributed positively.
    model = Pixels(OnPaper([[2.0, -1.0], [1.0, 1.0]], [1.0, 2.0]))
    (found,) = maps_of("lrp-alpha1beta0", model, TWO, 1, UNIT)
    assert found.tolist() == [[0.0, 0.0]]
    # Scores 1*5 - 2*4 = -3: only h1 contributes positively, and takes -3 as 2 to 1.
    model = Pixels(OnPaper([[2.0, -1.0], [1.0, 1.0]], [1.0, -2.0]))
    (found,) = maps_of("lrp-alpha1beta0", model, TWO, 0, UNIT)
    assert found[0].tolist() == pytest.approx([-2.0, -1.0])


class Third(nn.Module):
    """A layer with bias in the middle: 2 values -> 1 unit with bias 3 -> score."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 1, bias=False)
        self.middle = nn.Linear(2, 1)
        self.last = nn.Linear(1, 2, bias=False)
        self.first.weight.data.fill_(1.0)
        self.middle.weight.data = torch.tensor([[1.0, 2.0]])
        self.middle.bias.data.fill_(3.0)
        self.last.weight.data = torch.tensor([[1.0], [0.0]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)).flatten(1))))


def test_a_positive_bias_keeps_its_share_in_lrp_and_none_in_the_others() -> None:
    # middle = 3 + 2*1 + 3 = 8: the inputs get 3/8 and 2/8 of the score 8, the bias keeps 3.
    (found,) = maps_of("lrp-alpha1beta0", Third(), TWO, 0, UNIT)
    assert found[0].tolist() == pytest.approx([3.0, 2.0])
    # Excitation: 3/5 and 2/5, whatever the bias.
    (found,) = maps_of("excitation-backprop", Third(), TWO, 0, UNIT)
    assert found[0].tolist() == pytest.approx([0.6, 0.4])
    # RAP: 8 * 3/5 and 8 * 2/5; nothing negative, so nothing is shifted.
    (found,) = maps_of("rap", Third(), TWO, 0, UNIT)
    assert found[0].tolist() == pytest.approx([4.8, 3.2])


def test_excitation_backprop_on_paper() -> None:
    # h1 = 5, h2 = 4 with weights 1 and 2: P(h1) = 5/13, P(h2) = 8/13.
    # h1 is excited by a alone (weight -1 from b): a gets 5/13. h2 by both, 3 to 1: a 6/13, b 2/13.
    model = Pixels(OnPaper([[2.0, -1.0], [1.0, 1.0]], [1.0, 2.0]))
    (found,) = maps_of("excitation-backprop", model, TWO, 0, UNIT)
    assert found[0].tolist() == pytest.approx([11 / 13, 2 / 13])


def test_pixels_are_counted_from_their_lower_bound_in_excitation_backprop() -> None:
    # Bounds -1..4 make (3, 1) into (4, 2): h2 hands on 4/6 and 2/6, of 8/13 each.
    model = Pixels(OnPaper([[2.0, -1.0], [1.0, 1.0]], [1.0, 2.0]))
    (found,) = maps_of("excitation-backprop", model, TWO, 0, RelevanceOptions((-1.0,), (4.0,)))
    assert found[0].tolist() == pytest.approx([5 / 13 + 8 / 13 * 2 / 3, 8 / 13 / 3])


def test_contrastive_excitation_backprop_on_paper() -> None:
    # Weights 1 and -2: the class wins through h1 alone, its dual (-1, 2) through h2 alone.
    # From h1: a 1. From h2: a 3/4, b 1/4. The difference: 1/4 and -1/4.
    model = Pixels(OnPaper([[2.0, -1.0], [1.0, 1.0]], [1.0, -2.0]))
    (found,) = maps_of("contrastive-excitation-backprop", model, TWO, 0, UNIT)
    assert found[0].tolist() == pytest.approx([0.25, -0.25])


def test_rap_behind_the_last_layer_on_paper() -> None:
    # Contributions 5 and -8, score -3: absolute influence 5/13 and 8/13 of -3. Then z^B as for LRP above.
    model = Pixels(OnPaper([[2.0, -1.0], [1.0, 1.0]], [1.0, -2.0]))
    (found,) = maps_of("rap", model, TWO, 0, UNIT)
    first, second = -3 * 5 / 13, -3 * 8 / 13
    expected = [first * 2 / 3 + second * 3 / 4, first / 3 + second / 4]
    assert found[0].tolist() == pytest.approx(expected)


class MiddleOfRap(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 1, bias=False)
        self.middle = nn.Linear(3, 1, bias=False)
        self.last = nn.Linear(1, 2, bias=False)
        self.first.weight.data.fill_(1.0)
        self.middle.weight.data = torch.tensor([[2.0, 1.0, -1.0]])
        self.last.weight.data = torch.tensor([[2.0], [-2.0]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)).flatten(1))))


def test_rap_in_the_middle_on_paper() -> None:
    # x = (3, 2, 4): contributions 6, 2, -4; unit 4; score 8. P = 8, N = 4.
    # Credit: 8 * 6/8 = 6, 8 * 2/8 = 2, 8 * 4/12 = 8/3; 8/3 too much, so each of three gives back 8/9.
    image = torch.tensor([[[[3.0, 2.0, 4.0]]]])
    (found,) = maps_of("rap", MiddleOfRap(), image, 0, UNIT)
    assert found[0].tolist() == pytest.approx([6 - 8 / 9, 2 - 8 / 9, 8 / 3 - 8 / 9])
    # The opposite class has the opposite map: a negative score is no other rule.
    (opposite,) = maps_of("rap", MiddleOfRap(), image, 1, UNIT)
    assert torch.allclose(opposite, -found)


class Negated(nn.Module):
    """Reads `1 - x`, so that the darkest image has the largest values."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(1 - x)


@pytest.mark.parametrize("name", RELEVANCE.names())
def test_bounds_change_places_where_the_image_is_inverted(name: str) -> None:
    """An inverted image within inverted bounds, inverted again by the network, is the image within its bounds."""
    model = Pixels(OnPaper([[2.0, -1.0], [1.0, 1.0]], [1.0, 2.0]))
    found = maps_of(name, Negated(model), 1 - TWO, 0, RelevanceOptions((-3.0,), (1.0,)))
    assert torch.allclose(found, maps_of(name, model, TWO, 0, UNIT))
    assert found.any()


class Adds(nn.Module):
    """score = relu(x) + relu(-x / 2 + 3) at each of two cells, summed."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.other = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1)
        self.same.weight.data.fill_(1.0)
        self.other.weight.data.fill_(-0.5)
        self.other.bias.data.fill_(3.0)
        self.fc = nn.Linear(2, 2, bias=False)
        self.fc.weight.data = torch.tensor([[1.0, 1.0], [1.0, -1.0]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc((torch.relu(self.same(x)) + torch.relu(self.other(x))).flatten(1))


def test_an_addition_splits_its_relevance_on_paper() -> None:
    # At (3, 1): sums 3 + 1.5 = 4.5 and 1 + 2.5 = 3.5; score 8. Both branches lead to the same pixel.
    (found,) = maps_of("lrp-alpha1beta0", Adds(), TWO, 0, UNIT)
    assert found[0].tolist() == pytest.approx([4.5, 3.5])
    (found,) = maps_of("excitation-backprop", Adds(), TWO, 0, UNIT)
    # The second branch has no excitatory weight: what goes there is lost.
    assert found[0].tolist() == pytest.approx([3 / 8, 1 / 8])


# --- The same in loops over connections, for a network with everything in it. -------------------------------------

Cell = tuple[int, int, int]
Connection = tuple[Cell, Cell, float]
Field = dict[Cell, float]
INNER = {"lrp-alpha1beta0": "positive", "excitation-backprop": "excited", "rap": "influence"}


class Everything(nn.Module):
    """Convolution, batch norm with negative scales, max pooling, a residual block, averages, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 4, 2, dilation=2, padding=(1, 1))
        self.conv3, self.bn3 = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(4)
        self.fc1, self.fc2 = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(x + self.bn3(self.conv3(x)))
        return self.fc2(torch.tanh(self.fc1(x.mean((2, 3)))))


def everything() -> Everything:
    torch.manual_seed(11)
    model = Everything().double().eval().requires_grad_(False)
    for norm in (model.bn1, model.bn3):
        norm.weight.uniform_(-1.5, 1.5)
        norm.bias.uniform_(-0.2, 0.6)
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.3, 1.5)
    return model


def merged(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[np.ndarray, np.ndarray]:
    weight = conv.weight.numpy().copy()
    bias = np.zeros(len(weight)) if conv.bias is None else conv.bias.numpy().copy()
    if norm is not None:
        for channel in range(len(weight)):
            scale = float(norm.weight[channel]) / math.sqrt(float(norm.running_var[channel]) + norm.eps)
            weight[channel] *= scale
            bias[channel] = (bias[channel] - float(norm.running_mean[channel])) * scale + float(norm.bias[channel])
    return weight, bias


def connections(conv: nn.Conv2d, weight: np.ndarray, size: tuple[int, int]) -> list[Connection]:
    """(output, input, weight) for every pair of cells that a convolution connects."""
    found: list[Connection] = []
    outputs, per_group, rows, columns = weight.shape
    (sy, sx), (py, px), (dy, dx) = conv.stride, conv.padding, conv.dilation
    height = (size[0] + 2 * py - dy * (rows - 1) - 1) // sy + 1
    width = (size[1] + 2 * px - dx * (columns - 1) - 1) // sx + 1
    for out, y, x in np.ndindex(outputs, height, width):
        group = out // (outputs // conv.groups)
        for channel, row, column in np.ndindex(per_group, rows, columns):
            iy, ix = y * sy - py + row * dy, x * sx - px + column * dx
            if 0 <= iy < size[0] and 0 <= ix < size[1]:
                source = (group * per_group + channel, iy, ix)
                found.append(((out, y, x), source, float(weight[out, channel, row, column])))
    return found


def dense(layer: nn.Linear) -> list[Connection]:
    rows = layer.weight.numpy()
    return [((j, 0, 0), (i, 0, 0), float(rows[j, i])) for j in range(rows.shape[0]) for i in range(rows.shape[1])]


def forward(lines: list[Connection], x: Field, bias: np.ndarray) -> Field:
    result: Field = {}
    for out, source, weight in lines:
        result[out] = result.get(out, float(bias[out[0]])) + weight * x[source]
    return result


Contribution = Callable[[Cell, float], float]


def share(lines: list[Connection], how: Contribution, relevance: Field, extra: Field | None = None) -> Field:
    """Relevance in proportion to contributions, `extra` being one more contribution that keeps its share."""
    total = dict(extra or {})
    for out, source, weight in lines:
        total[out] = total.get(out, 0.0) + how(source, weight)
    result: Field = {}
    for out, source, weight in lines:
        part = relevance.get(out, 0.0) * how(source, weight) / total[out] if total[out] else 0.0
        result[source] = result.get(source, 0.0) + part
    return result


def below(rule: str, lines: list[Connection], x: Field, bias: np.ndarray, relevance: Field) -> Field:
    if rule == "positive":
        kept = {out: max(float(bias[out[0]]), 0.0) for out in relevance}
        return share(lines, lambda i, w: max(x[i] * w, 0.0), relevance, kept)
    if rule == "excited":
        return share(lines, lambda i, w: max(x[i], 0.0) * max(w, 0.0), relevance)
    credit = share(lines, lambda i, w: max(x[i] * w, 0.0), relevance)
    all_of_it = share(lines, lambda i, w: abs(x[i] * w), relevance)
    helped: Field = {}
    total: Field = {}
    for out, source, weight in lines:
        total[out] = total.get(out, 0.0) + abs(x[source] * weight)
    for out, source, weight in lines:
        if x[source] * weight > 0 and total[out]:
            helped[source] = helped.get(source, 0.0) + relevance.get(out, 0.0) * x[source] * weight / total[out]
    for source in credit:
        credit[source] += all_of_it[source] - helped.get(source, 0.0)
    credited = [source for source in credit if credit[source] != 0]
    excess = (sum(credit.values()) - sum(relevance.values())) / len(credited)
    return {source: value - excess if value != 0 else 0.0 for source, value in credit.items()}


def last(rule: str, lines: list[Connection], x: Field, bias: np.ndarray, relevance: Field) -> Field:
    if rule == "influence":
        return share(lines, lambda i, w: abs(x[i] * w), relevance)
    return below(rule, lines, x, bias, relevance)


def first(rule: str, lines: list[Connection], x: Field, relevance: Field) -> Field:
    if rule == "excited":
        return share(lines, lambda i, w: (x[i] - LOW[i[0]]) * max(w, 0.0), relevance)
    return share(lines, lambda i, w: x[i] * w - LOW[i[0]] * max(w, 0.0) - HIGH[i[0]] * min(w, 0.0), relevance)


def parts(rule: str, terms: list[float]) -> list[float]:
    """The share of each term of a sum."""
    used = terms if rule == "influence" else [max(term, 0.0) for term in terms]
    total = sum(used)
    return [term / total if total else 0.0 for term in used]


def relu(x: Field) -> Field:
    return {cell: max(value, 0.0) for cell, value in x.items()}


def slowly(rule: str, model: Everything, image: torch.Tensor, chosen: int) -> tuple[np.ndarray, float]:
    """The map and the logit, by loops and dictionaries alone."""
    size = tuple(image.shape[1:])
    pixels = {cell: float(image[cell]) for cell in np.ndindex(*image.shape)}
    weight1, bias1 = merged(model.conv1, model.bn1)
    lines1 = connections(model.conv1, weight1, size)
    one = relu(forward(lines1, pixels, bias1))
    weight2, bias2 = merged(model.conv2, None)
    lines2 = connections(model.conv2, weight2, _size(one))
    two = relu(forward(lines2, one, bias2))
    winners = dict(_winners(two))
    pooled = {cell: two[winner] for cell, winner in winners.items()}
    weight3, bias3 = merged(model.conv3, model.bn3)
    lines3 = connections(model.conv3, weight3, _size(pooled))
    branch = forward(lines3, pooled, bias3)
    block = relu({cell: pooled[cell] + branch[cell] for cell in pooled})
    cells = {channel: [cell for cell in block if cell[0] == channel] for channel in range(4)}
    mean = {(c, 0, 0): sum(block[cell] for cell in cells[c]) / len(cells[c]) for c in cells}
    hidden = {cell: math.tanh(v) for cell, v in forward(dense(model.fc1), mean, model.fc1.bias.numpy()).items()}
    logits = forward(dense(model.fc2), hidden, model.fc2.bias.numpy())
    logit = logits[chosen, 0, 0]

    start = dict.fromkeys(logits, 0.0)
    start[chosen, 0, 0] = 1.0 if rule == "excited" else logit
    at_hidden = last(rule, dense(model.fc2), hidden, model.fc2.bias.numpy(), start)
    at_mean = below(rule, dense(model.fc1), mean, model.fc1.bias.numpy(), at_hidden)
    at_pooled = dict.fromkeys(pooled, 0.0)
    at_branch: Field = {}
    for channel, members in cells.items():
        for cell, part in zip(members, parts(rule, [block[cell] for cell in members]), strict=True):
            received = part * at_mean[channel, 0, 0]
            kept, sent = parts(rule, [pooled[cell], branch[cell]])
            at_pooled[cell] += received * kept
            at_branch[cell] = received * sent
    for cell, value in below(rule, lines3, pooled, bias3, at_branch).items():
        at_pooled[cell] += value
    at_two = dict.fromkeys(two, 0.0)
    for cell, winner in winners.items():
        at_two[winner] += at_pooled[cell]
    at_one = below(rule, lines2, one, bias2, at_two)
    at_pixels = first(rule, lines1, pixels, at_one)
    result = np.zeros(size)
    for (_, y, x), value in at_pixels.items():
        result[y, x] += value
    return result, logit


def _size(field: Field) -> tuple[int, int]:
    return max(cell[1] for cell in field) + 1, max(cell[2] for cell in field) + 1


def _winners(field: Field) -> Iterator[tuple[Cell, Cell]]:
    height, width = _size(field)
    for channel, y, x in np.ndindex(max(cell[0] for cell in field) + 1, height // 2, width // 2):
        window = [(channel, 2 * y + row, 2 * x + column) for row in (0, 1) for column in (0, 1)]
        yield (channel, y, x), max(window, key=lambda cell: field[cell])


@pytest.mark.parametrize("name", list(INNER))
def test_in_slow_loops(name: str) -> None:
    model = everything()
    images = torch.randn((2, 3, 11, 9), generator=torch.Generator().manual_seed(3)).clamp(-4.4, 4.5).double()
    logits = model(images)
    filled = 0
    for chosen in range(3):
        found = maps_of(name, model, images, chosen, BOUNDS)
        for image, one, answer in zip(images, found, logits, strict=True):
            expected, logit = slowly(INNER[name], model, image, chosen)
            assert logit == pytest.approx(float(answer[chosen]), rel=1e-9)
            scale = np.abs(expected).max()
            assert np.abs(one.numpy() - expected).max() <= 1e-9 * scale
            filled += scale > 0
    assert filled >= 4, "too many empty maps to say anything"
