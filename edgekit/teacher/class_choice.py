"""Which classes the maps of an image explain, as tensors: the engine's `class_index` input and what it selects."""

from __future__ import annotations

import torch

from edgekit.attribution.spec import NO_CLASS

__all__ = ["chosen_classes", "one_hot", "selected"]


def chosen_classes(logits: torch.Tensor, class_index: torch.Tensor, *, only_positive: bool = False) -> torch.Tensor:
    """The class that each map explains.

    Args:
        logits: [N, classes].
        class_index: int32 [N, k], k at most the number of classes. A negative entry of column j asks for the
            network's own answer of rank j, its top-1 in column 0; `NO_CLASS` asks for none. [N] is one column.
        only_positive: An own answer whose logit is not above zero (its sigmoid not above a half) is none.

    Returns:
        int32, in the shape of `class_index`; `NO_CLASS` where there is none. Of equal logits the first is the better
        answer.
    """
    if class_index.dim() == 1 and not only_positive:
        # The common case, in as few operations as it takes: they are part of every engine.
        return torch.where(class_index < 0, logits.argmax(dim=1).to(torch.int32), class_index)
    asked = class_index if class_index.dim() == 2 else class_index[:, None]
    own = _best_answers(logits, asked.shape[1])
    if only_positive:
        own = torch.where(logits.gather(1, own) > 0, own, NO_CLASS)
    return torch.where(asked < 0, own.to(torch.int32), asked).reshape(class_index.shape)


def _best_answers(logits: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` best answers, int64 [N, count]: found one after the other, which settles ties as argmax does.

    A sort would leave ties to the runtime, and has no exported form that keeps them in order.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    best = [logits.argmax(dim=1, keepdim=True)]
    left = logits
    while len(best) < count:
        left = torch.where(classes[None, :] == best[-1], -torch.inf, left)
        best.append(left.argmax(dim=1, keepdim=True))
    return torch.cat(best, dim=1) if count > 1 else best[0]


def one_hot(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The output gradient that selects one logit a sample, [N, classes] in the dtype of `logits`; zero for `NO_CLASS`.

    Args:
        logits: [N, classes].
        chosen: int32 [N].
    """
    classes = torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device)
    return (classes[None, :] == chosen[:, None]).to(logits.dtype)


def selected(logits: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
    """`one_hot` of the class that each sample's `class_index`, int32 [N], asks for; -1 for the network's own top-1."""
    return one_hot(logits, chosen_classes(logits, class_index))
