"""The known model formats, and which of them a path is."""

from __future__ import annotations

from edgekit.core.registry import Registry
from edgekit.errors import BadInputError, DefectError
from edgekit.teacher.formats.model_path import ModelPath
from edgekit.teacher.formats.protocol import ModelFormat

__all__ = ["FORMATS", "recognise"]

FORMATS: Registry[ModelFormat] = Registry(
    "model format",
    {
        "edgekit-checkpoint": "edgekit.teacher.formats.checkpoint:FORMAT",
        "exported-program": "edgekit.teacher.formats.exported_program:FORMAT",
        "huggingface-folder": "edgekit.teacher.formats.huggingface_folder:FORMAT",
        "pickled-module": "edgekit.teacher.formats.pickled_module:FORMAT",
        "safetensors": "edgekit.teacher.formats.state_dict:SAFETENSORS",
        "state-dict": "edgekit.teacher.formats.state_dict:STATE_DICT",
        "torchscript": "edgekit.teacher.formats.torchscript:FORMAT",
    },
)


def recognise(found: ModelPath) -> ModelFormat:
    """The format of what was found.

    Raises:
        BadInputError: It is none of them; the message says what it looks like.
    """
    fit = [known for known in map(FORMATS.load, FORMATS) if known.recognises(found)]
    if len(fit) > 1:
        raise DefectError("More than one format claims a file.", found=", ".join(known.name for known in fit))
    if fit:
        return fit[0]
    if found.is_folder:
        raise BadInputError(
            "The folder holds no model that edgekit knows.",
            where=str(found.path),
            expected="config.json and model.safetensors, as save_pretrained of transformers writes them",
        )
    if isinstance(found.tensors, BadInputError):
        raise found.tensors
    raise DefectError("A file that can be read is of no format.", where=str(found.path))
