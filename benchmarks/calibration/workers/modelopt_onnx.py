"""ModelOpt's post-training quantisation of ONNX graphs: symmetric int8, as TensorRT reads it. See `serving`.

Options: `method` ("max" or "entropy"), `map_in_float`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from modelopt.onnx.quantization import quantize
from serving import Images, map_only_nodes, serve


def _calibrate(request: dict[str, Any]) -> None:
    options = request["options"]
    images = Images(Path(request["images"]), request["count"])
    excluded = map_only_nodes(onnx.load(request["graph"]).graph.node) if options["map_in_float"] else []
    quantize(
        request["graph"],
        quantize_mode="int8",
        # The tool wants the whole set in memory, and cuts it up itself.
        calibration_data={
            "image": np.concatenate(list(images.batches(len(images)))),
            "class_index": np.full(len(images), -1, np.int32),
        },
        calibration_method=options["method"],
        calibration_eps=["cpu"],
        nodes_to_exclude=[f"^{re.escape(name)}$" for name in excluded] or None,
        high_precision_dtype="fp32",
        output_path=request["output"],
        log_level="WARNING",
    )


if __name__ == "__main__":
    serve("nvidia-modelopt", _calibrate)
