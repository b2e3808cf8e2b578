"""The record of a pruning: hostile input, and every kind of layer against slicing by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.errors import BadInputError
from edgekit.teacher.surgery import LayerCut, Surgery, apply_surgery, channel_counts


def record(layers: Any, form: Any = "edgekit.surgery/1") -> dict[str, Any]:
    return {"format": form, "layers": layers}


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        {"layers": {}},
        record({}, "edgekit.surgery/2"),
        {**record({}), "extra": 1},
        record([]),
        record({"a": None}),
        record({"a": {"out": [0]}}),
        record({"a": {"out": [0], "in": None, "more": 1}}),
        record({3: {"out": [0], "in": None}}),
        record({"a": {"out": [], "in": None}}),
        record({"a": {"out": [1, 0], "in": None}}),
        record({"a": {"out": [0, 0], "in": None}}),
        record({"a": {"out": [-1, 0], "in": None}}),
        record({"a": {"out": [True], "in": None}}),
        record({"a": {"out": [0.0], "in": None}}),
        record({"a": {"out": ["0"], "in": None}}),
        record({"a": {"out": "01", "in": None}}),
        record({"a": {"out": None, "in": {"0": 1}}}),
        record({"a": {"out": torch.tensor([0, 1]), "in": None}}),
    ],
)
def test_malformed_records_are_refused(raw: object) -> None:
    with pytest.raises(BadInputError) as caught:
        Surgery.from_dict(raw, where="student.pt")
    assert "student.pt" in (caught.value.where or "")


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("conv", LayerCut(out_kept=(0, 4))),
        ("conv", LayerCut(in_kept=(0, 3))),
        ("conv", LayerCut(out_kept=())),
        ("missing", LayerCut(out_kept=(0,))),
        ("conv.weight", LayerCut(out_kept=(0,))),
        ("", LayerCut(out_kept=(0,))),
        ("relu", LayerCut(out_kept=(0,))),
        ("norm", LayerCut(in_kept=(0,))),
        ("norm", LayerCut(out_kept=(0, 10**30))),
        ("grouped", LayerCut(out_kept=(0, 1, 2), in_kept=(0, 1, 2, 3))),
        ("grouped", LayerCut(out_kept=(0, 1))),
        ("grouped", LayerCut(in_kept=(0, 1, 2))),
    ],
)
def test_cuts_that_do_not_fit_are_refused_and_change_nothing(name: str, cut: LayerCut) -> None:
    model = nn.Sequential()
    model.add_module("first", nn.Linear(4, 4))
    model.add_module("conv", nn.Conv2d(3, 4, 1))
    model.add_module("norm", nn.BatchNorm2d(4))
    model.add_module("relu", nn.ReLU())
    model.add_module("grouped", nn.Conv2d(4, 4, 1, groups=2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(BadInputError):
        apply_surgery(model, Surgery({"first": LayerCut(out_kept=(0,)), name: cut}))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@st.composite
def kept_of(draw: st.DrawFn, count: int) -> tuple[int, ...] | None:
    kept = draw(st.none() | st.sets(st.integers(0, count - 1), min_size=1))
    return None if kept is None else tuple(sorted(kept))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["conv", "transposed", "linear"]), bias=st.booleans())
def test_a_cut_layer_computes_what_slicing_says(data: st.DataObject, kind: str, bias: bool) -> None:
    layer: nn.Module = {
        "conv": lambda: nn.Conv2d(5, 7, 3, padding=1, bias=bias),
        "transposed": lambda: nn.ConvTranspose2d(5, 7, 3, bias=bias),
        "linear": lambda: nn.Linear(5, 7, bias=bias),
    }[kind]()
    cut = LayerCut(out_kept=data.draw(kept_of(7)), in_kept=data.draw(kept_of(5)))
    rows = list(range(7)) if cut.out_kept is None else list(cut.out_kept)
    columns = list(range(5)) if cut.in_kept is None else list(cut.in_kept)
    x = torch.randn(2, 5) if kind == "linear" else torch.randn(2, 5, 6, 6)
    silent = torch.zeros_like(x)
    silent[:, columns] = x[:, columns]
    with torch.no_grad():
        expected = layer(silent)[:, rows]
        model = nn.Sequential(layer)
        apply_surgery(model, Surgery({"0": cut}))
        torch.testing.assert_close(model(x[:, columns]), expected, rtol=1e-5, atol=1e-5)
    assert channel_counts(layer) == (len(rows), len(columns))
    assert all(parameter.requires_grad for parameter in layer.parameters())


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    groups=st.integers(1, 4),
    each_in=st.integers(1, 3),
    each_out=st.integers(1, 3),
    transposed=st.booleans(),
)
def test_a_cut_grouped_convolution_keeps_its_groups_apart(
    data: st.DataObject, groups: int, each_in: int, each_out: int, transposed: bool
) -> None:
    """Any surviving groups, and any equal number of inputs and outputs in each of them."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(groups * each_in, groups * each_out, 3, groups=groups)
    survivors = sorted(data.draw(st.sets(st.integers(0, groups - 1), min_size=1)))
    sizes = {"in": data.draw(st.integers(1, each_in)), "out": data.draw(st.integers(1, each_out))}
    kept: dict[str, list[int]] = {"in": [], "out": []}
    for group in survivors:
        for side, each in (("in", each_in), ("out", each_out)):
            chosen = data.draw(st.permutations(range(each)))[: sizes[side]]
            kept[side] += sorted(group * each + index for index in chosen)
    x = torch.randn(2, groups * each_in, 6, 6)
    silent = torch.zeros_like(x)
    silent[:, kept["in"]] = x[:, kept["in"]]
    with torch.no_grad():
        expected = layer(silent)[:, kept["out"]]
        model = nn.Sequential(layer)
        apply_surgery(model, Surgery({"0": LayerCut(out_kept=tuple(kept["out"]), in_kept=tuple(kept["in"]))}))
        torch.testing.assert_close(model(x[:, kept["in"]]), expected, rtol=1e-5, atol=1e-5)
    assert (layer.groups, layer.in_channels, layer.out_channels) == (
        len(survivors),
        len(kept["in"]),
        len(kept["out"]),
    )


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_is_cut_with_its_statistics(affine: bool) -> None:
    norm = nn.BatchNorm2d(6, affine=affine)
    norm.running_mean, norm.running_var = torch.randn(6), torch.rand(6) + 0.5
    norm.eval()
    x, kept = torch.randn(2, 6, 3, 3), [0, 3, 5]
    expected = norm(x)[:, kept]
    apply_surgery(nn.Sequential(norm), Surgery({"0": LayerCut(out_kept=tuple(kept))}))
    assert torch.equal(norm(x[:, kept]), expected)
    assert norm.num_features == 3


