"""ONNX Runtime's own `quantize_static`, in the settings its documentation has for x86. See `serving`.

Options: `method` ("MinMax", "Entropy" or "Percentile"), `map_in_float`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from serving import Images, map_only_nodes, serve

_BATCH = 16


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Images) -> None:
        self._batches = images.batches(_BATCH)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch, "class_index": np.full(len(batch), -1, np.int32)}


def _calibrate(request: dict[str, Any]) -> None:
    options = request["options"]
    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary) / "prepared.onnx"
        quant_pre_process(request["graph"], prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        quantize_static(
            prepared,
            request["output"],
            _Reader(Images(Path(request["images"]), request["count"])),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[options["method"]],
            nodes_to_exclude=map_only_nodes(nodes) if options["map_in_float"] else [],
        )


if __name__ == "__main__":
    serve("onnxruntime", _calibrate)
