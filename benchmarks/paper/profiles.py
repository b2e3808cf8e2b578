"""How long everything is trained: small enough for two cores, or in full for a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from edgekit.compress.options import DistilOptions, FinetuneOptions, PruneOptions, QatOptions, SparsifyOptions

__all__ = ["PROFILES", "EvaluationSettings", "Profile", "Recipe"]

_ALL = ("none", "ewa", "swa", "sswa")
_TWO = ("none", "swa")
_FOUR_KINDS = dict.fromkeys(("structured", "distil", "unstructured", "qat"), _ALL)


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured on how much.

    Attributes:
        relevance_pairs: Test pairs with LRP, EBP and RAP.
        curve_pairs: Test pairs with deletion and insertion.
        curve_steps: Steps of these curves.
        cifar_images: Test images of CIFAR-10 whose maps are compared.
    """

    relevance_pairs: int
    curve_pairs: int
    curve_steps: int
    cifar_images: int


@dataclass(frozen=True)
class Recipe:
    """How a student is made; the same for all matching losses.

    Attributes:
        finetune: Training, or that after the last round.
        distil: Learning from the teacher's answers.
        prune: Structured pruning.
        sparsify: Unstructured pruning.
        round_images: Training images of each of its rounds but the last, class-balanced; 0 for all.
        qat: Training with the rounding in place.
    """

    finetune: FinetuneOptions
    distil: DistilOptions = field(default_factory=DistilOptions)
    prune: PruneOptions = field(default_factory=lambda: PruneOptions(rate=0.0))
    sparsify: SparsifyOptions = field(default_factory=SparsifyOptions)
    round_images: int = 0
    qat: QatOptions = field(default_factory=QatOptions)


@dataclass(frozen=True)
class Profile:
    """Settings of a whole table.

    Attributes:
        name: "cpu" or "gpu".
        device: Where networks are trained and explained.
        beta: Weight of the matching term: the paper's.
        kinds: Data set and network to the kinds of compression, and their losses.
        teachers: Training of teachers, by (data set, network).
        recipes: By kind, without epochs.
        epochs: Of students, by (kind, data set, network).
        evaluation: What is measured.
        cifar_images: Training images of CIFAR-10's students, class-balanced; 0 for all that are loaded.
    """

    name: str
    device: str
    kinds: Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]]
    teachers: Mapping[tuple[str, str], FinetuneOptions]
    recipes: Mapping[str, Recipe]
    epochs: Mapping[tuple[str, str, str], int]
    evaluation: EvaluationSettings
    cifar_images: int = 0
    beta: float = 100.0

    def teacher(self, dataset: str, network: str) -> FinetuneOptions:
        """How a teacher is trained."""
        return self.teachers[dataset, network]

    def recipe(self, dataset: str, network: str, kind: str) -> Recipe:
        """How a student is made."""
        recipe, epochs = self.recipes[kind], self.epochs[kind, dataset, network]
        if kind == "qat":
            return replace(recipe, qat=replace(recipe.qat, epochs=epochs))
        images = self.cifar_images if dataset == "cifar10" else 0
        return replace(recipe, finetune=replace(recipe.finetune, epochs=epochs, max_images=images))


_STRUCTURED = Recipe(FinetuneOptions(batch_size=32, learning_rate=0.03), prune=PruneOptions(rate=0.5))
_RECIPES = {
    "structured": _STRUCTURED,
    "scrambled": _STRUCTURED,
    "distil": Recipe(FinetuneOptions(batch_size=32, learning_rate=0.03), DistilOptions(weight=0.9, temperature=4.0)),
    "unstructured": Recipe(
        FinetuneOptions(batch_size=32, learning_rate=0.01),
        sparsify=SparsifyOptions(sparsity=0.9, step=0.2),
        round_images=160,
    ),
    "qat": Recipe(FinetuneOptions(batch_size=32), qat=QatOptions(epochs=1)),
}
_KINDS = {
    **{(dataset, network): _FOUR_KINDS for dataset in ("camvid", "busi") for network in ("resnet20", "mobilenet")},
    ("cifar10", "resnet20"): {"structured": _ALL, "distil": _ALL},
    **{(dataset, "flat"): {"structured": _TWO, "scrambled": _TWO} for dataset in ("camvid", "busi")},
}


def _teachers(epochs: Mapping[tuple[str, str], int], cifar_images: int) -> dict[tuple[str, str], FinetuneOptions]:
    options = FinetuneOptions(batch_size=32, learning_rate=0.02)
    made = {key: replace(options, epochs=count) for key, count in epochs.items()}
    made["cifar10", "resnet20"] = replace(made["cifar10", "resnet20"], max_images=cifar_images, shift=2)
    return made


def _epochs(table: Mapping[str, Mapping[tuple[str, str], int]]) -> dict[tuple[str, str, str], int]:
    return {(kind, *key): count for kind, row in table.items() for key, count in row.items()}


def _row(camvid: int, busi: int, cifar10: int = 0) -> dict[tuple[str, str], int]:
    """Epochs of ResNet-20 and MobileNet, of which an epoch takes about as long."""
    row = {(name, net): n for name, n in (("camvid", camvid), ("busi", busi)) for net in ("resnet20", "mobilenet")}
    return {**row, ("cifar10", "resnet20"): cifar10}


def _mobilenet(camvid: int, busi: int) -> dict[tuple[str, str], int]:
    """More epochs for MobileNet alone, which learns slower: in as few it stays short of its teacher's answers."""
    return {("camvid", "mobilenet"): camvid, ("busi", "mobilenet"): busi}


_FLAT = {("camvid", "flat"): 6, ("busi", "flat"): 12}

_CPU = Profile(
    name="cpu",
    device="cpu",
    kinds=_KINDS,
    teachers=_teachers(
        {**_row(6, 12, cifar10=1), ("busi", "mobilenet"): 24, ("camvid", "flat"): 12, ("busi", "flat"): 24}, 5000
    ),
    recipes=_RECIPES,
    epochs=_epochs(
        {
            "structured": {**_row(3, 7, cifar10=1), **_FLAT, **_mobilenet(6, 14)},
            "scrambled": _FLAT,
            "distil": {**_row(4, 10, cifar10=1), **_mobilenet(10, 24)},
            "unstructured": {**_row(2, 4), **_mobilenet(2, 8)},
            "qat": _row(1, 2),
        }
    ),
    evaluation=EvaluationSettings(relevance_pairs=24, curve_pairs=24, curve_steps=16, cifar_images=200),
    cifar_images=5000,
)
_GPU = replace(
    _CPU,
    name="gpu",
    device="cuda",
    recipes={**_RECIPES, "unstructured": replace(_RECIPES["unstructured"], round_images=0)},
    teachers=_teachers({**_row(30, 60, cifar10=3), ("camvid", "flat"): 60, ("busi", "flat"): 120}, 0),
    epochs=_epochs(
        {
            "structured": {**_row(30, 60, cifar10=10), ("camvid", "flat"): 30, ("busi", "flat"): 60},
            "scrambled": {("camvid", "flat"): 30, ("busi", "flat"): 60},
            "distil": _row(120, 240, cifar10=30),
            "unstructured": _row(30, 60),
            "qat": _row(10, 20),
        }
    ),
    evaluation=EvaluationSettings(relevance_pairs=1000, curve_pairs=1000, curve_steps=64, cifar_images=1000),
    cifar_images=0,
)

PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in (_CPU, _GPU)})
