"""A network explains images: the function the teacher runs and the exporter traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from edgekit.attribution.spec import MapSpec
from edgekit.teacher.class_choice import chosen_classes, one_hot
from edgekit.teacher.methods.protocol import AttributionMethod
from edgekit.teacher.tap import Tap, as_tap, forward_with_tap, head_from_tap

__all__ = ["IMAGE_TAP", "Differentiate", "Explained", "Explainer", "Head", "explain", "map_spec", "pulled_back"]

Head = Callable[[torch.Tensor], torch.Tensor]
# The "tap" of methods that explain the input itself.
IMAGE_TAP = Tap("image")


@dataclass(frozen=True)
class Explained:
    """An answer and its maps.

    Attributes:
        logits: [N, classes].
        maps: One a tap: [N, h, w] for a `class_index` [N], [N, k, h, w] for one [N, k]; raw: never rescaled, resized
            or clipped beyond the method's own definition.
    """

    logits: torch.Tensor
    maps: tuple[torch.Tensor, ...]

    @property
    def attribution(self) -> torch.Tensor:
        """The maps of the first tap."""
        return self.maps[0]


# From a head and its activation to the logits, and to the gradient of one class a sample, [N, C, h, w] or [N, C, 1, 1].
Differentiate = Callable[[Head, torch.Tensor], tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]]


def pulled_back(head: Head, activation: torch.Tensor) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Logits of a head, and the function from a chosen class, int32 [N], to its gradient: by automatic differentiation.

    A class that is `NO_CLASS` has gradient zero.
    """
    logits: torch.Tensor
    logits, pullback = torch.func.vjp(head, activation)  # type: ignore[misc]  # has_aux is False: two results

    def gradient(chosen: torch.Tensor) -> torch.Tensor:
        (found,) = pullback(one_hot(logits, chosen))
        assert isinstance(found, torch.Tensor)
        return found

    return logits, gradient


@dataclass(frozen=True)
class Explainer:
    """What is explained, and how.

    Attributes:
        method: The attribution method.
        taps: Where maps live, the first one first; ignored by methods that explain the input.
        only_positive: Own answers that are not positive are no classes; see `chosen_classes`.
        differentiate: For each tap, how its gradient is found; empty for automatic differentiation everywhere.
    """

    method: AttributionMethod
    taps: tuple[Tap, ...] = ()
    only_positive: bool = False
    differentiate: tuple[Differentiate, ...] = ()

    def __call__(self, model: nn.Module, images: torch.Tensor, class_index: torch.Tensor) -> Explained:
        """Answer and explain one batch.

        Args:
            model: In evaluation mode.
            images: float [N, 3, H, W], prepared.
            class_index: int32 [N] or [N, k]: the class of each map; see `chosen_classes`.
        """
        ways = self.differentiate or (pulled_back,) * len(self.places)
        maps = []
        logits = None
        for tap, differentiate in zip(self.places, ways, strict=True):
            activation, head = _activation_and_head(model, tap, images)
            logits, gradient = differentiate(head, activation)
            chosen = chosen_classes(logits, class_index, only_positive=self.only_positive)
            if chosen.dim() == 1:
                maps.append(self.method(activation, gradient(chosen)))
            else:
                each = [self.method(activation, gradient(column)) for column in chosen.unbind(dim=1)]
                maps.append(torch.stack(each, dim=1))
        assert logits is not None  # there is at least one place
        return Explained(logits, tuple(maps))

    @property
    def places(self) -> tuple[Tap, ...]:
        """Where maps live: the taps, or the image."""
        return (IMAGE_TAP,) if self.method.domain == "input" else self.taps


def _activation_and_head(model: nn.Module, tap: Tap, images: torch.Tensor) -> tuple[torch.Tensor, Head]:
    if tap is IMAGE_TAP:
        return images, model
    return forward_with_tap(model, tap, images).activation, head_from_tap(model, tap, images)


def explain(
    model: nn.Module,
    tap: Tap | str | Sequence[Tap],
    method: AttributionMethod,
    images: torch.Tensor,
    class_index: torch.Tensor,
) -> Explained:
    """Answer and explain one batch; see `Explainer`.

    Args:
        model: In evaluation mode.
        tap: The tapped module, or several.
        method: The attribution method.
        images: float [N, 3, H, W], prepared.
        class_index: int32 [N] or [N, k]; -1 for the network's own answer.
    """
    taps = (as_tap(tap),) if isinstance(tap, (Tap, str)) else tuple(tap)
    return Explainer(method, taps)(model, images, class_index)


def map_spec(explainer: Explainer, model: nn.Module, images: torch.Tensor, classes: int = 1) -> MapSpec:
    """The specification of an explainer's maps, measured on `images` [N, 3, H, W], for `classes` maps a tap."""
    taps = []
    with torch.no_grad():
        for tap in explainer.places:
            activation, _ = _activation_and_head(model, tap, images)
            taps.append(tap.to_spec(int(activation.shape[2]), int(activation.shape[3])))
    return MapSpec(
        method=explainer.method.name,
        tap=taps[0].tap,
        height=taps[0].height,
        width=taps[0].width,
        nonnegative=explainer.method.nonnegative,
        layout=taps[0].layout,
        prefix_tokens=taps[0].prefix_tokens,
        classes=classes,
        class_choice="positive" if explainer.only_positive else "top",
        further_taps=tuple(taps[1:]),
    )
