"""Put the genuine TensorRT bindings of every version that has a wheel into a folder, with stubs for their libraries.

    python tests/bindings/install_wheels.py FOLDER

A bindings wheel is about 1 MB and needs NVIDIA's libraries to import. Here it finds stubs with the names of their nine
C entry points, which all answer that there is no object: classes, enums, signatures and interfaces that we derive from
can be looked at, nothing can be built or run. The wheels are NVIDIA's and under its licence: installed for tests, never
committed and never shipped. Needs pip, a C compiler, and a Python that the wheels exist for (3.8 to 3.11 have all).
The entry points are declared in NVIDIA's public headers; 8.x links to four C++ names of parsers that are gone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["WHEELS", "install"]

WHEELS = {
    "8.6.1": "tensorrt-bindings",
    "10.3.0": "tensorrt-cu12-bindings",
    "10.13.3.9": "tensorrt-cu12-bindings",
    "10.16.1.11": "tensorrt-cu12-bindings",
    "11.4.0.106": "tensorrt-cu12-bindings",
}
"""Version to the name of its wheel. 8.5.2 has none."""

_NOTHING = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL"),
    *("getBuilderPluginRegistry", "getPluginRegistry", "getNvOnnxParserVersion", "initLibNvInferPlugins"),
)
_OLD_PARSERS = (
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
    "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
)
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")


def install(folder: Path) -> None:
    """Fill `folder` with `VERSION/site` and `VERSION/stubs`; what is there already is kept."""
    for version, wheel in WHEELS.items():
        done = folder / version / "done"
        if done.is_file():
            continue
        site, stubs = folder / version / "site", folder / version / "stubs"
        stubs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--target", str(site), f"{wheel}=={version}"]
        subprocess.run(command, check=True)
        _compile(stubs, version.partition(".")[0])
        done.touch()


def _compile(stubs: Path, major: str) -> None:
    source = stubs / "stub.c"
    names = (*_NOTHING, *(_OLD_PARSERS if major == "8" else ()))
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names), encoding="utf-8")
    for library in _LIBRARIES:
        # The loader goes by this name, not by the folder.
        name = f"lib{library}.so.{major}"
        subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", stubs / name, source], check=True)


if __name__ == "__main__":
    install(Path(sys.argv[1]).resolve())
