"""A whole network that was pickled with `torch.save(model, path)`: a program, not data.

Unpickling runs what the file says, whatever that is, so it needs the user's word for each file.
"""

from __future__ import annotations

import io
import warnings

import torch
from torch import nn

from edgekit.errors import BadInputError
from edgekit.teacher.capabilities import GRAPH_ONLY
from edgekit.teacher.checkpoint import NeedsCodeError
from edgekit.teacher.formats.model_path import ModelPath
from edgekit.teacher.formats.protocol import Content
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.weights import check_weights, raised_precision

__all__ = ["FORMAT", "TRUST_WARNING", "PickledModule"]

TRUST_WARNING = "unpickling a model runs whatever code its file holds, with your rights"


class PickledModule:
    """A pickled `torch.nn.Module`."""

    name = "pickled module"
    capabilities = GRAPH_ONLY

    def recognises(self, found: ModelPath) -> bool:
        """A pickle that the restricted reader refused because it names code."""
        return found.holds_tensors and isinstance(found.tensors, NeedsCodeError)

    def load(self, found: ModelPath, options: LoadOptions) -> Content:
        """Unpickle it where the user said that its code may run."""
        if not options.trust_pickle:
            refusal = found.tensors
            assert isinstance(refusal, NeedsCodeError)
            raise NeedsCodeError(
                refusal.message,
                where=refusal.where,
                expected=refusal.expected,
                found=refusal.found,
                hint=f"{refusal.hint}; or, if you trust whoever made the file, --trust-pickle ({TRUST_WARNING})",
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = torch.load(io.BytesIO(found.data), map_location="cpu", weights_only=False)
        except Exception as cause:  # unpickling is anybody's code
            raise BadInputError(
                "The pickled model cannot be loaded.",
                where=str(found.path),
                found=f"{type(cause).__name__}: {cause}".splitlines()[0],
                hint="its classes must be importable: run from the folder that holds their module",
            ) from cause
        if not isinstance(model, nn.Module):
            raise BadInputError(
                "The pickle holds something other than a network.",
                where=str(found.path),
                expected="a torch.nn.Module",
                found=type(model).__name__,
            )
        state = model.state_dict()
        check_weights(state, found.path)
        notes = (f"code of the file was run: {TRUST_WARNING}", *raised_precision(state))
        return Content(model.float(), {}, self.name, notes=notes)


FORMAT = PickledModule()
