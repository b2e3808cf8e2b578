"""Blame of bundles whose artifacts ONNX Runtime's TensorRT provider compiled: there is no graph to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from blame_bundles import make_bundle
from onnx import TensorProto, helper

from edgekit import api
from edgekit.bundle import layout
from edgekit.bundle.assemble import BundleRequest, bundle
from edgekit.bundle.open import open_bundle
from edgekit.errors import BadInputError


def compiled() -> bytes:
    """What the provider writes: one node that holds an engine."""
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16]),
        helper.make_tensor_value_info("class_index", TensorProto.INT32, ["n"]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5]),
        helper.make_tensor_value_info("attribution", TensorProto.FLOAT, ["n", 4, 4]),
    ]
    names = [[value.name for value in values] for values in (inputs, outputs)]
    node = helper.make_node("EPContext", *names, domain="com.microsoft", embed_mode=1, ep_cache_context=b"engine")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], "g", inputs, outputs), opset_imports=opsets)
    assert isinstance(model, onnx.ModelProto)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize("hops_only", [False, True])
def test_it_is_refused_with_what_to_do(hops_only: bool, tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "plain", fmt="trt-s8s8")
    with open_bundle(made.folder) as opened:
        manifest = opened.manifest
        contents: dict[str, Path | bytes] = {name: opened.path(name) for name in manifest.files}
        contents |= {layout.MODEL: compiled(), layout.REFERENCE: compiled()}
        request = BundleRequest(
            target="cuda",
            engine="ort-tensorrt",
            precision="int8",
            status=manifest.status,
            card=manifest.card,
            map_spec=manifest.map_spec,
            contents=contents,
            lineage=manifest.lineage,
        )
        bundle(replace(request), tmp_path / "compiled")
    with pytest.raises(BadInputError, match="engines that were compiled") as caught:
        api.blame(tmp_path / "compiled", hops_only=hops_only)
    assert "ort-tensorrt" in str(caught.value.found)
    assert "--engine ort-cuda" in str(caught.value.hint)
