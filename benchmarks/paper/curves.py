"""Deletion and insertion (Petsiuk, Das, Saenko, "RISE", BMVC 2018), on the network itself.

Deletion takes the pixels away that a map ranks highest, a share at a time, and follows the probability of the
explained class: the faster it falls, the more of the reason was in the map. Insertion brings them back into a blurred
image: the faster it rises, the better. Both are the area under the curve over the share of pixels, from 0 to 1.

Taken away is: set to the mean of the normalisation (0 in the network's input), as in RISE's code. Blurred is: a
Gaussian of 5 pixels in a window of 11, as there at 224 pixels; smaller images are blurred more by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

__all__ = ["Curves", "blurred", "faithfulness"]

_BLUR_SIGMA, _BLUR_WINDOW = 5.0, 11
_BATCH = 64


@dataclass(frozen=True)
class Curves:
    """Curves of one network's maps.

    Attributes:
        deletion: Probability of the explained class, float64 [N, steps + 1], from the whole image to none of it.
        insertion: The same from the blurred image to the whole one.
    """

    deletion: npt.NDArray[np.float64]
    insertion: npt.NDArray[np.float64]

    @property
    def deletion_area(self) -> npt.NDArray[np.float64]:
        """[N], by the trapezoid rule; lower is better."""
        return _area(self.deletion)

    @property
    def insertion_area(self) -> npt.NDArray[np.float64]:
        """[N]; higher is better."""
        return _area(self.insertion)


def _area(curves: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    area: npt.NDArray[np.float64] = ((curves[:, 1:] + curves[:, :-1]) / 2).mean(axis=1)
    return area


def faithfulness(
    model: nn.Module,
    images: torch.Tensor,
    maps: npt.NDArray[np.floating],
    classes: npt.NDArray[np.int64],
    *,
    steps: int,
    softmax: bool = True,
) -> Curves:
    """Both curves of every image.

    Args:
        model: In evaluation mode.
        images: Prepared, float [N, 3, H, W].
        maps: [N, H, W]; of equal pixels the one that is read first goes first, as in RISE's code.
        classes: The explained class of each image.
        steps: In how many equal steps all pixels go; the last one takes what is left by rounding.
        softmax: Whether the probability is over all classes, or a sigmoid of the class's own.
    """
    count, _, height, width = images.shape
    order = np.argsort(-maps.reshape(count, -1), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(height * width)[None].repeat(count, axis=0), axis=1)
    ranks = torch.from_numpy(rank.reshape(count, 1, height, width)).to(images.device)
    chosen = torch.from_numpy(classes).to(images.device)
    whole, none, blur = images, torch.zeros_like(images), blurred(images)
    deletion, insertion = [], []
    for step in range(steps + 1):
        gone = ranks < round(step * height * width / steps)
        deletion.append(_probability(model, torch.where(gone, none, whole), chosen, softmax=softmax))
        insertion.append(_probability(model, torch.where(gone, whole, blur), chosen, softmax=softmax))
    return Curves(np.stack(deletion, axis=1), np.stack(insertion, axis=1))


def _probability(
    model: nn.Module, images: torch.Tensor, classes: torch.Tensor, *, softmax: bool
) -> npt.NDArray[np.float64]:
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(_BATCH)]).double()
    probabilities = logits.softmax(dim=1) if softmax else logits.sigmoid()
    return probabilities.gather(1, classes[:, None])[:, 0].cpu().numpy()


def blurred(images: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] under a Gaussian, zeros outside the image."""
    offsets = torch.arange(_BLUR_WINDOW, dtype=images.dtype, device=images.device) - _BLUR_WINDOW // 2
    line = torch.exp(-(offsets**2) / (2 * _BLUR_SIGMA**2))
    line = line / line.sum()
    channels, pad = images.shape[1], _BLUR_WINDOW // 2
    down = functional.conv2d(
        images, line.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), padding=(pad, 0), groups=channels
    )
    return functional.conv2d(down, line.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), padding=(0, pad), groups=channels)
