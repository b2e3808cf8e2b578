"""Reading what TensorRT tells of an engine, in the spellings that its versions have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorrt_stand_ins import quantised_graph

from edgekit.engines.tensorrt.inspection import EngineLayers, read_layers
from edgekit.engines.tensorrt.onnx_outline import OnnxOutline, read_outline
from edgekit.errors import UnavailableError

OUTLINE: OnnxOutline = read_outline(quantised_graph().SerializeToString(), "x")


def layer(name: str, before: str, after: str, kind: str = "CaskConvolution", metadata: str = "") -> dict[str, Any]:
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "a", "Dimensions": [1, 3, 4, 4], "Format/Datatype": before}],
        "Outputs": [{"Name": "b", "Dimensions": [1, 3, 4, 4], "Format/Datatype": after}],
        "Metadata": metadata,
    }


def read(*layers: Any) -> EngineLayers:
    return read_layers(json.dumps({"Layers": list(layers), "Bindings": []}), OUTLINE)


@pytest.mark.parametrize(
    ("spelling", "precision"),
    [
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Int8 NC/32HW32", "int8"),
        ("Row major linear FP32", "fp32"),
        ("Float(48,16,4,1)", "fp32"),
        ("Row major linear FP16 format", "fp16"),
        ("Half(48,16,4,1)", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("BFloat16", "bf16"),
        ("Row major linear BF16", "bf16"),
        ("FP8 NC/32HW32", "fp8"),
        ("Row major Int32 format", "other"),
        ("", "untold"),
    ],
)
def test_types_are_recognised_in_every_spelling(spelling: str, precision: str) -> None:
    assert dict(read(layer("x", spelling, spelling)).by_precision) == {precision: 1}


def test_shares_reformats_and_ways_back_to_float_are_counted() -> None:
    found = read(
        layer(
            "Reformatting CopyNode for Input Tensor 0 to conv", "Row major linear FP32", "Int8 NC/32HW32", "Reformat"
        ),
        layer("conv + relu", "Int8 NC/32HW32", "Int8 NC/32HW32"),
        layer("last", "Int8 NC/32HW32", "Row major linear FP16 format"),
        layer("pool", "Row major linear FP16 format", "Row major linear FP16 format", "Reduce"),
        layer("gemm", "Row major linear FP32", "Row major linear FP32", "MatrixMultiply"),
        layer("{ForeignNode[a...b]}", "Int8", "Int8", "DLA"),
    )
    assert (found.count, found.reformats, found.int8_to_float, found.dla) == (6, 1, 1, 1)
    assert dict(found.by_precision) == {"int8": 3, "fp16": 1, "fp32": 1}
    assert found.share("int8") == 0.6
    assert found.to_dict()["shares"] == {"int8": 0.6, "fp16": 0.2, "fp32": 0.2}
    assert found.fell_back == found.unmatched == ()


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("conv", ""),
        ("conv + relu_7", ""),
        ("before + conv", ""),
        ("PWN(conv, add)", ""),
        ("a||conv", ""),
        ("__mye1234", "[ONNX Layer: reduce]\x1e[ONNX Layer: conv]"),
    ],
)
def test_a_quantised_operation_that_fell_back_is_found_in_fusions(name: str, metadata: str) -> None:
    found = read(layer(name, "Row major linear FP16 format", "Row major linear FP16 format", metadata=metadata))
    assert found.fell_back == ("Conv 'conv' of module 'features.0'",)
    assert found.unmatched == ()
    assert read(layer(name, "Int8 NC/32HW32", "Float", metadata=metadata)).fell_back == ()


@pytest.mark.parametrize("layers", [(), (layer("conv2", "Float", "Float"),), (layer("my conv", "Half", "Half"),)])
def test_what_no_layer_holds_is_unmatched_and_not_taken_for_well(layers: tuple[Any, ...]) -> None:
    found = read(*layers)
    assert found.unmatched == ("Conv 'conv' of module 'features.0'",)
    assert found.fell_back == ()


def test_at_low_verbosity_nothing_is_told_and_nothing_claimed() -> None:
    found = read("conv + relu", "Reformatting CopyNode for Input Tensor 0 to conv")
    assert dict(found.by_precision) == {"untold": 1}
    assert found.reformats == 1
    assert found.share("int8") == 0
    assert found.fell_back == found.unmatched == ()


def test_an_engine_without_layers_has_no_shares() -> None:
    assert read().share("int8") == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"Layers": 3}', "null"])
def test_an_answer_that_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(UnavailableError, match="precision is not known"):
        read_layers(text, OUTLINE)


KEYS = ["Name", "LayerType", "Inputs", "Outputs", "Format/Datatype"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=4))
def test_layers_of_any_form_are_counted(layers: list[Any]) -> None:
    found = read(*layers)
    assert found.count == len(layers) == sum(found.by_precision.values()) + found.reformats
