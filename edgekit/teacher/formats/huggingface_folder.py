"""A folder that `save_pretrained` of Hugging Face transformers wrote for an image classifier.

The model's own code comes from transformers, never from the folder: a configuration that asks for other code is
refused. Weights come from the folder alone, and every one of them must be there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edgekit.core.canonical import parse_strict
from edgekit.core.files import read_bytes
from edgekit.errors import BadInputError, IntegrityError
from edgekit.teacher.architectures.libraries import imported_library
from edgekit.teacher.architectures.transformers_classifier import checked_config
from edgekit.teacher.capabilities import AS_NETWORK
from edgekit.teacher.card_entries import different_names
from edgekit.teacher.formats.exported_program import quiet_torch
from edgekit.teacher.formats.model_path import ModelPath
from edgekit.teacher.formats.protocol import Content
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.weights import check_weights, raised_precision

__all__ = ["FORMAT", "HuggingFaceFolder"]

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_SAFE = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# Files that make transformers load something else besides.
_FOREIGN = ("adapter_config.json",)
_ARCH = "transformers"


class HuggingFaceFolder:
    """config.json and weights."""

    name = "Hugging Face folder"
    capabilities = AS_NETWORK

    def recognises(self, found: ModelPath) -> bool:
        """A folder with a configuration and weights."""
        return found.is_folder and _has(found.path, _CONFIG) and _has(found.path, *_SAFE, *_PICKLED)

    def load(self, found: ModelPath, options: LoadOptions) -> Content:  # noqa: ARG002 - it says all there is to say
        """Construct the classifier that the configuration describes, with the folder's weights."""
        folder = found.path
        foreign = [name for name in _FOREIGN if _has(folder, name)]
        if foreign:
            raise BadInputError("The folder refers to weights that lie elsewhere.", where=str(folder / foreign[0]))
        config = checked_config(_document(folder / _CONFIG), str(folder / _CONFIG))
        model, notes = _with_weights(folder, config)
        return Content(model, _card(folder, config), _ARCH, {"config": config}, notes=notes)


def _has(folder: Path, *names: str) -> bool:
    return any((folder / name).is_file() for name in names)


def _document(path: Path) -> dict[str, Any]:
    try:
        content = parse_strict(read_bytes(path), where=str(path))
    except IntegrityError as cause:
        raise BadInputError("The file is no JSON document.", where=str(path), found=cause.message) from cause
    if not isinstance(content, dict):
        raise BadInputError("The file holds no JSON object.", where=str(path))
    return content


def _with_weights(folder: Path, config: Mapping[str, Any]) -> tuple[nn.Module, tuple[str, ...]]:
    _check_shards(folder)
    (transformers,) = imported_library("transformers", "transformers")
    clean = dict(config)
    kind = clean.pop("model_type")
    # Weights of one folder are read in a moment; a bar of transformers' own would come between those of edgekit.
    transformers.utils.logging.disable_progress_bar()
    try:
        with quiet_torch():
            described = transformers.AutoConfig.for_model(kind, **clean)
            model, told = transformers.AutoModelForImageClassification.from_pretrained(
                str(folder),
                config=described,
                attn_implementation="eager",
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=_has(folder, *_SAFE),
                # For the other form; torch has to support it, or this fails.
                weights_only=True,
            )
    except Exception as cause:  # transformers raises nearly anything on files that are not what it expects
        raise BadInputError(
            "transformers cannot load an image classifier from the folder.",
            where=str(folder),
            found=(str(cause).strip() or type(cause).__name__).splitlines()[0][:300],
        ) from cause
    missing = [str(name) for kind in ("missing_keys", "mismatched_keys", "unexpected_keys") for name in told[kind]]
    if missing:
        raise BadInputError(
            "The weights do not belong to the configuration.",
            where=str(folder),
            found=", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
            hint="transformers would fill in random weights; save the trained classifier again with save_pretrained",
        )
    state = model.state_dict()
    check_weights(state, folder)
    return model.float(), raised_precision(state)


def _check_shards(folder: Path) -> None:
    """The index of weights in several files must name files of this folder."""
    for name in (_SAFE[1], _PICKLED[1]):
        if _has(folder, name):
            files = _document(folder / name).get("weight_map", {})
            outside = [file for file in set(files.values()) if Path(str(file)).name != file]
            if outside:
                raise BadInputError("The index names files outside the folder.", where=str(folder / name))


def _card(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    labels = config.get("id2label")
    if isinstance(labels, Mapping) and labels:
        ordered = sorted(labels.items(), key=lambda item: int(item[0]) if str(item[0]).isdecimal() else 0)
        entries["classes"] = different_names([str(label) for _, label in ordered])
    if config.get("problem_type") == "multi_label_classification":
        entries["task"] = "multi-label"
    if _has(folder, _PREPROCESSOR):
        entries["input"] = _input(_document(folder / _PREPROCESSOR), str(folder / _PREPROCESSOR))
    return entries


def _input(said: Mapping[str, Any], where: str) -> dict[str, Any]:
    """How the preprocessor feeds the network: x = (pixels * rescale_factor - image_mean) / image_std."""
    entries: dict[str, Any] = {}
    cropped = said.get("crop_size") if said.get("do_center_crop") else None
    size = _pair(cropped or said.get("size") or said.get("crop_size"))
    if size is not None:
        entries["height"], entries["width"] = size
    rescaled = said.get("do_rescale", True)
    factor = said.get("rescale_factor", 1 / 255) if rescaled else 1.0
    if not isinstance(factor, (int, float)) or factor <= 0:
        raise BadInputError("The preprocessor's rescale_factor cannot be used.", where=where, found=json.dumps(factor))
    # 0.00392156862745098 is 1 / 255 written down.
    divisor = 1 / factor
    entries["divisor"] = float(round(divisor)) if abs(divisor - round(divisor)) < 1e-6 * divisor else divisor
    if said.get("do_normalize", True):
        entries |= {
            name: said[key] for name, key in (("mean", "image_mean"), ("std", "image_std")) if said.get(key) is not None
        }
    if said.get("do_flip_channel_order"):
        entries["channel_order"] = "BGR"
    return entries


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        if isinstance(size.get("height"), int) and isinstance(size.get("width"), int):
            return size["height"], size["width"]
        if isinstance(size.get("shortest_edge"), int):
            return size["shortest_edge"], size["shortest_edge"]
    return None


FORMAT = HuggingFaceFolder()
