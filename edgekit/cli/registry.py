"""The known commands, in the order in which `edgekit --help` lists them.

The help lines stand here and not only in the commands, because reading them from the commands would import all of
them: `edgekit --help` has to answer at once, and on a device that lacks half of the packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["COMMANDS", "CommandEntry"]


@dataclass(frozen=True)
class CommandEntry:
    """Where a command lives and what it says of itself.

    Attributes:
        target: "package.module:object" of a `click.Command`, imported when the command is called.
        help: The first sentence of the command's help; a test compares the two.
    """

    target: str
    help: str


COMMANDS: Mapping[str, CommandEntry] = MappingProxyType(
    {
        "build": CommandEntry(
            "edgekit.cli.build:command",
            "Compress a classifier, verify its maps on the engine that ships, and bundle it.",
        ),
        "demo": CommandEntry(
            "edgekit.cli.demo:command",
            "Run the main job on the embedded classifier: one build whose maps hold, and one whose maps do not.",
        ),
        "golden": CommandEntry(
            "edgekit.cli.golden:command",
            "Let the teacher answer and explain the held-out images that everything is compared on.",
        ),
        "compress": CommandEntry(
            "edgekit.cli.compress:command", "Make a smaller classifier with its map held to the teacher's."
        ),
        "export": CommandEntry(
            "edgekit.cli.export:command",
            "Write logits and map of a classifier as one ONNX graph, checked against torch on real images.",
        ),
        "calibrate": CommandEntry(
            "edgekit.cli.calibrate:command",
            "Find INT8 ranges for an exported graph and write them as a scale table and explicit Q/DQ nodes.",
        ),
        "qat": CommandEntry(
            "edgekit.cli.qat:command",
            "Train a calibrated student with the rounding of its INT8 engine in place, its scales too.",
        ),
        "verify": CommandEntry(
            "edgekit.cli.verify:command",
            "Run the engine on its golden set here and now, and judge its maps; the exit code is the verdict.",
        ),
        "bundle": CommandEntry(
            "edgekit.cli.bundle:command",
            "Choose among the verified engines of a build, write the report and pack the bundle.",
        ),
        "device": CommandEntry(
            "edgekit.cli.device:command",
            "Build, verify and time a candidate's engines on the device that will run them.",
        ),
        "attach": CommandEntry(
            "edgekit.cli.attach:command",
            "Check what a device wrote of a candidate, and complete its release; the exit code is the verdict.",
        ),
        "gate": CommandEntry(
            "edgekit.cli.gate:command",
            "Check a bundle's integrity and judge its stored scores; the exit code is the verdict.",
        ),
        "keys": CommandEntry(
            "edgekit.cli.keys:command",
            "Make the keys that releases are signed and checked with, and show which is which.",
        ),
        "release": CommandEntry(
            "edgekit.cli.release:command",
            "Sign a bundle that passes its gate, and refuse any other; the exit code is the verdict.",
        ),
        "check": CommandEntry(
            "edgekit.cli.check:command",
            "Check a signed bundle before it is installed: signature, every byte, age, device and verdict.",
        ),
        "compare": CommandEntry(
            "edgekit.cli.compare:command",
            "Show two bundles side by side: what they are, what their scores say, and how they were made.",
        ),
        "policy": CommandEntry(
            "edgekit.cli.policy:command", "Say which policies there are, and in words what one demands and needs."
        ),
        "blame": CommandEntry(
            "edgekit.cli.blame:command",
            "Say which rounding moved a bundle's maps, and at which hop from teacher to engine they were lost.",
        ),
        "report": CommandEntry(
            "edgekit.cli.report:command",
            "Tell a bundle's evidence again as one page, with controls and blame where there are any.",
        ),
        "bench": CommandEntry(
            "edgekit.cli.bench:command", "Measure the latency of a bundle's engine on this machine, FP32 beside INT8."
        ),
        "explain": CommandEntry(
            "edgekit.cli.explain:command", "Answer one image with a bundle's engine and draw where it looked."
        ),
        "inspect": CommandEntry(
            "edgekit.cli.inspect:command",
            "Say what a file or folder is: a model, an ONNX graph, a bundle, a golden set or a stage.",
        ),
        "doctor": CommandEntry(
            "edgekit.cli.doctor:command", "Say what is installed here, what is missing, and the command that adds it."
        ),
        "targets": CommandEntry("edgekit.cli.targets:command", "List the devices edgekit can build for."),
    }
)
