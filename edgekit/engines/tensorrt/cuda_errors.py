"""What CUDA says when a call fails, in our words: one table of causes for every package that passes its codes on."""

from __future__ import annotations

from edgekit.errors import UnavailableError

__all__ = ["cuda_error"]

# Part of the driver's text or of the code's name, in lower case, to what a person should do. The first that fits.
_REMEDIES = (
    (
        ("out of memory", "outofmemory", "out_of_memory", "memoryallocation", "error 2"),
        "close other programs, or build with a smaller batch; on a Jetson CPU and GPU share their memory, so the "
        "desktop counts too",
    ),
    (
        ("insufficient driver", "insufficientdriver", "insufficient for", "driver version"),
        "the NVIDIA driver is missing, or older than this CUDA package needs: update the driver (on a Jetson: "
        "JetPack), or install the package for the older CUDA",
    ),
    (
        ("no cuda-capable device", "nodevice", "no_device", "no device"),
        "no NVIDIA GPU is visible: check that the driver is loaded, and, in a container, that it was started with "
        "--runtime nvidia or --gpus all",
    ),
    (
        ("cuinit failed", "initializationerror"),
        "the NVIDIA driver does not start: check that it is loaded, and that this user may open its device files",
    ),
    (
        ("no module named",),
        "python -m pip install cuda-python (JetPack 7, CUDA 12 and 13) or pycuda (JetPack 5 and 6)",
    ),
    (
        ("libcuda", "dlopen", "not found"),
        "the NVIDIA driver is not installed here; on a Jetson it comes with JetPack",
    ),
    (
        ("launch failure", "launchfailure", "launch_failed", "illegal address", "illegaladdress", "illegal memory"),
        "the GPU refused the work and the process cannot go on using it: start again; if it happens again, rebuild the "
        "engine on this device",
    ),
)


def cuda_error(doing: str, found: str) -> UnavailableError:
    """The error for a CUDA call that failed; `doing` completes "CUDA could not ...", `found` is what CUDA said."""
    said = found.lower()
    hint = next((text for signs, text in _REMEDIES if any(sign in said for sign in signs)), None)
    return UnavailableError(f"CUDA could not {doing}.", found=found, hint=hint or "run 'edgekit doctor' on this device")
