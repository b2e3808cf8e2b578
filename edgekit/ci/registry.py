"""The formats: name to a function of a report to text. A new one is a module and a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgekit.core.registry import Registry

if TYPE_CHECKING:
    from edgekit.ci.comparison import Comparison
    from edgekit.ci.subject import GateReport

__all__ = ["COMPARISON_FORMATS", "GATE_FORMATS"]

GATE_FORMATS: Registry[Callable[[GateReport], str]] = Registry(
    "gate format",
    {
        "html": "edgekit.ci.html:gate_html",
        "json": "edgekit.ci.document:gate_json",
        "junit": "edgekit.ci.junit:gate_junit",
        "markdown": "edgekit.ci.markdown:gate_markdown",
        "sarif": "edgekit.ci.sarif:gate_sarif",
    },
)

COMPARISON_FORMATS: Registry[Callable[[Comparison], str]] = Registry(
    "comparison format",
    {
        "html": "edgekit.ci.html:comparison_html",
        "json": "edgekit.ci.document:comparison_json",
        "markdown": "edgekit.ci.markdown:comparison_markdown",
    },
)
