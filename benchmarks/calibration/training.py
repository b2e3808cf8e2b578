"""The mobile-style networks' training: short, from a seed, once; the checkpoint lies in the work folder afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from finetune_cifar import Options, Training, accuracy, read_archive
from prepare_data import card_of

from edgekit.core.canonical import write_json
from edgekit.interface.card import ModelCard
from edgekit.teacher.architectures.construct import construct
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint

__all__ = ["TRAINED", "train_mobile"]

# Network to the factory that a checkpoint names.
TRAINED: Mapping[str, str] = MappingProxyType(
    {
        "cifar10-mobilenetv2-like": "calibration.mobile:inverted",
        "cifar10-mobilenetv3-like": "calibration.mobile:excited",
    }
)
# Enough for two answers in three; nothing is tuned, and nothing is chosen on the test images.
_OPTIONS = Options(images=20000, epochs=12, learning_rate=0.1, weight_decay=5e-4)


def train_mobile(name: str, shared: Path, checkpoint: Path) -> None:
    """Write a trained network's checkpoint, and its accuracy on all test images beside it, unless it is there.

    A run that was killed goes on after the last finished epoch.
    """
    if checkpoint.is_file():
        return
    raw = card_of(shared, "cifar10-resnet20")
    card = ModelCard.from_dict({**raw, "tap": "last"}, where=name)
    torch.manual_seed(0)
    arch = TRAINED[name]
    model = construct(arch, {"classes": len(card.classes)})
    training = Training(model, read_archive(shared / "cifar10" / "train.tar.gz"), card.input, _OPTIONS)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    state = checkpoint.with_suffix(".state")
    training.take_up(state)
    while training.epoch < _OPTIONS.epochs:
        training.run_epoch()
        training.put_down(state)
        print(f"{name}: epoch {training.epoch} of {_OPTIONS.epochs}, loss {training.losses[-1]:.3f}", flush=True)
    trained = training.model.to(memory_format=torch.contiguous_format).eval()
    test = read_archive(shared / "cifar10" / "test.tar.gz")
    found = accuracy(trained, test, card.input)
    write_json(checkpoint.with_suffix(".json"), {"test_accuracy": found, "training_seconds": round(training.seconds)})
    save_checkpoint(checkpoint, LoadedModel(trained, card, arch, {"classes": len(card.classes)}, None, ""))
    state.unlink()
