"""How to do a build again: the commands, and the digests that say whether it is the same."""

from __future__ import annotations

import hashlib
import shlex
from typing import Any

from edgekit.core.canonical import dump_canonical
from edgekit.report.data import ReportData
from edgekit.report.headline import judged_name

__all__ = ["describe_reproduction"]


def describe_reproduction(data: ReportData) -> dict[str, Any]:
    """Commands and digests, JSON-ready.

    Returns:
        "commands": what and command each, in order; "digests": what (in words), file (its name, empty for what is no
        single file) and sha256 of teacher, policy, golden set and the judged engine, as far as they are recorded.
    """
    seed = data.recipe.get("seed")
    seeded = f" --seed {seed}" if isinstance(seed, int) and not isinstance(seed, bool) else ""
    # Where engines competed, time decided; the command names the one it decided for.
    competed = len({item.engine for item in data.candidates}) > 1
    named = f" --engine {shlex.quote(str(data.engine['engine']))}" if competed and "engine" in data.engine else ""
    target = shlex.quote(data.target)
    told = (
        ("The teacher's digest must be the one below.", "sha256sum MODEL"),
        (
            "DIR holds the images; recipe.json lies in the bundle and is printed below.",
            f"edgekit build MODEL --target {target}{named} --data DIR --recipe recipe.json{seeded}",
        ),
        ("Is the bundle whole, and does its evidence hold? Nothing is run.", "edgekit gate BUNDLE"),
        ("Run the engine of the bundle again, on this machine.", "edgekit verify BUNDLE"),
    )
    return {"commands": [{"what": what, "command": command} for what, command in told], "digests": _digests(data)}


def _digests(data: ReportData) -> list[dict[str, str]]:
    policy = hashlib.sha256(dump_canonical(data.verdict.policy.to_dict())).hexdigest()
    found = [
        {"what": "teacher", "file": "MODEL", "sha256": data.golden.teacher},
        {"what": "policy", "file": "policy.json", "sha256": policy},
    ]
    judged = judged_name(data)
    wanted = {"golden": "golden set", f"build-{judged}": "engine", f"verify-{judged}": "scores", "export": "FP32 graph"}
    chosen = {"golden": "golden.json", f"verify-{judged}": "scores.json", "export": "model.onnx"}
    for record in data.stages:
        if record.stage not in wanted:
            continue
        names = [chosen[record.stage]] if record.stage in chosen else sorted(record.outputs)
        found += [
            {"what": wanted[record.stage], "file": name, "sha256": record.outputs[name].sha256}
            for name in names
            if name in record.outputs
        ]
    return found
