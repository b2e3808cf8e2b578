"""How good the answers are: accuracy, class-wise mean average precision, F1, and the released code's two numbers.

`released_map` and `released_f1` are what the released code prints as "mAP" and "F1". They are no VOC scores: the first
ranks the classes of an image and not the images of a class, the second asks for a logit above 0.5, a probability of
0.62. They are here so that its numbers can be read, and are labelled wherever they are shown.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Answers", "average_precision", "score_answers"]

_Floats = npt.NDArray[np.floating]
_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """Scores of the answers to one set of images, each from 0 to 1.

    Attributes:
        images: How many.
        accuracy: Share of images whose highest answer is one of their classes.
        class_map: Mean over classes of the average precision with which the class's images are ranked.
        macro_f1: Mean over classes of F1; a softmax network says its highest class, others every logit above 0.
        released_map: Mean over images of the average precision with which the image's classes are ranked.
        released_f1: Mean over images of F1 with every class said whose logit is above 0.5.
    """

    images: int
    accuracy: float
    class_map: float
    macro_f1: float
    released_map: float
    released_f1: float

    def to_dict(self) -> dict[str, float]:
        """JSON-ready form."""
        return asdict(self)


def score_answers(logits: _Floats, positive: _Bools, *, softmax: bool) -> Answers:
    """Score logits [N, K] against the classes that are in each image, bool [N, K].

    Classes without an image, and images without a class, are left out of the means over them.

    Args:
        logits: As the network gives them.
        positive: What is true.
        softmax: Whether the network answers with one class. Images are then ranked by its probability, since logits
            of different images are not on one scale.
    """
    wide = logits.astype(np.float64)
    top = wide.argmax(axis=1)
    ranked = _softmax(wide) if softmax else wide
    said = np.eye(wide.shape[1], dtype=np.bool_)[top] if softmax else wide > 0
    with_class, with_image = positive.any(axis=1), positive.any(axis=0)
    return Answers(
        images=len(wide),
        accuracy=float(positive[np.arange(len(wide)), top].mean()),
        class_map=_mean_precision(ranked.T[with_image], positive.T[with_image]),
        macro_f1=float(_f1(said.T[with_image], positive.T[with_image]).mean()),
        released_map=_mean_precision(wide[with_class], positive[with_class]),
        released_f1=float(_f1(wide[with_class] > 0.5, positive[with_class]).mean()),
    )


def average_precision(scores: _Floats, positive: _Bools) -> float:
    """`sum_n (R_n - R_{n-1}) P_n` over the distinct scores, highest first; not interpolated. NaN without a positive.

    Args:
        scores: [N].
        positive: bool [N].
    """
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    # Equal scores are one threshold: nothing says which comes first.
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision = hits[last] / (last + 1)
    gained = np.diff(np.append(0, hits[last]))
    return float((gained * precision).sum() / hits[-1])


def _mean_precision(scores: _Floats, positive: _Bools) -> float:
    return float(np.mean([average_precision(*row) for row in zip(scores, positive, strict=True)]))


def _f1(said: _Bools, positive: _Bools) -> npt.NDArray[np.float64]:
    """F1 of every row, 0 where nothing was said that is true."""
    both = (said & positive).sum(axis=1)
    result: npt.NDArray[np.float64] = 2 * both / np.maximum(said.sum(axis=1) + positive.sum(axis=1), 1)
    return result


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: npt.NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return result
