"""The Python API: one function a command under its name, and `build` for all stages.

    from edgekit import api
    result = api.build("model.pt", data="images", target="cpu", output="edgekit-build")
    print(result.verdict.outcome, result.folder)

Everything heavy is imported when a function is called; `gate` and `verify` need numpy and a runtime only. All of them
raise `edgekit.errors.EdgekitError` for what cannot be done; that maps did not hold is a result.
"""

from edgekit.api.bundles import (
    attach,
    bench,
    blame,
    check,
    compare,
    device_build,
    explain,
    gate,
    inspect,
    release,
    report,
    suggest_policy,
    verify,
)
from edgekit.api.stages import build, bundle, calibrate, compress, export, golden, qat

__all__ = [
    "attach",
    "bench",
    "blame",
    "build",
    "bundle",
    "calibrate",
    "check",
    "compare",
    "compress",
    "device_build",
    "explain",
    "export",
    "gate",
    "golden",
    "inspect",
    "qat",
    "release",
    "report",
    "suggest_policy",
    "verify",
]
