"""What matching costs a training step, on the processor: over plain distillation, by loss, tap and batch normalisation.

    python benchmarks/matching_cost.py [--only PATTERN] [--rounds N] [--again] [--results DIR]

A step is what the trainer does with a batch that is prepared: teacher and student forward, loss, backward, SGD. Plain
distillation is timed twice; the second time tells what the measurement takes for a difference where there is none. Goes
on where it was stopped, row by row; writes `matching_cost.json` and `matching_cost.md`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

# Read when torch is imported: its threads would spin beside the next step.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch
from measuring.rounds import alternate, times_to_dict
from torch import nn

from edgekit.compress.options import BATCH_NORMS, DistilOptions, FinetuneOptions, MatchingOptions
from edgekit.compress.training.plan import TrainPlan
from edgekit.compress.training.reproducible import channels_last, evaluating
from edgekit.compress.training.steps import Loss
from edgekit.core.canonical import read_json, write_json
from edgekit.core.environment import environment_print
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.architectures.construct import construct
from edgekit.teacher.tap import Tap

RESULTS = Path(__file__).resolve().parent / "results"
BATCH = 32
PLAIN, AGAIN = "plain distillation", "plain distillation again"
LOSSES = ("ewa", "swa", "sswa")
# The limit on a step over plain distillation, by where the tap is.
LIMITS = {"last": 1.25, "middle": 1.6}


class Vgg(nn.Module):
    """The paper's network at a quarter of its width: thirteen convolutions, maps of 7 x 7 of 224, dropout, linear."""

    def __init__(self, classes: int = 20, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for factor, count in ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)):
            for _ in range(count):
                after = factor * width
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
                before = after
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(before * 7 * 7, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, 3, 224, 224] to logits [N, classes]."""
        logits: torch.Tensor = self.classifier(self.features(x).flatten(1))
        return logits


@dataclass(frozen=True)
class Network:
    """A network that is its own student's architecture.

    Attributes:
        make: Makes it, with random weights.
        classes: Its logits.
        side: Height and width of its input, pixels.
        last: The tap behind its last stage.
        middle: A tap in the middle of its convolutions.
    """

    make: Callable[[], nn.Module]
    classes: int
    side: int
    last: str
    middle: str

    @property
    def taps(self) -> Mapping[str, tuple[str, ...]]:
        """What is matched, by name."""
        return {"last": (self.last,), "middle": (self.middle,), "both": (self.middle, self.last)}


NETWORKS = {
    "cifar-resnet20-32": Network(lambda: construct("cifar_resnet", {"depth": 20}), 10, 32, "layer3", "layer2"),
    "cifar-resnet20-64": Network(lambda: construct("cifar_resnet", {"depth": 20}), 10, 64, "layer3", "layer2"),
    "mobilenetv1-96": Network(lambda: construct("mobilenet_v1", {}), 2, 96, "blocks.12", "blocks.5"),
    "vgg16-quarter-224": Network(Vgg, 20, 224, "features", "features.33"),
}


def rows() -> Iterator[tuple[str, str]]:
    """Network and batch normalisation of every row."""
    for name in NETWORKS:
        for batch_norm in BATCH_NORMS:
            yield name, batch_norm


def cost_of(name: str, batch_norm: str, rounds: int) -> dict[str, Any]:
    """Times and ratios of one row: every loss at every tap, side by side."""
    network = NETWORKS[name]
    torch.manual_seed(0)
    teacher = network.make()
    students = {case: copy.deepcopy(teacher) for case in _cases(network)}
    x = torch.randn(BATCH, 3, network.side, network.side)
    labels = torch.randint(0, network.classes, (BATCH,))
    with evaluating(teacher), channels_last(teacher, *students.values()):
        runs = {
            case: _step(students[case], teacher, _plan(network, loss, taps, batch_norm), (x, labels))
            for case, (loss, taps) in _cases(network).items()
        }
        times = alternate(runs, rounds)
    return {"asked_rounds": rounds, **times_to_dict(times, over=PLAIN)}


def _cases(network: Network) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Loss and taps by name; the first is what the others are compared with."""
    matched = {f"{loss} {where}": (loss, taps) for loss in LOSSES for where, taps in network.taps.items()}
    return {PLAIN: ("none", (network.last,)), AGAIN: ("none", (network.last,)), **matched}


def _plan(network: Network, loss: str, taps: tuple[str, ...], batch_norm: str) -> TrainPlan:
    classes = tuple(f"class {index}" for index in range(network.classes))
    return TrainPlan(
        card=ModelCard(InputSpec(network.side, network.side), classes),
        taps=tuple(Tap(name) for name in taps),
        finetune=FinetuneOptions(batch_size=BATCH, batch_norm=batch_norm, learning_rate=1e-4),
        matching=MatchingOptions(loss=loss),
        distil=DistilOptions(weight=0.9),
    )


