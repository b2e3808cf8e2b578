"""Which images calibrate: balance, diversity, determinism, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from explained_graphs import GRAPHS, GraphBuilder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.probe import float_answers
from edgekit.calibrate.selection import farthest_in_turns, select_diverse, select_images
from edgekit.core.digests import digest_file
from edgekit.core.progress import NullObserver
from edgekit.errors import BadInputError
from edgekit.images.imageset import ImageItem, select_balanced
from edgekit.images.views import ImageView
from edgekit.interface.card import InputSpec

SPEC = InputSpec(height=16, width=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def graph(name: str = "residual", seed: int = 0) -> ExplainedGraph:
    return parse_graph(GRAPHS[name](seed).SerializeToString(), where="test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty images with bright blobs in different places."""
    rng = np.random.default_rng(5)
    for index in range(30):
        pixels = rng.integers(0, 60, (16, 16, 3))
        row, column = rng.integers(0, 12, 2)
        pixels[row : row + 4, column : column + 4] += rng.integers(60, 190, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{index:02}.png")
    return tmp_path


def items(folder: Path, labels: Sequence[int | None]) -> tuple[ImageItem, ...]:
    paths = sorted(folder.glob("*.png"))[: len(labels)]
    return tuple(
        ImageItem(path, path.name, label, None, None, digest_file(path))
        for path, label in zip(paths, labels, strict=True)
    )


# Farthest first


def by_definition(
    features: npt.NDArray[np.float32], groups: npt.NDArray[np.int64], count: int
) -> list[tuple[int, float | None]]:
    """The same rule with every distance computed anew, in plain Python."""
    rows = features.astype(np.float64)
    chosen: dict[int, list[int]] = {int(group): [] for group in sorted(set(groups.tolist()))}
    order: list[tuple[int, float | None]] = []
    while len(order) < count:
        proposals: list[tuple[int, int, float | None]] = []
        for group, mine in chosen.items():
            left = [row for row in range(len(rows)) if groups[row] == group and row not in mine]
            if not left:
                continue
            if not mine:
                middle = rows[groups == group].mean(axis=0)
                first = min(left, key=lambda row: (round(float(np.linalg.norm(rows[row] - middle)), 9), row))
                proposals.append((group, first, None))
                continue
            away = {row: min(round(float(np.linalg.norm(rows[row] - rows[it])), 9) for it in mine) for row in left}
            farthest = max(left, key=lambda row: (away[row], -row))
            proposals.append((group, farthest, away[farthest]))
        free = count - len(order)
        if order and free < len(proposals):
            proposals = sorted(sorted(proposals, key=lambda entry: -(entry[2] or 0))[:free])
        for group, row, distance in proposals[:free]:
            chosen[group].append(row)
            order.append((row, distance))
    return order


@given(
    rows=st.integers(1, 30),
    kinds=st.integers(1, 4),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 999),
)
def test_the_order_is_that_of_the_definition(rows: int, kinds: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (rows, 3)).astype(np.float32)
    groups = rng.integers(0, kinds, rows)
    count = max(1, int(share * rows))
    found, expected = farthest_in_turns(features, groups, count), by_definition(features, groups, count)
    assert [place for place, _ in found] == [place for place, _ in expected]
    assert [away or 0.0 for _, away in found] == pytest.approx([away or 0.0 for _, away in expected], rel=1e-5)
    assert [away is None for _, away in found] == [away is None for _, away in expected]


@given(rows=st.integers(1, 60), kinds=st.integers(1, 5), count=st.integers(1, 60), seed=st.integers(0, 99))
def test_groups_are_as_even_as_their_sizes_allow(rows: int, kinds: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, kinds, rows)
    chosen = farthest_in_turns(rng.normal(0, 1, (rows, 2)).astype(np.float32), groups, min(count, rows))
    assert len({place for place, _ in chosen}) == min(count, rows)
    taken = Counter(groups[place] for place, _ in chosen)
    most = max(taken.values())
    for group in np.unique(groups):
        assert taken[group] >= min(most - 1, int((groups == group).sum()))


