"""What maps score that hold nothing of the teacher's: without these a correlation of 0.9 cannot be read.

"retrained": the same teacher from the next seed. "random": the architecture with random weights. "centre": the map of
somebody who has not seen the image. "permuted": the teacher's own maps, each given to another pair of the same class.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgekit.metrics.localisation import centre_prior
from paper.compared import prepared, torch_compared
from paper.context import Setting
from paper.evaluation import Columns, Questions, agreement_columns, localisation_columns

__all__ = ["FLOORS", "measure_floors", "permuted"]

FLOORS = ("retrained", "random", "centre", "permuted")

_Maps = Mapping[str, npt.NDArray[np.float32]]


def measure_floors(seed: int, setting: Setting, own: _Maps, other: _Maps, device: str) -> Columns:
    """Every floor of one teacher.

    Args:
        seed: Of the random weights and the permutation.
        setting: Data and network.
        own: The teacher's maps.
        other: Those of the teacher of the next seed.
        device: Where the random network runs.

    Returns:
        "<floor>/<method>/pixel-auc", "<floor>/<method>/agreement/cosine" and so on to one value a pair.
    """
    asked, network = setting.asked, setting.network
    random = torch_compared(network.random(len(setting.card.classes), 2000 + seed).to(device), network.matched)
    pictured = prepared(asked.images.pixels[[image for image, _ in asked.pairs]], asked.spec, device)
    classes = np.array([kind for _, kind in asked.pairs])
    of_random = {"grad-cam": random.maps(pictured, classes)}
    if asked.relevance:
        few = slice(asked.relevance)
        of_random |= random.relevance(pictured[few], classes[few], asked.spec, asked.tap)
    columns: Columns = {}
    for method, reference in own.items():
        maps = {
            "retrained": other[method],
            "random": of_random[method],
            "centre": np.broadcast_to(centre_prior(*reference.shape[1:]), reference.shape).astype(np.float32),
            "permuted": reference[permuted(classes[: len(reference)], seed)],
        }
        for floor, found in maps.items():
            columns |= _scored(f"{floor}/{method}", reference, found, asked)
    return columns


def permuted(classes: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """For each pair another one of its class, each used once; itself where it is the only one."""
    generator = np.random.default_rng(seed)
    result = np.arange(len(classes))
    for kind in np.unique(classes):
        members = generator.permutation(np.flatnonzero(classes == kind))
        result[members] = np.roll(members, 1)
    return result


def _scored(
    prefix: str, reference: npt.NDArray[np.float32], maps: npt.NDArray[np.float32], asked: Questions
) -> Columns:
    found = {
        **localisation_columns(maps, asked),
        **{f"agreement/{name}": values for name, values in agreement_columns(reference, maps).items()},
    }
    missing = len(asked.pairs) - len(maps)
    return {f"{prefix}/{name}": np.pad(v, (0, missing), constant_values=np.nan) for name, v in found.items()}
