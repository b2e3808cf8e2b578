"""`edgekit doctor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import json_option
from edgekit.cli.tables import print_json, render_facts, render_table, style_outcome
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from edgekit.bench.power.registry import NoPowerSource, PowerSource
    from edgekit.engines.installation import Installation

__all__ = ["command"]

_NVIDIA_SIDES = ("gpu", "tensorrt")
_SHOWN = 3


@click.command("doctor")
@json_option
def command(as_json: bool) -> ExitCode:
    """Say what is installed here, what is missing, and the command that adds it.

    Exit code 0 when this machine can build or can run bundles, 5 when it can do neither. Nothing is installed or
    changed, and no GPU is put to work.
    """
    from edgekit.bench.power.registry import find_power_sources
    from edgekit.engines.installation import inspect_installation

    installation, power = inspect_installation(), [_power(item) for item in find_power_sources()]
    if as_json:
        print_json({**installation.to_dict(), "power": power})
    else:
        click.echo(_render(installation, power))
    return ExitCode.OK if installation.usable else ExitCode.UNAVAILABLE


def _power(found: PowerSource | NoPowerSource) -> dict[str, Any]:
    """A source of power readings as a row: whether it is there, and what it sees or why not."""
    from edgekit.bench.power.registry import PowerSource

    if isinstance(found, PowerSource):
        told = f"sees {found.scope}" + (f"; {found.remark}" if found.remark else "")
        return {"name": found.name, "available": True, "told": told}
    return {"name": found.name, "available": False, "told": found.reason}


def _render(installation: Installation, power: Sequence[Mapping[str, Any]]) -> str:
    plain = installation.to_dict()
    facts = {name: plain[name] for name in ("edgekit", "python", "system", "machine", "processor")}
    packages = {item.name: item for side in installation.sides for item in side.packages}
    parts = [
        render_facts({**facts, "NVIDIA driver": _yes(installation.nvidia_driver)}),
        render_table(
            ("side", "ready", "what for"),
            [(side.name, _yes(side.ready), side.purpose) for side in installation.sides],
        ),
        render_table(
            ("package", "accepted", "installed", "state"),
            [
                (item.name, item.bounds or "any", item.version or "-", item.problem or style_outcome("ok"))
                for item in packages.values()
            ],
        ),
        render_table(
            ("engine", "runs here", "remark"),
            [
                (
                    engine.name,
                    _yes(engine.availability.available),
                    engine.availability.reason or engine.availability.note,
                )
                for engine in installation.engines
            ],
        ),
    ]
    parts.append(
        render_table(
            ("power sensor", "readable here", "remark"),
            [(item["name"], _yes(item["available"]), item["told"]) for item in power],
        )
    )
    parts.extend(f"{style_outcome('problem')}: {item.message}\n  {item.remedy}" for item in installation.problems)
    parts.extend(
        f"To complete the {side.name} side ({_some(side.missing)}):\n  {side.command}"
        for side in installation.sides
        # Where there is no NVIDIA driver, these would take the CPU runtime away and give nothing.
        if not side.ready and (installation.nvidia_driver or side.name not in _NVIDIA_SIDES)
    )
    return "\n\n".join(parts)


def _some(reasons: tuple[str, ...]) -> str:
    more = len(reasons) - _SHOWN
    return "; ".join(reasons[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _yes(holds: bool) -> str:
    return style_outcome("yes" if holds else "no")
