"""The project's own architectures with real weights, where these lie beside the checkout."""

from __future__ import annotations

from cases import Case
from measuring.images import SHARED
from prepare_data import card_of

from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

__all__ = ["WeightsMissing", "real_network"]


class WeightsMissing(Exception):  # noqa: N818 - not an error of the architecture
    """The weights are not part of the repository and not here."""


def real_network(case: Case) -> LoadedModel:
    """Load a network with its real weights. Raises `WeightsMissing`."""
    file = SHARED / "models" / f"{case.name}.safetensors"
    if not file.is_file():
        raise WeightsMissing(f"shared/data/models/{file.name} does not lie beside the checkout")
    # Without the tap that the card names: finding it is part of what the table is about.
    card = {**card_of(SHARED, case.name), "tap": None}
    return load_model(file, LoadOptions(arch=case.factory, arguments=dict(case.arguments), card=card))
