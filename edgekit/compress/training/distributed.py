"""Several processes that train one student together: torch's DistributedDataParallel, and what a batch is to each.

Started by `torchrun` or anything that sets the same variables, on one machine or several. Every process takes its share
of every batch, so that together they see the very batch that one process would, and every mean is weighted by images:
loss curve and weights are those of one process, up to the order of sums. What is drawn for a whole batch (order,
flips, thinned channels) is drawn alike everywhere; dropout draws on its own in each, so it is equal in kind alone.

With `batch_norm: batch` statistics would be those of a share, another network: that is refused. torch's SyncBatchNorm
would gather them, but cannot be differentiated twice.

The workplace must be one folder that all processes see; the first alone writes to it. Tested with gloo on CPUs; NCCL
is what GPUs would use, and has not run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from edgekit.compress.training.steps import Step
from edgekit.teacher.tap import Tap

__all__ = ["ALONE", "Processes", "joined"]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: From 0; the process of rank 0 writes and tells.
        size: How many there are.
        device: Where tensors must be to be exchanged.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, count: int) -> tuple[npt.NDArray[np.int64], int]:
        """Positions in a batch of `count` that are this process's, and how many of them count.

        Where there are fewer images than processes, one without an image takes the first and counts none: it has to
        take part in the exchange of gradients.
        """
        positions = np.arange(self.rank, count, self.size)
        return (positions, len(positions)) if len(positions) else (np.zeros(1, dtype=np.int64), 0)

    def wrapped(self, student: nn.Module, probe: torch.Tensor) -> nn.Module:
        """The student as it is called in training, so that gradients are averaged over processes while they are made.

        Args:
            student: In the mode and with the gradients of training.
            probe: Images [n, 3, H, W], which show whether every parameter is used.
        """
        if self.size == 1:
            return student
        on_gpu = probe.device.type == "cuda"
        return DistributedDataParallel(
            student,
            device_ids=[probe.device] if on_gpu else None,
            find_unused_parameters=_has_unused(student, probe),
        )

    def taps(self, taps: tuple[Tap, ...]) -> tuple[Tap, ...]:
        """The taps under the names that they have in `wrapped`."""
        return taps if self.size == 1 else tuple(Tap(f"module.{tap.name}", tap.layout) for tap in taps)

    def weighted(self, loss: torch.Tensor, counted: int, count: int) -> torch.Tensor:
        """The mean over this process's images, such that the mean over processes is that over the batch of `count`."""
        return loss if self.size == 1 else loss * (counted * self.size / count)

    def total(self, step: Step, counted: int) -> Step:
        """The step of the whole batch from that of a share, of which `counted` images count."""
        if self.size == 1:
            return step
        # Counts are sums over the share, the rest means over it.
        names = [field.name for field in fields(Step) if field.name != "images"]
        means = {name for name in names if isinstance(getattr(step, name), float)}
        values = [getattr(step, name) * (counted if name in means else bool(counted)) for name in names]
        summed = torch.tensor([counted, *values], dtype=torch.float64, device=self.device)
        distributed.all_reduce(summed)
        images, *sums = summed.tolist()
        parts = {
            name: value / images if name in means else round(value) for name, value in zip(names, sums, strict=True)
        }
        return Step(images=round(images), **parts)

    def told(self, value: float) -> float:
        """What the first process has, in all of them."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(tensor, src=0)
        return float(tensor)

    def gathered(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Everyone's tensor by rank, on the CPU."""
        if self.size == 1:
            return [tensor]
        own = tensor.to(self.device)
        found = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(found, own)
        return [each.cpu() for each in found]


ALONE = Processes()


def _has_unused(student: nn.Module, probe: torch.Tensor) -> bool:
    """Whether some parameter has no part in the answer: gradients would be waited for in vain."""
    modes = [(module, module.training) for module in student.modules()]
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    try:
        # Not in training mode, where dropout would draw.
        answer = student.eval()(probe).sum()
    finally:
        for module, training in modes:
            module.training = training
    return any(gradient is None for gradient in torch.autograd.grad(answer, parameters, allow_unused=True))


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """The processes that train together: those the caller joined, those that torchrun started, or this one alone.

    Args:
        device: Where the student is; with several GPUs, this process's own.
    """
    own = False
    if not distributed.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        own = True
    try:
        if not distributed.is_initialized():
            yield ALONE
        else:
            exchanged = device if distributed.get_backend() == "nccl" else _CPU
            yield Processes(distributed.get_rank(), distributed.get_world_size(), exchanged)
    finally:
        if own:
            distributed.destroy_process_group()