def test_a_fixed_weight_stays_a_buffer_that_is_not_stored() -> None:
    conv = nn.Conv2d(3, 4, 1, bias=False).requires_grad_(False)
    weight = conv.weight.detach().clone()
    del conv.weight
    conv.register_buffer("weight", weight, persistent=False)
    model = nn.Sequential(conv)
    apply_surgery(model, Surgery({"0": LayerCut(out_kept=(1, 2), in_kept=(0, 2))}))
    assert torch.equal(conv.weight, weight[[1, 2]][:, [0, 2]])
    assert not list(model.parameters())
    assert not model.state_dict()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_surgery_after_surgery_equals_both_in_turn(data: st.DataObject) -> None:
    first = LayerCut(out_kept=data.draw(kept_of(8)), in_kept=data.draw(kept_of(6)))
    second = LayerCut(
        out_kept=data.draw(kept_of(len(first.out_kept or range(8)))),
        in_kept=data.draw(kept_of(len(first.in_kept or range(6)))),
    )
    in_turn = nn.Sequential(nn.Linear(6, 8), nn.Linear(2, 2))
    at_once = nn.Sequential(nn.Linear(6, 8), nn.Linear(2, 2))
    at_once.load_state_dict(in_turn.state_dict())
    other = Surgery({"1": LayerCut(out_kept=(1,))})
    for surgery in (Surgery({"0": first, **other.layers}), Surgery({"0": second})):
        apply_surgery(in_turn, surgery)
    apply_surgery(at_once, Surgery({"0": second}).after(Surgery({"0": first, **other.layers})))
    for name, value in in_turn.state_dict().items():
        assert torch.equal(value, at_once.state_dict()[name])


def test_surgery_cannot_follow_one_that_removed_its_channels() -> None:
    with pytest.raises(BadInputError, match="do not follow each other"):
        Surgery({"a": LayerCut(out_kept=(0, 5))}).after(Surgery({"a": LayerCut(out_kept=(1, 2))}))


def test_record_survives_json_and_a_weights_only_file(tmp_path: Any) -> None:
    surgery = Surgery({"b": LayerCut((0, 2), None), "a.0": LayerCut(None, (1,)), "c": LayerCut((3,), (0, 1, 2))})
    through_json = parse_strict(dump_canonical(surgery.to_dict()), where="test")
    assert Surgery.from_dict(through_json, where="test") == surgery
    torch.save(surgery.to_dict(), tmp_path / "surgery.pt")
    stored = torch.load(tmp_path / "surgery.pt", weights_only=True)
    assert Surgery.from_dict(stored, where="test") == surgery
