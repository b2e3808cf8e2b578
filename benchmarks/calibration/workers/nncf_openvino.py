"""NNCF's post-training quantisation on OpenVINO, and the answers of its model on OpenVINO's processor plugin.

Options: `preset` ("MIXED" or "PERFORMANCE"), `map_in_float`. Bias correction is on, as NNCF has it. See `serving`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino as ov
from serving import Images, serve

_BATCH = 64
_OUTPUTS = ("logits", "attribution")


def _map_only(model: Any) -> list[str]:
    """Names of the operations that the logits do not depend on."""
    pending = [next(result for result in model.get_results() if "logits" in result.input_value(0).get_names())]
    needed = set[str]()
    while pending:
        node = pending.pop()
        if node.get_friendly_name() not in needed:
            needed.add(node.get_friendly_name())
            pending.extend(value.get_node() for value in node.input_values())
    kinds = ("Constant", "Parameter", "Result")
    names = [node.get_friendly_name() for node in model.get_ops() if node.get_type_name() not in kinds]
    return [name for name in names if name not in needed]


def _calibrate(request: dict[str, Any]) -> None:
    options = request["options"]
    model = ov.Core().read_model(request["graph"])
    images = Images(Path(request["images"]), request["count"])
    ignored = nncf.IgnoredScope(names=_map_only(model), validate=False) if options["map_in_float"] else None
    quantised = nncf.quantize(
        model,
        nncf.Dataset(_Items(images)),
        preset=nncf.QuantizationPreset[options["preset"]],
        subset_size=len(images),
        ignored_scope=ignored,
    )
    ov.save_model(quantised, request["output"], compress_to_fp16=False)


class _Items:
    """One image an item, as NNCF's documentation has it, and all of them again at every pass."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Any:
        for item in self._images.batches(1):
            yield {"image": item, "class_index": np.full(1, -1, np.int32)}


def _answer(request: dict[str, Any]) -> None:
    core = ov.Core()
    # Float operations in float32, not in bfloat16, which some processors take unasked.
    compiled = core.compile_model(request["output"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    classes = np.load(request["classes"])
    answered: dict[str, list[Any]] = {}
    start = 0
    for batch in Images(Path(request["evaluation"]), 0).batches(_BATCH):
        asked = classes[start : start + len(batch)]
        for view, class_index in (("asked", asked), ("own", np.full_like(asked, -1))):
            found = compiled({"image": batch, "class_index": class_index})
            for name in _OUTPUTS:
                answered.setdefault(f"{view}/{name}", []).append(np.array(found[name]))
        start += len(batch)
    np.savez(request["answers"], **{name: np.concatenate(parts) for name, parts in answered.items()})


if __name__ == "__main__":
    serve("nncf", _calibrate, _answer)
