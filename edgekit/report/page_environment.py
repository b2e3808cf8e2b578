"""How pages are made of templates: everything that is put in is escaped, and a name that is missing is an error."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from edgekit.report.optional import needs_package

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["page_environment"]


@cache
def page_environment() -> Environment:
    """Kept, since compiling the templates takes longer than drawing a page.

    Raises:
        UnavailableError: Jinja2 is not installed.
    """
    with needs_package("Jinja2", "host"):
        from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("edgekit.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
