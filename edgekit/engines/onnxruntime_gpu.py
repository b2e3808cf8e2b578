"""ONNX Runtime on a GPU: whether a provider can be had, and opening a session that is refused where it is not in use.

ONNX Runtime goes on without a GPU's provider that cannot be loaded, on the processor and with a line in a log. Here
that is an error: a processor's times and maps must not be taken for a GPU's. What was run: `onnxruntime_gpu_status`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from edgekit.core.environment import onnxruntime_distributions
from edgekit.engines.cuda_driver import cuda_of_driver
from edgekit.engines.onnxruntime_gpu_status import NEVER_RUN_ON_GPU
from edgekit.engines.onnxruntime_placement import CPU_PROVIDER
from edgekit.engines.protocol import Availability
from edgekit.errors import EdgekitError, IntegrityError, UnavailableError

__all__ = ["DEVICE", "EXPECTED_HERE", "GpuProvider", "gpu_availability", "gpu_failure", "open_gpu_session"]

DEVICE = 0
"""Number of the GPU; CUDA_VISIBLE_DEVICES says which that is."""

EXPECTED_HERE = "onnxruntime-gpu alone, and an NVIDIA driver for the CUDA that it was built for"
"""What these engines need of a machine, for messages."""

_INSTALL_HINT = "pip install 'edgekit[gpu]'"
# What CUDA's runtime says with its error 35.
_OLD_DRIVER = "driver version is insufficient"
# The node that holds an engine of TensorRT, which the processor has no kernel for.
_NO_TENSORRT = "EPContext(-1) is not a registered"
_LIBRARIES_HINT = (
    "a library of the provider is missing or of another version: it needs the CUDA, cuDNN and TensorRT that "
    "onnxruntime-gpu was built for, on the path that libraries are looked up in"
)
_OF_THE_DEVICE = ("CUDA", "cuda", "CUDNN", "cudnn", "CUBLAS", "cublas", "TensorRT", "TensorrtExecutionProvider")


@dataclass(frozen=True)
class GpuProvider:
    """A provider of ONNX Runtime, and how it is asked for.

    Attributes:
        engine: Registry name of the engine, for messages.
        name: The provider, as ONNX Runtime calls it.
        options: Its options, as text.
        session_entries: Entries of the session's configuration.
        others: Providers with their options that may run what the first leaves, in this order.
    """

    engine: str
    name: str
    options: Mapping[str, str]
    session_entries: Mapping[str, str] = field(default_factory=dict)
    others: tuple[tuple[str, Mapping[str, str]], ...] = ()


def gpu_availability(provider: str) -> Availability:
    """Whether ONNX Runtime has this provider and the driver is new enough for it. Makes no context on a GPU."""
    installed = onnxruntime_distributions()
    if len(installed) > 1:
        return Availability(
            False,
            f"{' and '.join(installed)} are installed side by side and overwrite each other's files",
            f"pip uninstall -y {' '.join(installed)} && {_INSTALL_HINT}",
        )
    try:
        import onnxruntime as ort
    except ImportError as cause:
        return Availability(False, f"onnxruntime cannot be imported: {cause}", _INSTALL_HINT)
    known = ort.get_available_providers()
    if provider not in known:
        return Availability(
            False,
            f"onnxruntime {ort.__version__} has no {provider}, but {', '.join(known)}",
            f"pip uninstall -y onnxruntime && {_INSTALL_HINT}",
        )
    problem, hint = _driver_problem()
    return Availability(False, problem, hint) if problem else Availability(True, note=NEVER_RUN_ON_GPU)


def _driver_problem() -> tuple[str, str]:
    """What is wrong with the driver and what to do; twice empty where nothing is."""
    found, wanted = cuda_of_driver(), _cuda_of_onnxruntime()
    if found is None:
        return "there is no NVIDIA driver", "install the driver of your card, and see that nvidia-smi lists it"
    # Within one major version an older driver is enough: NVIDIA's minor version compatibility.
    if wanted is not None and found[0] < wanted[0]:
        return _too_old(found, wanted)
    return "", ""


def _too_old(found: tuple[int, int] | None, wanted: tuple[int, int] | None) -> tuple[str, str]:
    supports = "an older CUDA" if found is None else f"CUDA {found[0]}.{found[1]} at most"
    built = "a newer one" if wanted is None else f"CUDA {wanted[0]}.{wanted[1]}"
    return (
        f"the NVIDIA driver supports {supports}, and this onnxruntime was built for {built}",
        "update the driver, or install an onnxruntime-gpu that was built for the driver's CUDA",
    )


def _cuda_of_onnxruntime() -> tuple[int, int] | None:
    """The CUDA that the installed onnxruntime was built for, where its package says so."""
    try:
        from onnxruntime.capi.build_and_package_info import cuda_version
    except ImportError:
        return None
    numbers = str(cuda_version).split(".")
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers[:2]):
        return None
    return int(numbers[0]), int(numbers[1])


def open_gpu_session(model: bytes, provider: GpuProvider, *, where: str, profile: str = "") -> Any:
    """An `onnxruntime.InferenceSession` that has this provider in use.

    Args:
        model: The ONNX model.
        provider: What is asked for.
        where: The model's file, for messages.
        profile: Start of the path of a profile that is to be written; empty for none.

    Raises:
        UnavailableError: The provider is not here, could not be loaded, or failed.
        IntegrityError: The model cannot be opened.
    """
    available = gpu_availability(provider.name)
    if not available.available:
        raise UnavailableError(
            f"The engine {provider.engine!r} cannot run here.",
            expected=EXPECTED_HERE,
            found=available.reason,
            hint=available.hint,
        )
    import onnxruntime as ort

    _preload()
    asked = [(provider.name, dict(provider.options)), *((name, dict(options)) for name, options in provider.others)]
    try:
        session = ort.InferenceSession(
            model,
            _session_options(ort, provider, profile),
            providers=[*asked, CPU_PROVIDER],
            enable_fallback=0,
            disabled_optimizers=["WeightBiasQuantization"],
        )
    except Exception as cause:  # onnxruntime raises its own types that share no public base
        raise gpu_failure(provider.engine, cause, where=where, opening=True) from cause
    # It tries again with other providers where one fails in a run, unless it is told not to.
    session.disable_fallback()
    in_use = list(session.get_providers())
    wanted = [name for name, _ in asked]
    if in_use[: len(wanted)] != wanted:
        raise UnavailableError(
            f"ONNX Runtime opened the engine {provider.engine!r} without {provider.name}, and would run it elsewhere.",
            where=where,
            expected=", ".join([*wanted, CPU_PROVIDER]),
            found=", ".join(in_use),
            hint=_LIBRARIES_HINT,
        )
    return session


def gpu_failure(engine: str, cause: Exception, *, where: str | None = None, opening: bool = False) -> EdgekitError:
    """Our error for one of ONNX Runtime's: of the device, of the driver, or else of the model."""
    line = (str(cause).splitlines() or [type(cause).__name__])[0]
    if _OLD_DRIVER in line:
        problem, hint = _too_old(cuda_of_driver(), _cuda_of_onnxruntime())
        return UnavailableError(
            f"The engine {engine!r} cannot run here.", where=where, expected=EXPECTED_HERE, found=problem, hint=hint
        )
    if _NO_TENSORRT in line:
        return UnavailableError(
            f"ONNX Runtime opened the engine {engine!r} without its TensorRT provider.",
            where=where,
            found=line[:500],
            hint=_LIBRARIES_HINT,
        )
    if not opening or any(word in line for word in _OF_THE_DEVICE):
        return UnavailableError(
            f"The GPU failed while the engine {engine!r} was {'opened' if opening else 'run'}.",
            where=where,
            found=line[:500],
            hint="see with nvidia-smi that the card is free and has memory left",
        )
    return IntegrityError("ONNX Runtime cannot open the engine.", where=where, found=line[:500])


def _session_options(ort: Any, provider: GpuProvider, profile: str) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    for key, value in provider.session_entries.items():
        options.add_session_config_entry(key, value)
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return options


@cache
def _preload() -> None:
    """Load the CUDA and cuDNN that came as wheels, which ONNX Runtime finds only so; it has this from 1.21 on."""
    import onnxruntime as ort

    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        # It prints what it could not load; standard output is for results.
        with contextlib.redirect_stdout(sys.stderr):
            preload()
