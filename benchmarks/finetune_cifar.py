"""Fine-tune the shared CIFAR-10 networks on the JPEG copy of CIFAR-10, which costs them ten points.

    python benchmarks/finetune_cifar.py OUTPUT [--models NAME ...] [--images N] [--epochs N]

starts from the published weights and writes OUTPUT/<name>-jpeg.pt, an edgekit checkpoint, and what it reached to
benchmarks/results/cifar_finetune.json. The result is measured once, on all of cifar10/test, after the last epoch:
nothing is chosen on the test images. Killed and started again, it continues after the last finished epoch and ends
with the same weights.
"""

from __future__ import annotations

import argparse
import io
import math
import tarfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from prepare_data import MODELS, SHARED, card_of
from torch import nn

from edgekit.core.canonical import read_json, write_json
from edgekit.core.environment import environment_print
from edgekit.core.files import write_bytes
from edgekit.images.decode import decode_image
from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess
from edgekit.teacher.checkpoint import save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

RESULTS = Path(__file__).with_name("results") / "cifar_finetune.json"
DEFAULT_MODELS = ("cifar10-resnet20", "cifar10-resnet56")
_FORMAT = "edgekit.benchmark.cifar-finetune/1"


@dataclass(frozen=True)
class Options:
    """SGD with momentum, a cosine learning rate to zero, random crops after padding by 4, and flips.

    Attributes:
        images: Training images an epoch, drawn anew for each; 0 for all 50000.
        epochs: Number of such draws.
        learning_rate: At the start.
        batch_size: Images a step.
        weight_decay: L2 penalty.
        seed: Of draws, order, crops and flips.
    """

    images: int = 0
    epochs: int = 4
    learning_rate: float = 0.02
    batch_size: int = 128
    weight_decay: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class Labelled:
    """Decoded images, uint8 [N, 32, 32, 3], and class indices, int64 [N]."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def read_archive(path: Path) -> Labelled:
    with tarfile.open(path) as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
        content = [(name, stream.read()) for name, stream in files if stream is not None]
    classes = sorted({name.split("/")[1] for name, _ in content})
    pixels = np.stack([decode_image(data, 32, 32) for _, data in content])
    return Labelled(pixels, np.array([classes.index(name.split("/")[1]) for name, _ in content], dtype=np.int64))


def accuracy(model: nn.Module, data: Labelled, spec: InputSpec) -> float:
    model.eval()
    hits = 0
    with torch.no_grad():
        for start in range(0, len(data.pixels), 500):
            part = torch.from_numpy(preprocess(data.pixels[start : start + 500], spec))
            hits += int((model(part).argmax(1).numpy() == data.labels[start : start + 500]).sum())
    return hits / len(data.pixels)


def varied(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Random 32x32 crops of the images padded by four black pixels, half of them mirrored."""
    padded = np.pad(pixels, ((0, 0), (4, 4), (4, 4), (0, 0)))
    result = np.empty_like(pixels)
    for index, (down, across) in enumerate(rng.integers(0, 9, size=(len(pixels), 2))):
        crop = padded[index, down : down + 32, across : across + 32]
        result[index] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return result


