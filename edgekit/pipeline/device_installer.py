"""The installer that travels in a candidate: a POSIX shell script that readies a device and runs its plan."""

from __future__ import annotations

from edgekit import __version__
from edgekit.engines.tensorrt.status import NEVER_RUN

__all__ = ["installer_script"]

_SCRIPT = """#!/bin/sh
# Readies this device for the bundle that the script lies in, and builds its engines:
#     sh device/install.sh [OUTPUT]
# @NOTICE@.
#
# EDGEKIT_PACKAGE  what pip installs: a version, a wheel or a folder   [edgekit==@VERSION@]
# EDGEKIT_CUDA     the CUDA package: pycuda or cuda-python; empty to install none   [pycuda]
# EDGEKIT_VENV     where the environment goes   [~/.local/share/edgekit/venv]
set -eu

bundle=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
output=${1:-$bundle-evidence}
package=${EDGEKIT_PACKAGE:-edgekit==@VERSION@}
cuda=${EDGEKIT_CUDA-pycuda}
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


def installer_script() -> bytes:
    """The script, for this version of edgekit."""
    return _SCRIPT.replace("@NOTICE@", NEVER_RUN).replace("@VERSION@", __version__).encode("utf-8")