@pytest.mark.parametrize("seed", range(6))
def test_the_cover_is_within_a_factor_of_two_of_the_best(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(0, 1, (11, 2)).astype(np.float32)

    def radius(centres: Sequence[int]) -> float:
        return float(np.linalg.norm(rows[:, None] - rows[list(centres)][None], axis=2).min(axis=1).max())

    found = [place for place, _ in farthest_in_turns(rows, np.zeros(11, dtype=np.int64), 4)]
    assert radius(found) <= 2 * min(radius(centres) for centres in combinations(range(11), 4)) + 1e-6


def test_equal_rows_are_taken_once_each_and_last() -> None:
    features = np.array([[0.0], [0.0], [0.0], [1.0]], dtype=np.float32)
    chosen = farthest_in_turns(features, np.zeros(4, dtype=np.int64), 4)
    assert [place for place, _ in chosen] == [0, 3, 1, 2]
    assert [away for _, away in chosen] == [None, 1.0, 0.0, 0.0]


def test_a_turn_that_not_all_can_take_part_in_goes_to_the_farthest() -> None:
    features = np.array([[0.0], [0.1], [0.0], [5.0], [0.0], [3.0]], dtype=np.float32)
    chosen = farthest_in_turns(features, np.array([0, 0, 1, 1, 2, 2]), 5)
    # Ties go to the first row, so each class begins with its first one.
    assert [place for place, _ in chosen] == [0, 2, 4, 3, 5]


# Images


def test_labels_are_balanced_first(folder: Path) -> None:
    labels = [0] * 20 + [1] * 6 + [2] * 4
    chosen = select_diverse(items(folder, labels), graph(), SPEC, 9, pool=4)
    assert Counter(entry.group for entry in chosen) == {0: 3, 1: 3, 2: 3}
    assert all(entry.group == entry.item.label for entry in chosen)


def test_answers_stand_in_for_labels(folder: Path) -> None:
    given_items = items(folder, [None] * 30)
    chosen = select_diverse(given_items, graph("gated", 2), SPEC, 6, pool=5)
    view = ImageView([entry.item for entry in chosen])
    answers = float_answers(graph("gated", 2), next(view.prepared(SPEC).batches(6)))
    assert [entry.group for entry in chosen] == answers.classes.tolist()
    shares = np.exp(answers.logits) / np.exp(answers.logits).sum(axis=1, keepdims=True)
    assert [entry.confidence for entry in chosen] == pytest.approx(shares.max(axis=1).tolist(), rel=1e-4)
    everyone = float_answers(graph("gated", 2), next(ImageView(given_items).prepared(SPEC).batches(30)))
    sizes = Counter(everyone.classes.tolist())
    taken = Counter(entry.group for entry in chosen)
    assert len(sizes) > 1
    assert all(taken[label] >= min(size, max(taken.values()) - 1) for label, size in sizes.items())


def spread(chosen: Sequence[ImageItem]) -> float:
    """Mean distance of an image's map to the nearest other one."""
    maps = float_answers(graph(), next(ImageView(chosen).prepared(SPEC).batches(len(chosen)))).maps[0]
    rows = maps.reshape(len(maps), -1).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-12
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return float(apart.min(axis=1).mean())


def test_maps_differ_more_than_those_of_a_draw(folder: Path) -> None:
    everything = items(folder, [0] * 30)
    diverse = [entry.item for entry in select_diverse(everything, graph(), SPEC, 6, pool=5)]
    draws = [spread(select_balanced(everything, 6, seed)) for seed in range(8)]
    assert spread(diverse) > max(draws)


def test_what_is_told_is_what_was_measured(folder: Path) -> None:
    chosen = select_diverse(items(folder, [0, 1] * 15), graph(), SPEC, 8, pool=3)
    assert [entry.distance is None for entry in chosen] == [True, True] + [False] * 6
    for label in (0, 1):
        mine = [entry for entry in chosen if entry.group == label]
        distances = [entry.distance for entry in mine[1:] if entry.distance is not None]
        assert distances == sorted(distances, reverse=True)
        assert f"{distances[0]:.4f}" in mine[1].why
    assert all(0 < (entry.confidence or 0) <= 1 for entry in chosen)


def test_neither_order_nor_names_of_files_matter(folder: Path) -> None:
    given_items = items(folder, [0, 1, 2] * 10)
    first = select_diverse(given_items, graph(), SPEC, 7, seed=3)
    renamed = [replace(item, name=f"z{number}") for number, item in enumerate(given_items[::-1])]
    second = select_diverse(renamed, graph(), SPEC, 7, seed=3)
    assert [entry.item.digest for entry in first] == [entry.item.digest for entry in second]
    other = select_diverse(given_items, graph(), SPEC, 7, seed=4, pool=2)
    assert {entry.item.digest for entry in first} != {entry.item.digest for entry in other}


def test_no_more_candidates_are_looked_at_than_the_pool_holds(folder: Path) -> None:
    seen: list[int | None] = []

    class Listening(NullObserver):
        def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
            seen.append(total)

    select_diverse(items(folder, [0] * 30), graph(), SPEC, 5, pool=2, observer=Listening())
    assert max(total or 0 for total in seen) == 10


def test_copies_of_a_file_count_once(folder: Path) -> None:
    given_items = items(folder, [0] * 5)
    copies = [replace(item, name=f"copy-{item.name}") for item in given_items]
    chosen = select_diverse([*given_items, *copies], graph(), SPEC, 8)
    assert sorted(entry.item.digest for entry in chosen) == sorted(item.digest for item in given_items)


@pytest.mark.parametrize("count", [0, 30, 99])
def test_where_all_are_taken_nothing_is_computed(folder: Path, count: int) -> None:
    given_items = items(folder, [0, None] * 15)
    # A size that no graph takes: it would be refused if anything ran.
    chosen = select_diverse(given_items, graph(), replace(SPEC, height=8), count, seed=1)
    assert [entry.item for entry in chosen] == list(select_balanced(given_items, 0, seed=1))
    assert {entry.confidence for entry in chosen} == {None}


def test_the_options_decide_how(folder: Path, tmp_path: Path) -> None:
    given_items = items(folder, [0, 1, None] * 10)
    options = CalibrateOptions(images=8)
    # No graph is there, and none is needed for a draw.
    chosen = select_images(given_items, tmp_path / "nothing.onnx", SPEC, options, seed=2)
    assert [entry.item for entry in chosen] == list(select_balanced(given_items, 8, seed=2))
    assert {entry.why for entry in chosen} == {"drawn", "drawn in turn for class 0", "drawn in turn for class 1"}
    file = tmp_path / "fp32.onnx"
    file.write_bytes(GRAPHS["residual"]().SerializeToString())
    diverse = select_images(given_items, file, SPEC, replace(options, selection="diverse", pool=2), seed=2)
    assert diverse == select_diverse(given_items, graph(), SPEC, 8, pool=2, seed=2)


@pytest.mark.parametrize("size", [1, 3])
def test_a_graph_of_one_batch_size_chooses_the_same(folder: Path, size: int) -> None:
    model = GRAPHS["residual"]()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    fixed = parse_graph(model.SerializeToString(), where="test")
    given_items = items(folder, [0, 1] * 10)
    ours, theirs = (select_diverse(given_items, g, SPEC, 5, seed=1) for g in (fixed, graph()))
    assert [entry.item for entry in ours] == [entry.item for entry in theirs]


def large_maps(scale: float = 1.0) -> ExplainedGraph:
    """A map as large as the image, which is shrunk for the comparison where it has more than 16 cells a side."""
    g = GraphBuilder(side=40)
    tap = g.op("Mul", g.relu(g.conv("image", 3, 4)), g.constant(scale))
    g.pooled_head(tap, 4, 3, 1600)
    return parse_graph(g.model().SerializeToString(), where="test")


def test_large_maps_and_tiny_ones_are_compared_by_shape(folder: Path) -> None:
    spec = replace(SPEC, height=40, width=40)
    given_items = items(folder, [0] * 20)
    chosen = [entry.item for entry in select_diverse(given_items, large_maps(), spec, 5)]
    # The weight of the class scales the map: what is compared is its shape.
    tiny = select_diverse(given_items, large_maps(2.0**-60), spec, 5)
    assert len(set(chosen)) == 5
    assert all(np.isfinite(entry.distance or 0.0) for entry in tiny)


def test_maps_of_zeros_are_equal_and_no_error(folder: Path) -> None:
    g = GraphBuilder()
    g.pooled_head(g.op("Mul", g.relu(g.conv("image", 3, 4)), g.constant(0.0)), 4, 3, 256)
    dead = parse_graph(g.model().SerializeToString(), where="test")
    chosen = select_diverse(items(folder, [None] * 20), dead, SPEC, 5)
    assert len({entry.item.digest for entry in chosen}) == 5
    assert [entry.distance for entry in chosen] == [None, 0.0, 0.0, 0.0, 0.0]


def test_images_of_another_size_are_refused(folder: Path) -> None:
    with pytest.raises(BadInputError, match="size is not that of the graph"):
        select_diverse(items(folder, [0] * 20), graph(), replace(SPEC, width=8), 4)


def test_answers_that_are_not_finite_are_refused_by_name(folder: Path) -> None:
    with pytest.raises(BadInputError, match="not finite") as raised:
        select_diverse(items(folder, [0] * 20), large_maps(float("inf")), replace(SPEC, height=40, width=40), 4)
    assert ".png" in str(raised.value.where)
