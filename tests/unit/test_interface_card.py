"""The model card: what is accepted, what is refused and by which name."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.errors import BadInputError
from edgekit.interface.card import InputSpec, ModelCard

SPEC = {
    "height": 32,
    "width": 48,
    "channel_order": "BGR",
    "divisor": 1.0,
    "mean": [1.0, 2.0, 3.0],
    "std": [0.5, 1.0, 2.0],
}
CARD = {"input": SPEC, "classes": ["cat", "dog"], "task": "multi-label", "tap": "features.3"}

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
cards = st.builds(
    ModelCard,
    input=st.builds(
        InputSpec,
        height=st.integers(1, 8192),
        width=st.integers(1, 8192),
        channel_order=st.sampled_from(["RGB", "BGR"]),
        divisor=positive,
        mean=st.tuples(finite, finite, finite),
        std=st.tuples(positive, positive, positive),
    ),
    classes=st.lists(names, min_size=2, max_size=4, unique=True).map(tuple),
    task=st.sampled_from(["softmax", "multi-label"]),
    tap=st.none() | names,
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(cards)
def test_a_card_survives_being_stored(card: ModelCard) -> None:
    stored = parse_strict(dump_canonical(card.to_dict()), where="card")
    assert ModelCard.from_dict(stored) == card
    assert hash(ModelCard.from_dict(stored)) == hash(card)


def test_a_card_in_full() -> None:
    card = ModelCard.from_dict(CARD)
    assert card.input == InputSpec(32, 48, "BGR", 1.0, (1.0, 2.0, 3.0), (0.5, 1.0, 2.0))
    assert card.input.shape == (3, 32, 48)
    assert card.classes == ("cat", "dog")
    assert (card.task, card.tap) == ("multi-label", "features.3")


def test_what_need_not_be_said() -> None:
    card = ModelCard.from_dict({"input": {"height": 8, "width": 9}, "classes": ("a", "b")})
    assert card.input == InputSpec(8, 9, "RGB", 255.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert (card.task, card.tap) == ("softmax", None)


def with_input(**changes: Any) -> dict[str, Any]:
    return {**CARD, "input": {**SPEC, **changes}}


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in CARD.items() if key not in keys}


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (None, "mapping"),
        ([], "mapping"),
        ({}, "height"),
        (without("input"), "height"),
        ({**CARD, "input": 32}, "height"),
        ({**CARD, "clases": []}, "clases"),
        (with_input(heigth=3), "heigth"),
        ({**CARD, 7: 1}, "7"),
        ({"input": {"width": 3}, "classes": ["a", "b"]}, "height"),
        (with_input(height="32"), "height"),
        (with_input(width=32.0), "width"),
        (with_input(width=True), "width"),
        (with_input(height=0), "0 x 48"),
        (with_input(height=8193), "8193"),
        (with_input(width=-1), "-1"),
        (with_input(channel_order="rgb"), "rgb"),
        (with_input(channel_order=None), "None"),
        (with_input(mean=[0, 0]), "2 and 3"),
        (with_input(std=[1]), "3 and 1"),
        (with_input(mean="abc"), "could not convert"),
        (with_input(mean=None), "not iterable"),
        (with_input(std=[1, 1, 0]), "positive"),
        (with_input(std=[1, 1, -1]), "positive"),
        (with_input(divisor=0), "positive"),
        (with_input(divisor=-255), "positive"),
        (with_input(divisor=math.nan), "finite"),
        (with_input(divisor="255"), "card cannot be read"),
        (with_input(mean=[0, math.inf, 0]), "finite"),
        (with_input(std=[1, math.nan, 1]), "finite"),
        (without("classes"), "two different names"),
        ({**CARD, "classes": []}, "two different names"),
        ({**CARD, "classes": ["cat"]}, "two different names"),
        ({**CARD, "classes": ["cat", "cat"]}, "two different names"),
        ({**CARD, "classes": "cat"}, "list of names"),
        ({**CARD, "classes": ["cat", ""]}, "non-empty"),
        ({**CARD, "classes": [1, 2]}, "non-empty"),
        ({**CARD, "classes": [["a"], ["b"]]}, "card cannot be read"),
        ({**CARD, "classes": 5}, "card cannot be read"),
        ({**CARD, "task": "regression"}, "regression"),
        ({**CARD, "task": None}, "None"),
        ({**CARD, "tap": 3}, "3"),
        ({**CARD, "tap": ""}, "name of a module"),
        ({**CARD, "tap": ["layer4"]}, "layer4"),
    ],
)
def test_a_card_that_cannot_be_used(raw: Any, named: str) -> None:
    with pytest.raises(BadInputError) as caught:
        ModelCard.from_dict(raw, where="card of m.pt")
    assert named in str(caught.value)


def test_an_unknown_key_lists_the_known() -> None:
    with pytest.raises(BadInputError) as caught:
        ModelCard.from_dict({**CARD, "labels": []}, where="card of m.pt")
    assert caught.value.where == "card of m.pt"
    assert caught.value.found == "labels"
    assert caught.value.expected == "input, classes, task, tap, further_taps"


def test_the_stored_form_shares_nothing_with_the_card() -> None:
    card = ModelCard.from_dict(CARD)
    raw = card.to_dict()
    raw["input"]["mean"][0] = 99.0
    raw["classes"].append("owl")
    assert card == ModelCard.from_dict(CARD)


def test_reading_leaves_the_input_alone() -> None:
    raw = {"input": dict(SPEC), "classes": ["cat", "dog"]}
    ModelCard.from_dict(raw)
    assert raw == {"input": SPEC, "classes": ["cat", "dog"]}
