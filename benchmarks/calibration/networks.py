"""The networks of the tables: where each comes from, what its map lives on, and the images that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from prepare_data import convert_models

from calibration.data import Images, read_images
from calibration.training import TRAINED, train_mobile
from edgekit.compress.options import CompressOptions, FinetuneOptions, MatchingOptions, PruneOptions
from edgekit.compress.stage import STUDENT_NAME, CompressRequest, compress
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

__all__ = ["NETWORKS", "Network", "checkpoint_of"]


@dataclass(frozen=True)
class Network:
    """One network with one tap.

    Attributes:
        name: In tables, patterns and folders.
        dataset: Of `calibration.data`.
        source: Kind of origin and name in it: "published:NAME" weights, "trained:NAME" here, "pruned:NAME" of
            published weights.
        about: For the text beside the tables.
        tap: Module that is explained; empty for the card's.
    """

    name: str
    dataset: str
    source: str
    about: str
    tap: str = ""

    @property
    def load(self) -> LoadOptions:
        """How its checkpoint is loaded."""
        kind, _, name = self.source.partition(":")
        card = {"tap": self.tap} if self.tap else {}
        return LoadOptions(arch=TRAINED[name] if kind == "trained" else None, card=card)


_CIFAR, _CAMVID = "cifar10", "camvid-person"

NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        network.name: network
        for network in (
            Network("cifar10-resnet20", _CIFAR, "published:cifar10-resnet20", "ResNet-20, published weights"),
            Network("cifar10-resnet56", _CIFAR, "published:cifar10-resnet56", "ResNet-56, published weights"),
            Network(
                "cifar10-resnet8-mlperf",
                _CIFAR,
                "published:cifar10-resnet8-mlperf",
                "MLPerf Tiny's ResNet-8, raw pixels",
            ),
            Network(
                "person-mobilenetv1-96",
                _CAMVID,
                "published:person-mobilenetv1-96",
                "MLPerf Tiny's MobileNet of width 0.25 on street scenes; its map has nine cells",
            ),
            Network(
                "cifar10-resnet20-pruned",
                _CIFAR,
                "pruned:cifar10-resnet20",
                "half of ResNet-20's inner channels pruned, fine-tuned on 3,000 images with SWA",
            ),
            Network(
                "cifar10-mobilenetv2-like",
                _CIFAR,
                "trained:cifar10-mobilenetv2-like",
                "inverted residuals, depthwise, ReLU6",
            ),
            Network(
                "cifar10-mobilenetv3-like",
                _CIFAR,
                "trained:cifar10-mobilenetv3-like",
                "depthwise, hard-swish, squeeze-excite, hidden layer in the head",
            ),
            Network(
                "cifar10-resnet20-mid",
                _CIFAR,
                "published:cifar10-resnet20",
                "ResNet-20 explained in its middle, after the second stage; traced gradient",
                tap="layer2",
            ),
        )
    }
)

_PRUNED = CompressOptions(
    prune=PruneOptions(rate=0.5, scope="inner"),
    finetune=FinetuneOptions(epochs=6, learning_rate=0.01),
    matching=MatchingOptions(loss="swa"),
)


def checkpoint_of(network: Network, shared: Path, work: Path) -> Path:
    """The network's checkpoint, made where it is not there yet."""
    kind, _, name = network.source.partition(":")
    makers: Mapping[str, Callable[[str, Path, Path], Path]] = {
        "published": _published,
        "trained": _trained,
        "pruned": _pruned,
    }
    return makers[kind](name, shared, work)


def _published(name: str, shared: Path, work: Path) -> Path:
    convert_models(shared, work / "models")
    return work / "models" / f"{name}.pt"


def _trained(name: str, shared: Path, work: Path) -> Path:
    checkpoint = work / "trained" / f"{name}.pt"
    train_mobile(name, shared, checkpoint)
    return checkpoint


def _pruned(name: str, shared: Path, work: Path) -> Path:
    teacher = _published(name, shared, work)
    spec = load_model(teacher).card.input
    images: Images = read_images(_CIFAR, load_model(teacher).card.classes, shared, work)
    destination = work / "pruned" / name
    request = CompressRequest(teacher, data=images.train.for_training(spec), options=_PRUNED, threads=1)
    compress(request, destination)
    return destination / STUDENT_NAME
