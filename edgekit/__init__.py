"""edgekit: compressed image classifiers on edge devices, with their reasons intact.

Importing this package does no work: no runtime is loaded, no environment is read. Scripts use `edgekit.api`,
which has one function per stage under the name of its command.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
