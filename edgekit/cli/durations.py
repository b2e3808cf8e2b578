"""Lengths of time as people write them on a command line: 90d, 36h, 30m."""

from __future__ import annotations

import re
from datetime import timedelta

import click

__all__ = ["parse_duration"]

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
# Five digits of days are more than 270 years: whoever means "for ever" leaves the option out.
_TEXT = re.compile(r"(\d{1,5})([dhms])", re.ASCII)


def parse_duration(context: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    """An option's callback: a whole number above 0 and d, h, m or s for days, hours, minutes and seconds.

    Raises:
        click.BadParameter: Anything else.
    """
    if value is None:
        return None
    match = _TEXT.fullmatch(value)
    if match is None or int(match[1]) == 0:
        raise click.BadParameter(f"{value!r} is no length of time such as 90d, 36h or 30m", context, parameter)
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
