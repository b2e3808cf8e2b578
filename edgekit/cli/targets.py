"""`edgekit targets`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import json_option
from edgekit.cli.tables import print_json, render_facts, render_table, style_outcome
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from edgekit.jetson.detect import Jetson
    from edgekit.targets.overview import Line
    from edgekit.targets.target import Target

__all__ = ["command"]


@click.command("targets")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> ExitCode:
    """List the devices edgekit can build for.

    "builds here" says whether this machine can build for the device and verify the result. With NAME, one device in
    full: which JetPack releases work, what it could reach at most, and what cannot work there.
    """
    from edgekit.jetson.detect import read_jetson
    from edgekit.jetson.probe import RememberingProbe, SystemProbe
    from edgekit.targets.overview import line_of, target_lines

    probe = RememberingProbe(SystemProbe())
    if name is not None:
        line = line_of(name, probe=probe)
        if as_json:
            print_json({"target": line.to_dict()})
        else:
            click.echo(_full(line))
        return ExitCode.OK
    lines, device = target_lines(probe=probe), read_jetson(probe)
    if as_json:
        print_json({"targets": [line.to_dict() for line in lines], "device": device.to_dict() if device else None})
        return ExitCode.OK
    click.echo(_table(lines))
    if device is not None:
        click.echo("\nThis device\n" + render_facts(_device_facts(device)))
    return ExitCode.OK


def _table(lines: tuple[Line, ...]) -> str:
    header = ("target", "device", "engines", "JetPack", "TensorRT", "numbers", "DLA", "builds here", "status")
    rows = [
        (
            line.name,
            line.title,
            ", ".join(line.engines) or "-",
            line.jetpack,
            line.tensorrt,
            line.number_format,
            line.dla,
            style_outcome("no" if line.reason else "yes"),
            line.status,
        )
        for line in lines
    ]
    return render_table(header, rows)


def _device_facts(device: Jetson) -> dict[str, object]:
    shown = {
        "model": device.model,
        "target": device.module,
        "Jetson Linux": device.l4t,
        "JetPack": device.jetpack,
        "power mode": device.power_mode,
        "not told": "; ".join(device.notes),
    }
    return {key: value for key, value in shown.items() if value}


def _full(line: Line) -> str:
    from edgekit.targets.overview import limit_text
    from edgekit.targets.setting import DEVICE_PYTHON
    from edgekit.targets.support import limits_of

    here = style_outcome("no" if line.reason else "yes") + (f": {line.reason}" if line.reason else "")
    if line.target is None:
        return render_facts(
            {
                "target": line.name,
                "device": line.title,
                "stands for": "one of " + ", ".join(line.stands_for),
                "builds here": here,
            }
        )
    target = line.target
    facts = {
        "target": line.name,
        "device": line.title,
        "stands for": target.name if target.name != line.name else ", ".join(line.stands_for),
        "status": line.status,
        "builds here": here,
        "engines": ", ".join(target.engines),
        "numbers": target.number_format,
        "operator set": target.opset,
        "operators": target.operators or "all that edgekit writes",
        "channels": f"multiples of {target.channel_multiple}",
        "machines": ", ".join(target.machines),
        "Python there": ".".join(map(str, DEVICE_PYTHON)) + " or later",
        "TensorRT": line.tensorrt,
    }
    parts = [render_facts({key: value for key, value in facts.items() if value not in ("", "-")})]
    parts.extend(_module(module, named=len(target.modules) > 1) for module in target.modules)
    limits = [limit_text(limit, target) for limit in limits_of(target)]
    if limits:
        parts.append("Cannot work\n" + "\n".join(f"- {text}" for text in limits))
    return "\n\n".join(parts)


def _module(target: Target, *, named: bool) -> str:
    from edgekit.targets.support import usable_releases

    facts = target.jetson
    if facts is None:
        return ""
    told: dict[str, Any] = {
        "system on chip": facts.soc,
        "compute capability": facts.compute_capability,
        "multiprocessors": facts.sms,
        "DLA cores": facts.dla_cores,
        "power modes": ", ".join(facts.power_modes) + "; the device decides",
    }
    if facts.unconfirmed:
        told["not confirmed"] = ", ".join(facts.unconfirmed)
    usable = usable_releases(target)
    releases = render_table(
        ("JetPack", "Jetson Linux", "Python", "CUDA", "TensorRT", "works"),
        [
            (
                ", ".join((release.jetpack, *release.also_called)),
                ", ".join(release.l4t) or "not known",
                ".".join(map(str, release.python)),
                release.cuda,
                release.tensorrt or f"not known; takes {', '.join(release.also_tensorrt)}",
                style_outcome("not refused" if release in usable else "no"),
            )
            for release in facts.releases
        ],
    )
    peaks = render_table(
        ("power mode", "INT8 TOPS", "FP16 TOPS", "DLA TOPS", "GB/s", "INT8 op/byte", "basis"),
        [
            (
                peak.mode,
                f"{peak.gpu_int8_tops:.1f}",
                "not known" if peak.gpu_fp16_tops is None else f"{peak.gpu_fp16_tops:.1f}",
                f"{peak.dla_int8_tops:.1f}",
                f"{peak.bandwidth:.1f}",
                f"{peak.ridge:.0f}",
                peak.basis,
            )
            for peak in facts.peaks
        ],
        right=("INT8 TOPS", "FP16 TOPS", "DLA TOPS", "GB/s", "INT8 op/byte"),
    )
    heading = f"{target.name}: {target.title}\n" if named else ""
    return f"{heading}{render_facts(told)}\n\n{releases}\n\nAt most (dense, never measured here)\n{peaks}"
