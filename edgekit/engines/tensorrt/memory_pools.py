"""How much memory the builder may use.

On a Jetson everything comes out of one pool: weights on the host, weights on the device, scratch memory, the desktop.
TensorRT's own defaults count on having the device to itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.engines.tensorrt.memory import DeviceFacts
from edgekit.errors import UnavailableError

__all__ = ["MemoryPools", "size_pools"]

_MIB = 1 << 20
# CUDA's own context and kernels, as far as they are loaded later.
_RESERVED = 256 * _MIB
_SMALLEST = 64 * _MIB
_DISCRETE_SHARE = 0.8


@dataclass(frozen=True)
class MemoryPools:
    """Limits in bytes.

    Attributes:
        free: What was free when they were set.
        workspace: Scratch memory of any one layer, at build and at run time.
        tactic_dram: What kernels may take while they are tried; None leaves TensorRT's default.
    """

    free: int
    workspace: int
    tactic_dram: int | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))


def size_pools(
    device: DeviceFacts, device_free: int, host_free: int | None, model: int, workspace: int, *, tactic_dram: int = 0
) -> MemoryPools:
    """Choose limits.

    Args:
        device: The GPU.
        device_free: Bytes that CUDA calls free.
        host_free: Bytes that the system could give without swapping; None where it does not tell.
        model: Bytes of the ONNX file: the builder holds the weights several times.
        workspace: Workspace that the user wants; 0 for a share.
        tactic_dram: What the user allows kernels that are tried; 0 for what is free where memory is shared, and
            TensorRT's default elsewhere.

    Raises:
        UnavailableError: Too little is free to build at all.
    """
    free = device_free
    if device.integrated and host_free is not None:
        free = min(free, host_free)
    # Two copies of the weights on the host, one on the device; on a discrete GPU only the last counts.
    usable = free - _RESERVED - model * (3 if device.integrated else 1)
    if usable < max(_SMALLEST, workspace):
        raise UnavailableError(
            "There is too little free memory to build an engine.",
            expected=f"{_RESERVED // _MIB + max(_SMALLEST, workspace) // _MIB} MiB and room for the weights",
            found=f"{free // _MIB} MiB free, {usable // _MIB} MiB of it usable",
            hint="close other programs; on a Jetson stop the desktop (sudo systemctl isolate multi-user.target), "
            "and ask for a smaller workspace",
        )
    if device.integrated:
        return MemoryPools(free, workspace or usable // 2, tactic_dram or usable)
    return MemoryPools(free, workspace or int(usable * _DISCRETE_SHARE), tactic_dram or None)
