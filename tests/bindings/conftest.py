"""Tests against the genuine bindings run where somebody installed them: `make tensorrt-bindings`."""

from __future__ import annotations

import os

# Not skipped but left out: a default run neither has the wheels nor should have to say so.
collect_ignore_glob = [] if os.environ.get("EDGEKIT_TENSORRT_BINDINGS") else ["test_*.py"]
