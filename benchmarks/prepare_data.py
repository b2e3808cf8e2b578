"""Unpack the shared data sets and weights into the forms that edgekit reads.

    python benchmarks/prepare_data.py OUTPUT [--shared DIR]

writes OUTPUT/cifar10 (class folders under train and test), OUTPUT/cifar10-small (the first 300 and 100 images of each
class), OUTPUT/camvid-person (labels.csv with person masks) and OUTPUT/models/*.pt (edgekit checkpoints). What is
already there and unchanged is left alone.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgekit.core.canonical import JsonValue
from edgekit.core.progress import NullObserver
from edgekit.core.stages import Stage, run_stage
from edgekit.teacher.checkpoint import save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# Name of the shared weights: architecture, its arguments, and the tap their card names.
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "cifar10-resnet8-mlperf": ("mlperf_resnet8", {}, "stage3"),
    "cifar10-resnet20": ("cifar_resnet", {"depth": 20}, "layer3"),
    "cifar10-resnet32": ("cifar_resnet", {"depth": 32}, "layer3"),
    "cifar10-resnet44": ("cifar_resnet", {"depth": 44}, "layer3"),
    "cifar10-resnet56": ("cifar_resnet", {"depth": 56}, "layer3"),
    "person-mobilenetv1-96": ("mobilenet_v1", {}, "blocks.12"),
}
_VERSION = 1


class _Printer(NullObserver):
    def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
        print(f"{stage}: {summary} ({'unchanged' if skipped else f'{seconds:.0f} s'})", flush=True)


def unpack_cifar(shared: Path, destination: Path, limits: Mapping[str, int | None]) -> None:
    """Class folders under train and test, at most `limits[split]` images of each class."""
    archives = {split: shared / "cifar10" / f"{split}.tar.gz" for split in limits}

    def body(folder: Path) -> Mapping[str, JsonValue]:
        count = 0
        for split, archive in archives.items():
            taken: dict[str, int] = {}
            with tarfile.open(archive) as tar:
                for member in tar:
                    kind = member.name.split("/")[1] if member.isfile() else ""
                    if kind and (limits[split] is None or taken.get(kind, 0) < limits[split]):
                        tar.extract(member, folder, filter="data")
                        taken[kind] = taken.get(kind, 0) + 1
                        count += 1
        return {"summary": f"{count} images"}

    options: dict[str, JsonValue] = {"limits": dict(limits)}
    run_stage(Stage(destination.name, _VERSION, options, archives), destination, body, _Printer())


def unpack_camvid(shared: Path, destination: Path) -> None:
    """Windows of street scenes labelled person or no_person; masks are 255 on the labelled person."""
    inputs = {name: shared / "camvid-crops" / name for name in ("camvid-crops.tar", "labels.json")}

    def body(folder: Path) -> Mapping[str, JsonValue]:
        items = json.loads(inputs["labels.json"].read_text(encoding="utf-8"))["items"]
        rows = []
        (folder / "masks").mkdir()
        with tarfile.open(inputs["camvid-crops.tar"]) as tar:
            for item in items:
                tar.extract(item["image"], folder, filter="data")
                if item["person"]:
                    stream = tar.extractfile(item["mask"])
                    assert stream is not None
                    person = np.asarray(Image.open(io.BytesIO(stream.read()))) == item["mask_value"]
                    Image.fromarray(person.astype(np.uint8) * 255).save(folder / item["mask"])
                label = "person" if item["person"] else "no_person"
                rows.append((item["image"], label, item["split"], item["mask"] if item["person"] else ""))
        with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as table:
            csv.writer(table, lineterminator="\n").writerows([("image", "label", "split", "mask"), *rows])
        return {"summary": f"{len(rows)} windows, {sum(row[1] == 'person' for row in rows)} with a person"}

    run_stage(Stage(destination.name, _VERSION, {}, inputs), destination, body, _Printer())


def card_of(shared: Path, name: str) -> dict[str, Any]:
    """The shared card in the form of `ModelCard.to_dict`."""
    raw = json.loads((shared / "models" / f"{name}.json").read_text(encoding="utf-8"))
    entry = raw["input"]
    return {
        "classes": raw["classes"],
        "tap": MODELS[name][2],
        "input": {
            "height": entry["shape"][1],
            "width": entry["shape"][2],
            "channel_order": entry["channels"],
            "divisor": 1.0 if entry["scale"].startswith("raw") else 255.0,
            "mean": entry["mean"],
            "std": entry["std"],
        },
    }


def convert_models(shared: Path, destination: Path) -> None:
    """One edgekit checkpoint for each of the shared weights."""
    inputs = {name: shared / "models" / f"{name}.safetensors" for name in MODELS}
    cards = {f"{name} card": shared / "models" / f"{name}.json" for name in MODELS}

    def body(folder: Path) -> Mapping[str, JsonValue]:
        for name, (arch, arguments, _) in MODELS.items():
            options = LoadOptions(arch=arch, arguments=arguments, card=card_of(shared, name))
            save_checkpoint(folder / f"{name}.pt", load_model(inputs[name], options))
        return {"summary": f"{len(MODELS)} checkpoints"}

    run_stage(Stage(destination.name, _VERSION, {}, inputs | cards), destination, body, _Printer())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with cifar10, camvid-crops and models")
    arguments = parser.parse_args()
    output: Path = arguments.output
    convert_models(arguments.shared, output / "models")
    unpack_cifar(arguments.shared, output / "cifar10-small", {"train": 300, "test": 100})
    unpack_cifar(arguments.shared, output / "cifar10", {"train": None, "test": None})
    unpack_camvid(arguments.shared, output / "camvid-person")


if __name__ == "__main__":
    main()
