"""What CUDA says when a call fails, in our words: one table of causes for every package that passes its codes on."""

from __future__ import annotations

from edgekit.errors import UnavailableError

__all__ = ["cuda_error"]

# Part of the driver's text or of the code's name, in lower case, to what the call needed, and what a person
# should do. The first that fits.
_REMEDIES = (
    (
        ("out of memory", "outofmemory", "out_of_memory", "memoryallocation", "error 2"),
        "that much free device memory",
        "close other programs, or build with a smaller batch; on a Jetson CPU and GPU share their memory, so the "
        "desktop counts too",
    ),
    (
        ("insufficient driver", "insufficientdriver", "insufficient for", "driver version"),
        "an NVIDIA driver that is as new as the CUDA of the package",
        "the NVIDIA driver is missing, or older than this CUDA package needs: update the driver (on a Jetson: "
        "JetPack), or install the package for the older CUDA",
    ),
    (
        ("no cuda-capable device", "nodevice", "no_device", "no device"),
        "an NVIDIA GPU that this process can see",
        "no NVIDIA GPU is visible: check that the driver is loaded, and, in a container, that it was started with "
        "--runtime nvidia or --gpus all",
    ),
    (
        ("cuinit failed", "initializationerror"),
        "an NVIDIA driver that starts",
        "check that the driver is loaded, that it is as new as this CUDA package needs (on a Jetson: JetPack), and "
        "that this user may open its device files",
    ),
    (
        ("no module named",),
        "a Python package that reaches CUDA",
        "python -m pip install cuda-python (JetPack 7, CUDA 12 and 13) or pycuda (JetPack 5 and 6)",
    ),
    (
        ("libcuda", "dlopen", "not found"),
        "the library of the NVIDIA driver",
        "the NVIDIA driver is not installed here; on a Jetson it comes with JetPack",
    ),
    (
        ("launch failure", "launchfailure", "launch_failed", "illegal address", "illegaladdress", "illegal memory"),
        "work that the GPU can do",
        "the GPU refused the work and the process cannot go on using it: start again; if it happens again, rebuild the "
        "engine on this device",
    ),
)


def cuda_error(doing: str, found: str) -> UnavailableError:
    """The error for a CUDA call that failed; `doing` completes "CUDA could not ...", `found` is what CUDA said."""
    said = found.lower()
    causes = ((expected, hint) for signs, expected, hint in _REMEDIES if any(sign in said for sign in signs))
    expected, hint = next(causes, ("a call that CUDA answers", "run 'edgekit doctor' on this device"))
    return UnavailableError(f"CUDA could not {doing}.", expected=expected, found=found, hint=hint)