def _step(
    student: nn.Module, teacher: nn.Module, plan: TrainPlan, batch: tuple[torch.Tensor, torch.Tensor]
) -> Callable[[], None]:
    loss = Loss(teacher, plan, torch.Generator().manual_seed(0))
    options = plan.finetune
    optimiser = torch.optim.SGD(
        student.parameters(),
        lr=options.learning_rate,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
    )
    student.train()
    if options.batch_norm == "running":
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def run() -> None:
        value, _ = loss(student, *batch, "a step")
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return run


def text_of(document: Mapping[str, Any]) -> str:
    """The results as markdown."""
    found = document["rows"]
    held = [_holds(row["ratio"], limit) for row in found.values() for limit in LIMITS.items()]
    told = (
        f"{sum(held)} of {len(held)} cases hold: every loss at most {LIMITS['last']} times plain distillation with a "
        f"tap behind the last stage, or {LIMITS['middle']} times with one in the middle."
    )
    columns = ("network, batch norm", "plain, ms", "plain again", "tap", *(loss.upper() for loss in LOSSES))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for name, row in found.items():
        for where in ("last", "middle", "both"):
            ratios = [_ratio(row["ratio"][f"{loss} {where}"]) for loss in LOSSES]
            plain = f"{row['median_ms'][PLAIN]:.0f}"
            lines.append("| " + " | ".join((name, plain, _ratio(row["ratio"][AGAIN]), where, *ratios)) + " |")
    return (
        "\n\n".join(["# What matching costs a training step", told, _introduction(document), "\n".join(lines)]) + "\n"
    )


def _holds(ratios: Mapping[str, Any], limit: tuple[str, float]) -> bool:
    where, most = limit
    return all(ratios[f"{loss} {where}"]["median"] <= most for loss in LOSSES)


def _ratio(found: Mapping[str, float]) -> str:
    return f"{found['median']:.2f} ({found['q1']:.2f} to {found['q3']:.2f})"


def _introduction(document: Mapping[str, Any]) -> str:
    machine = document["environment"]
    rounds = min((row["rounds"] for row in document["rows"].values()), default=0)
    return (
        "Made by benchmarks/matching_cost.py; every number is in matching_cost.json. Measured on "
        f"{machine['processor']} with {machine['logical_cpus']} logical processors, torch "
        f"{machine['packages'].get('torch', '')}, {document['threads']} threads. A step is teacher and student "
        f"forward, supervised, distillation and matching loss, backward and SGD, on a prepared batch of {BATCH} "
        "in float32; teacher and student are of the same architecture, so the teacher's share is large.\n\n"
        f"Time of a step over that of plain distillation, round by round: median over {rounds} rounds, and quartiles. "
        "All run in one process in turns, so that memory, clock and neighbours are alike for all. *Plain again* is "
        "plain distillation with a second student: what the measurement takes for a difference where there is none."
    )


@click.command()
@click.option("--only", default="*", help="Rows whose name fits this pattern: 'cifar-*', '* running'.")
@click.option("--again", is_flag=True, help="Measure rows again that are already there.")
@click.option("--rounds", default=20, show_default=True, help="Rounds a row.")
@click.option("--threads", default=1, show_default=True, help="Torch threads.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results.")
def main(only: str, again: bool, rounds: int, threads: int, results: Path) -> None:
    """Measure what is missing, and write it down row by row."""
    torch.set_num_threads(threads)
    results.mkdir(parents=True, exist_ok=True)
    stored = results / "matching_cost.json"
    earlier: dict[str, Any] = read_json(stored) if stored.is_file() else {}
    found: dict[str, Any] = earlier.get("rows", {}) if earlier.get("threads") == threads else {}
    for network, batch_norm in rows():
        name = f"{network} {batch_norm}"
        if not fnmatch(name, only) or (name in found and found[name]["asked_rounds"] == rounds and not again):
            continue
        found[name] = cost_of(network, batch_norm, rounds)
        ordered = {" ".join(key): found[" ".join(key)] for key in rows() if " ".join(key) in found}
        document = {"environment": environment_print(), "limits": LIMITS, "threads": threads, "rows": ordered}
        write_json(stored, document)
        (results / "matching_cost.md").write_text(text_of(document), encoding="utf-8")
        click.echo(f"{name}: " + ", ".join(f"{case} {_ratio(ratio)}" for case, ratio in found[name]["ratio"].items()))


if __name__ == "__main__":
    main()
