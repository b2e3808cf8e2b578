"""The installer that travels in a candidate: a POSIX shell script that readies a device and runs its plan."""

from __future__ import annotations

from edgekit import __version__
from edgekit.engines.tensorrt.status import NEVER_RUN

__all__ = ["installer_script"]

# It is built on the device, for whichever CUDA is there; a release of cuda-python is for one CUDA.
_USUAL_CUDA = "pycuda"

_SCRIPT = """#!/bin/sh
# Readies this device for the bundle that the script lies in, and builds its engines:
#     sh device/install.sh [OUTPUT]
# @NOTICE@.
#
# EDGEKIT_PACKAGE  what pip installs: a version, a wheel or a folder   [edgekit==@VERSION@]
# EDGEKIT_CUDA     the CUDA package: pycuda, which records no CUDA graphs, or cuda-python; empty for none   [@CUDA@]
# EDGEKIT_VENV     where the environment goes   [~/.local/share/edgekit/venv]
set -eu

bundle=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
output=${1:-$bundle-evidence}
package=${EDGEKIT_PACKAGE:-edgekit==@VERSION@}
cuda=${EDGEKIT_CUDA-@CUDA@}
venv=${EDGEKIT_VENV:-$HOME/.local/share/edgekit/venv}
python=${PYTHON:-python3}

fail() {
    echo "error: $1" >&2
    echo "  hint:     $2" >&2
    exit 5
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "the device's Python is older than 3.10" "install JetPack 6.0 or later"
"$python" -c 'import tensorrt' ||
    fail "the device's Python has no tensorrt" \\
        "sudo apt install python3-libnvinfer; pip's tensorrt does not fit JetPack 6"
# TensorRT is a package of the distribution: an environment that does not see those cannot build.
[ -x "$venv/bin/python" ] || "$python" -m venv --system-site-packages "$venv"
"$venv/bin/python" -m pip install "$package" $cuda
exec "$venv/bin/python" -m edgekit device build "$bundle" --output "$output"
"""


def installer_script(cuda_package: str = "") -> bytes:
    """The script, for this version of edgekit.

    Args:
        cuda_package: Python package that the plan's engines reach CUDA by, see `RunOptions`; empty where any will do.
    """
    texts = {"@NOTICE@": NEVER_RUN, "@VERSION@": __version__, "@CUDA@": cuda_package or _USUAL_CUDA}
    script = _SCRIPT
    for name, text in texts.items():
        script = script.replace(name, text)
    return script.encode("utf-8")
