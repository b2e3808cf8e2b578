"""edgekit's own calibrators, as a user gets them: the one worker that imports edgekit. See `serving`.

Options: `method`, `number_format`, `digests` (of the images) and `card` (of the network, for its input).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from serving import Images, serve

from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import read_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.qdq import serialise
from edgekit.calibrate.stage import quantise_graph
from edgekit.interface.card import ModelCard


class _Calibrating:
    """The images with their digests."""

    def __init__(self, images: Images, digests: list[str]) -> None:
        self._images = images
        self.digests = tuple(digests[: len(images)])

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        return self._images.batches(batch_size)


def _calibrate(request: dict[str, Any]) -> dict[str, Any]:
    told = request["options"]
    images = _Calibrating(Images(Path(request["images"]), request["count"]), told["digests"])
    result = quantise_graph(
        read_graph(Path(request["graph"])),
        images,
        number_format(told["number_format"]),
        CalibrateOptions(method=told["method"], images=0, **told.get("parameters", {})),
        input_spec=ModelCard.from_dict(told["card"]).input,
    )
    Path(request["output"]).write_bytes(serialise(result.model))
    return {"facts": dict(result.solution.facts)}


if __name__ == "__main__":
    serve("edgekit", _calibrate)
