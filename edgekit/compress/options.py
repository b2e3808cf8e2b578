"""What a recipe may say about compression. Free of torch, so that recipes can be read without it."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekit.errors import BadInputError

__all__ = ["MATCHING_LOSSES", "PRUNE_SCOPES", "CompressOptions", "FinetuneOptions", "MatchingOptions", "PruneOptions"]

MATCHING_LOSSES = ("none", "ewa", "swa", "sswa")
PRUNE_SCOPES = ("all", "inner")


def _require(holds: bool, what: str, expected: str, found: object) -> None:
    if not holds:
        raise BadInputError(f"A recipe value is out of range: compress.{what}.", expected=expected, found=repr(found))


@dataclass(frozen=True)
class PruneOptions:
    """Structured l1 channel pruning.

    Attributes:
        rate: Share of the channels removed in every prunable group, 0 to under 1; 0 switches pruning off.
        scope: "all" prunes residual streams too; "inner" leaves every group alone whose channels are coupled across
            blocks by additions.
        round_to: Kept channels are rounded up to a multiple of this.
        ignore: Glob patterns of module names whose outputs are never pruned.
    """

    rate: float = 0.3
    scope: str = "all"
    round_to: int = 1
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(0 <= self.rate < 1, "prune.rate", "0 <= rate < 1", self.rate)
        _require(self.scope in PRUNE_SCOPES, "prune.scope", " or ".join(PRUNE_SCOPES), self.scope)
        _require(self.round_to >= 1, "prune.round_to", "at least 1", self.round_to)


@dataclass(frozen=True)
class MatchingOptions:
    """The term that holds the student's map to the teacher's (Park et al. 2020).

    Attributes:
        loss: "swa", "ewa", "sswa" or "none".
        beta: Weight of the term. 100 is the paper's; our term is scaled so that it does not depend on map size.
        drop_rate: Share of the teacher's channels zeroed per step, "sswa" only (the paper's recipes: 0.3).
    """

    loss: str = "swa"
    beta: float = 100.0
    drop_rate: float = 0.3

    def __post_init__(self) -> None:
        _require(self.loss in MATCHING_LOSSES, "matching.loss", " or ".join(MATCHING_LOSSES), self.loss)
        _require(self.beta >= 0, "matching.beta", "at least 0", self.beta)
        _require(0 <= self.drop_rate < 1, "matching.drop_rate", "0 <= drop_rate < 1", self.drop_rate)


@dataclass(frozen=True)
class FinetuneOptions:
    """Fine-tuning after pruning: SGD with the paper's momentum and weight decay.

    Attributes:
        epochs: Passes over the training images; 0 switches fine-tuning off.
        batch_size: Images a step.
        learning_rate: At the start.
        schedule: "constant" (the paper's) or "cosine" to zero.
        momentum: SGD momentum.
        weight_decay: L2 penalty.
        flip: Random horizontal flips; off where left and right mean something.
        shift: Random translation by up to this many pixels, edges repeated.
        max_images: At most this many training images, class-balanced; 0 for all.
    """

    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 0.01
    schedule: str = "cosine"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    flip: bool = True
    shift: int = 0
    max_images: int = 0

    def __post_init__(self) -> None:
        _require(self.epochs >= 0, "finetune.epochs", "at least 0", self.epochs)
        _require(self.batch_size >= 2, "finetune.batch_size", "at least 2", self.batch_size)
        _require(self.learning_rate > 0, "finetune.learning_rate", "above 0", self.learning_rate)
        _require(self.schedule in ("constant", "cosine"), "finetune.schedule", "constant or cosine", self.schedule)
        _require(0 <= self.momentum < 1, "finetune.momentum", "0 <= momentum < 1", self.momentum)
        _require(self.weight_decay >= 0, "finetune.weight_decay", "at least 0", self.weight_decay)
        _require(self.shift >= 0, "finetune.shift", "at least 0", self.shift)
        _require(self.max_images >= 0, "finetune.max_images", "at least 0", self.max_images)


@dataclass(frozen=True)
class CompressOptions:
    """Everything the compress stage can be told."""

    prune: PruneOptions = field(default_factory=PruneOptions)
    finetune: FinetuneOptions = field(default_factory=FinetuneOptions)
    matching: MatchingOptions = field(default_factory=MatchingOptions)