class Training:
    """One network's fine-tuning, epoch by epoch, with a state that can be put down and taken up."""

    def __init__(self, model: nn.Module, train: Labelled, spec: InputSpec, options: Options) -> None:
        self.model = model.requires_grad_(True).to(memory_format=torch.channels_last)
        self.train_data, self.spec, self.options = train, spec, options
        self.optimiser = torch.optim.SGD(
            model.parameters(), lr=options.learning_rate, momentum=0.9, weight_decay=options.weight_decay, nesterov=True
        )
        self.losses: list[float] = []
        self.seconds = 0.0

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.losses)

    def run_epoch(self) -> None:
        """Train for one epoch."""
        options, begun = self.options, time.monotonic()
        # A generator of each epoch's own: taking up after an epoch then needs no generator state.
        rng = np.random.default_rng((options.seed, self.epoch))
        count = options.images or len(self.train_data.labels)
        order = rng.permutation(len(self.train_data.labels))[:count]
        steps = count // options.batch_size
        self.model.train()
        total = 0.0
        for step, chosen in enumerate(np.array_split(order[: steps * options.batch_size], steps)):
            done = (self.epoch + step / steps) / options.epochs
            for group in self.optimiser.param_groups:
                group["lr"] = options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
            pixels = varied(self.train_data.pixels[chosen], rng)
            images = torch.from_numpy(preprocess(pixels, self.spec)).to(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(self.model(images), torch.from_numpy(self.train_data.labels[chosen]))
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            total += loss.item()
        self.losses.append(total / steps)
        self.seconds += time.monotonic() - begun

    def put_down(self, path: Path) -> None:
        """Store everything the next epoch depends on."""
        buffer = io.BytesIO()
        state: dict[str, Any] = {
            "options": asdict(self.options),
            "losses": self.losses,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        torch.save(state, buffer)
        write_bytes(path, buffer.getvalue())

    def take_up(self, path: Path) -> None:
        """Continue from what was put down under the same options, where there is something."""
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        if state["options"] == asdict(self.options):
            self.losses, self.seconds = list(state["losses"]), state["seconds"]
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])


def finetune(name: str, shared: Path, output: Path, options: Options) -> dict[str, Any]:
    arch, arguments, _ = MODELS[name]
    load = LoadOptions(arch=arch, arguments=arguments, card=card_of(shared, name))
    loaded = load_model(shared / "models" / f"{name}.safetensors", load)
    test = read_archive(shared / "cifar10" / "test.tar.gz")
    before = accuracy(loaded.model, test, loaded.card.input)
    print(f"{name}: {before:.4f} before", flush=True)
    train = read_archive(shared / "cifar10" / "train.tar.gz")
    training = Training(loaded.model, train, loaded.card.input, options)
    state = output / f"{name}.state.pt"
    training.take_up(state)
    while training.epoch < options.epochs:
        training.run_epoch()
        training.put_down(state)
        print(f"{name}: epoch {training.epoch}/{options.epochs}, loss {training.losses[-1]:.3f}", flush=True)
    training.model.to(memory_format=torch.contiguous_format)
    digest = save_checkpoint(output / f"{name}-jpeg.pt", replace(loaded, model=training.model.eval()))
    after = accuracy(training.model, test, loaded.card.input)
    print(f"{name}: {after:.4f} after", flush=True)
    state.unlink()
    return {
        "options": asdict(options),
        "test_images": len(test.labels),
        "test_accuracy_before": before,
        "test_accuracy_after": after,
        "train_losses": training.losses,
        "training_seconds": round(training.seconds),
        "checkpoint_sha256": digest,
        "environment": environment_print(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder for the checkpoints")
    parser.add_argument("--models", nargs="+", choices=[m for m in MODELS if "resnet" in m], default=DEFAULT_MODELS)
    parser.add_argument("--images", type=int, default=Options.images)
    parser.add_argument("--epochs", type=int, default=Options.epochs)
    parser.add_argument("--learning-rate", type=float, default=Options.learning_rate)
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves the choice to torch")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with cifar10 and models")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    options = Options(given.images, given.epochs, given.learning_rate, seed=given.seed)
    given.output.mkdir(parents=True, exist_ok=True)
    for name in given.models:
        known = read_json(given.results) if given.results.is_file() else {"format": _FORMAT, "models": {}}
        earlier = known["models"].get(name)
        if earlier and earlier["options"] == asdict(options) and (given.output / f"{name}-jpeg.pt").is_file():
            print(f"{name}: already done, {earlier['test_accuracy_after']:.4f}")
            continue
        known["models"][name] = finetune(name, given.shared, given.output, options)
        write_json(given.results, known)


if __name__ == "__main__":
    main()
