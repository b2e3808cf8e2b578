"""Half precision where it is safe: in the networks' forward passes, and nowhere in the loss.

Convolutions and products run in the half type by `torch.autocast`; weights, their gradients' sums and the optimiser
stay in float32. Logits are brought back to float32 before any loss, and the activation at a tap before the map is made
of it: a sensitivity is the gradient with respect to that float32 tensor, its sum over the map and the map's norm are
sums of many small numbers, which underflow or lose their digits in half.

Float16 needs its gradients scaled (`edgekit.compress.training.optimiser`). It has been tested on no GPU yet, since
none was at hand; bfloat16 has been tested on CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import nn

from edgekit.errors import BadInputError, UnavailableError
from edgekit.teacher.tap import Tap, find_module

__all__ = ["half_forward", "half_type", "in_float32_at"]


def half_type(option: str, device: torch.device) -> torch.dtype | None:
    """The type that `finetune.mixed_precision` means on a device; None for float32 throughout.

    Raises:
        BadInputError: float16 on something other than a GPU.
        UnavailableError: bfloat16 on a GPU that has none.
    """
    if option == "auto":
        return torch.float16 if device.type == "cuda" else None
    if option == "float16":
        if device.type != "cuda":
            raise BadInputError(
                "Training in float16 needs a GPU.",
                where="compress.finetune.mixed_precision",
                expected="auto, off or bfloat16 on this device",
                found=f"float16 on {device.type}",
            )
        return torch.float16
    if option == "bfloat16":
        if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UnavailableError(
                "This GPU does not compute in bfloat16.",
                where="compress.finetune.mixed_precision",
                hint="set it to float16 or off",
            )
        return torch.bfloat16
    return None


def half_forward(half: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass; the loss is computed outside of it."""
    return nullcontext() if half is None else torch.autocast(device.type, dtype=half)


@contextmanager
def in_float32_at(model: nn.Module, taps: Sequence[Tap], half: torch.dtype | None) -> Iterator[None]:
    """Let the tapped modules put out float32; what follows them is cast again by autocast, operation by operation.

    Entered before other hooks on the taps, so that these see the float32 tensor: only then is it part of the graph
    between the tap and the answer, and has a gradient of its own type.
    """

    def hook(_module: nn.Module, _inputs: object, output: object) -> object:
        return output.float() if isinstance(output, torch.Tensor) and output.is_floating_point() else output

    with ExitStack() as hooks:
        for tap in taps if half is not None else ():
            handle = find_module(model, tap.name).register_forward_hook(hook)
            hooks.callback(handle.remove)
        yield
