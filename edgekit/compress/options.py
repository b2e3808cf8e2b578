"""What a recipe may say about compression. Free of torch, so that recipes can be read without it.

The order is fixed: a student (the teacher's own architecture, or another), channels pruned, weights made sparse,
trained with `supervised, distilled, matched` terms, and at last trained again through the rounding of its INT8 engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit.errors import BadInputError

__all__ = [
    "BATCH_NORMS",
    "CLASS_CHOICES",
    "DISTANCES",
    "DISTIL_FORMS",
    "IMPORTANCES",
    "LOGS",
    "MATCHING_LOSSES",
    "MIXED_PRECISIONS",
    "POOLINGS",
    "PRUNE_SCOPES",
    "SCHEDULES",
    "SPARSE_PATTERNS",
    "CompressOptions",
    "DistilOptions",
    "FinetuneOptions",
    "MatchingOptions",
    "PruneOptions",
    "QatOptions",
    "SparsifyOptions",
]

MATCHING_LOSSES = ("none", "ewa", "swa", "sswa")
DISTANCES = ("squared-l2", "cosine")
POOLINGS = ("sum", "mean")
CLASS_CHOICES = ("top", "positive")
PRUNE_SCOPES = ("all", "inner")
IMPORTANCES = ("l1", "l2", "bn-scale", "taylor", "random")
SPARSE_PATTERNS = ("unstructured", "2:4")
DISTIL_FORMS = ("auto", "softmax", "sigmoid")
SCHEDULES = ("constant", "cosine", "step")
BATCH_NORMS = ("batch", "running")
MIXED_PRECISIONS = ("auto", "off", "float16", "bfloat16")
LOGS = ("csv", "tensorboard", "none")


def _require(holds: bool, what: str, expected: str, found: object) -> None:
    if not holds:
        raise BadInputError(f"A recipe value is out of range: {what}.", expected=expected, found=repr(found))


def _require_one_of(value: str, known: tuple[str, ...], what: str) -> None:
    _require(value in known, what, " or ".join(known), value)


@dataclass(frozen=True)
class DistilOptions:
    """Another architecture as the student, and learning from the teacher's answers (Hinton et al. 2015).

    Attributes:
        student: Architecture of the student: a built-in name, "timm:NAME", "torchvision:NAME" or
            "package.module:factory" (which the user has to name outside the recipe, too); empty keeps the teacher's
            own. It starts from random weights, and is trained for `finetune.epochs` before anything is removed from it.
        arguments: What the student's factory is called with; `classes` is filled in where the factory takes it.
        weight: Share of the loss that is distillation, 0 to 1; the rest is supervised. 0 switches it off; the paper's
            recipe has 0.9.
        temperature: Divides the logits of both networks; the term is multiplied by its square.
        form: "softmax" (one distribution over classes), "sigmoid" (one for each class), or "auto" by the card's task.
    """

    student: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 0.0
    temperature: float = 4.0
    form: str = "auto"

    def __post_init__(self) -> None:
        _require(0 <= self.weight <= 1, "compress.distil.weight", "0 <= weight <= 1", self.weight)
        _require(self.temperature > 0, "compress.distil.temperature", "above 0", self.temperature)
        _require_one_of(self.form, DISTIL_FORMS, "compress.distil.form")
        _require(
            bool(self.student) or not self.arguments,
            "compress.distil.arguments",
            "none without compress.distil.student",
            dict(self.arguments),
        )


@dataclass(frozen=True)
class PruneOptions:
    """Structured channel pruning.

    Attributes:
        rate: Share of the channels removed in every prunable group, 0 to under 1; 0 switches pruning off.
        scope: "all" prunes residual streams too; "inner" leaves every group alone whose channels are coupled across
            blocks by additions.
        round_to: Kept channels are rounded up to a multiple of this.
        ignore: Glob patterns of module names whose outputs are never pruned.
        importance: Which channels go first: those of smallest "l1" or "l2" filter norm, "bn-scale" (smallest batch
            normalisation weight), "taylor" (smallest first-order change of the loss) or "random".
        rounds: In how many steps the rate is reached, each removing the same share of what is left; the network is
            trained between them.
        round_epochs: Epochs of training after each round but the last.
        images: Training images from which "taylor" estimates, class-balanced.
    """

    rate: float = 0.3
    scope: str = "all"
    round_to: int = 1
    ignore: tuple[str, ...] = ()
    importance: str = "l1"
    rounds: int = 1
    round_epochs: int = 1
    images: int = 256

    def __post_init__(self) -> None:
        _require(0 <= self.rate < 1, "compress.prune.rate", "0 <= rate < 1", self.rate)
        _require_one_of(self.scope, PRUNE_SCOPES, "compress.prune.scope")
        _require(self.round_to >= 1, "compress.prune.round_to", "at least 1", self.round_to)
        _require_one_of(self.importance, IMPORTANCES, "compress.prune.importance")
        _require(self.rounds >= 1, "compress.prune.rounds", "at least 1", self.rounds)
        _require(self.round_epochs >= 0, "compress.prune.round_epochs", "at least 0", self.round_epochs)
        _require(self.images >= 1, "compress.prune.images", "at least 1", self.images)


@dataclass(frozen=True)
class SparsifyOptions:
    """Unstructured pruning: single weights of convolutions held at zero.

    Attributes:
        sparsity: Share of the weights that are zero at the end, 0 to under 1; 0 switches it off. Must be 0.5 for
            the pattern "2:4".
        pattern: "unstructured" (the globally smallest magnitudes go) or "2:4" (of four consecutive inputs of an
            output channel the two smallest go, which sparse tensor cores need).
        step: Share of the remaining weights that goes in one round; the last round goes to `sparsity` exactly. The
            paper's 0.2; ignored for "2:4", which takes one round.
        round_epochs: Epochs of training after each round but the last.
        linear: Linear layers are made sparse too; the paper leaves the head alone.
        ignore: Glob patterns of module names that stay dense.
    """

    sparsity: float = 0.0
    pattern: str = "unstructured"
    step: float = 0.2
    round_epochs: int = 1
    linear: bool = False
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(0 <= self.sparsity < 1, "compress.sparsify.sparsity", "0 <= sparsity < 1", self.sparsity)
        _require_one_of(self.pattern, SPARSE_PATTERNS, "compress.sparsify.pattern")
        _require(
            self.pattern == "unstructured" or self.sparsity in (0, 0.5),
            "compress.sparsify.sparsity",
            "0.5 for the pattern 2:4",
            self.sparsity,
        )
        _require(0 < self.step < 1, "compress.sparsify.step", "0 < step < 1", self.step)
        _require(self.round_epochs >= 0, "compress.sparsify.round_epochs", "at least 0", self.round_epochs)


@dataclass(frozen=True)
class MatchingOptions:
    """The term that holds the student's map to the teacher's (Park et al. 2020).

    Attributes:
        loss: "swa", "ewa", "sswa" or "none".
        beta: Weight of the term. 100 is the paper's; our term is scaled so that it does not depend on map size.
        drop_rate: Share of the teacher's channels zeroed per step, "sswa" only (the paper's recipes: 0.3).
        distance: "squared-l2" of maps divided by their L2 norm, or "cosine". The second is 1 - cosine, so that its
            beta is 2/49 of the first's: 4.08 for the paper's 100.
        pooling: How a channel's gradient becomes its weight: "sum" over the map, the paper's, or "mean", Grad-CAM's.
            Maps are normalised, so both give the same loss at one tap.
        classes: Which classes are explained: the teacher's "top" one, or every one it answers "positive" (multi-label).
        taps: Modules of the teacher whose maps are matched; empty for the card's.
        student_taps: The same modules of the student, in the same order; empty where they have the same names, or
            where a student of another architecture has one tap that can be found.
        weights: Weight of each tap, which are divided by their sum; empty for equal ones.
    """

    loss: str = "swa"
    beta: float = 100.0
    drop_rate: float = 0.3
    distance: str = "squared-l2"
    pooling: str = "sum"
    classes: str = "top"
    taps: tuple[str, ...] = ()
    student_taps: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _require_one_of(self.loss, MATCHING_LOSSES, "compress.matching.loss")
        _require(self.beta >= 0, "compress.matching.beta", "at least 0", self.beta)
        _require(0 <= self.drop_rate < 1, "compress.matching.drop_rate", "0 <= drop_rate < 1", self.drop_rate)
        _require_one_of(self.distance, DISTANCES, "compress.matching.distance")
        _require_one_of(self.pooling, POOLINGS, "compress.matching.pooling")
        _require_one_of(self.classes, CLASS_CHOICES, "compress.matching.classes")
        _require(
            all(weight >= 0 for weight in self.weights) and (not self.weights or sum(self.weights) > 0),
            "compress.matching.weights",
            "none below 0, and one above",
            self.weights,
        )


@dataclass(frozen=True)
class FinetuneOptions:
    """How a student is trained: SGD with the paper's momentum and weight decay.

    Attributes:
        epochs: Passes over the training images; 0 switches training off.
        batch_size: Images a step.
        learning_rate: At the start.
        schedule: "constant" (the paper's), "cosine" to zero, or "step": multiplied by `step_factor` after each share
            of the steps in `step_at`.
        step_at: Shares of all steps, increasing, each between 0 and 1.
        step_factor: See `schedule`.
        momentum: SGD momentum.
        weight_decay: L2 penalty.
        clip_norm: Gradients are scaled down to this L2 norm over all parameters; 0 for no clipping.
        ema_decay: The student ends as the exponential moving average of its weights, with this decay a step; 0 for
            its last weights.
        batch_norm: "batch" (statistics follow the training batches) or "running" (the stored statistics are used and
            kept), with which the student is matched exactly as it will be deployed.
        mixed_precision: "auto" (float16 on a GPU, off on a CPU), "off", "float16" (a GPU's) or "bfloat16". The loss
            itself and the maps are float32 throughout.
        patience: Stop when the agreement with the teacher on held-back training images (mean cosine of the maps, a
            changed answer counting as 0) has not risen for this many epochs, and keep the best epoch's weights; 0
            trains to the end.
        held_back: Share of each class's training images held back for `patience`, and never trained on.
        log: What is kept of every step, where the run has a folder for it: "csv", "tensorboard" (needs that package)
            or "none".
        flip: Random horizontal flips; off where left and right mean something.
        shift: Random translation by up to this many pixels, edges repeated.
        max_images: At most this many training images, class-balanced; 0 for all.
    """

    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 0.01
    schedule: str = "cosine"
    step_at: tuple[float, ...] = (0.5, 0.75)
    step_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    batch_norm: str = "batch"
    mixed_precision: str = "auto"
    patience: int = 0
    held_back: float = 0.1
    log: str = "csv"
    flip: bool = True
    shift: int = 0
    max_images: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("batch_size", 2), ("shift", 0), ("max_images", 0), ("patience", 0)):
            _require(
                getattr(self, name) >= least, f"compress.finetune.{name}", f"at least {least}", getattr(self, name)
            )
        for name in ("weight_decay", "clip_norm"):
            _require(getattr(self, name) >= 0, f"compress.finetune.{name}", "at least 0", getattr(self, name))
        _require(self.learning_rate > 0, "compress.finetune.learning_rate", "above 0", self.learning_rate)
        _require_one_of(self.schedule, SCHEDULES, "compress.finetune.schedule")
        _require_one_of(self.batch_norm, BATCH_NORMS, "compress.finetune.batch_norm")
        _require_one_of(self.mixed_precision, MIXED_PRECISIONS, "compress.finetune.mixed_precision")
        _require_one_of(self.log, LOGS, "compress.finetune.log")
        _require(0 <= self.momentum < 1, "compress.finetune.momentum", "0 <= momentum < 1", self.momentum)
        _require(0 <= self.ema_decay < 1, "compress.finetune.ema_decay", "0 <= ema_decay < 1", self.ema_decay)
        _require(0 < self.held_back < 1, "compress.finetune.held_back", "0 < held_back < 1", self.held_back)
        _require(0 < self.step_factor <= 1, "compress.finetune.step_factor", "0 < step_factor <= 1", self.step_factor)
        rising = all(0 < at < 1 for at in self.step_at) and list(self.step_at) == sorted(set(self.step_at))
        _require(rising, "compress.finetune.step_at", "increasing shares between 0 and 1", self.step_at)


@dataclass(frozen=True)
class QatOptions:
    """Quantisation-aware training: weights and scales learn with the rounding of the engine in place.

    The loss is that of `compress` (supervised, distilled, matched); batch size, augmentation and the like are those of
    `compress.finetune`.

    Attributes:
        epochs: Passes over the training images; 0 switches it off.
        learning_rate: Of the weights, at the start; cosine to zero.
        scale_learning_rate: Of the scales' logarithms; 0 keeps them as they were calibrated.
    """

    epochs: int = 0
    learning_rate: float = 0.001
    scale_learning_rate: float = 0.001

    def __post_init__(self) -> None:
        _require(self.epochs >= 0, "qat.epochs", "at least 0", self.epochs)
        _require(self.learning_rate > 0, "qat.learning_rate", "above 0", self.learning_rate)
        _require(self.scale_learning_rate >= 0, "qat.scale_learning_rate", "at least 0", self.scale_learning_rate)


@dataclass(frozen=True)
class CompressOptions:
    """Everything the compress stage can be told."""

    prune: PruneOptions = field(default_factory=PruneOptions)
    finetune: FinetuneOptions = field(default_factory=FinetuneOptions)
    matching: MatchingOptions = field(default_factory=MatchingOptions)
    distil: DistilOptions = field(default_factory=DistilOptions)
    sparsify: SparsifyOptions = field(default_factory=SparsifyOptions)
