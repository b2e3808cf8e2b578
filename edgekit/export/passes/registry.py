"""The clean-up passes, and the order in which they run."""

from __future__ import annotations

from edgekit.core.registry import Registry
from edgekit.export.passes.protocol import GraphPass

__all__ = ["ORDER", "PASSES"]

PASSES: Registry[GraphPass] = Registry(
    "clean-up pass",
    {
        "drop-dead": "edgekit.export.passes.dead_nodes:DROP_DEAD",
        "drop-identities": "edgekit.export.passes.identities:DROP_IDENTITIES",
        "fold-batch-norm": "edgekit.export.passes.batch_norm:FOLD_BATCH_NORM",
        "fold-constants": "edgekit.export.passes.constants:FOLD_CONSTANTS",
        "merge-duplicates": "edgekit.export.passes.duplicates:MERGE_DUPLICATES",
        "single-layer-norm": "edgekit.export.passes.layer_norm:SINGLE_LAYER_NORM",
        "static-shapes": "edgekit.export.passes.static_shapes:STATIC_SHAPES",
    },
)
# Constant shapes leave chains that only then are dead; a convolution that is written twice has to be one before its
# normalisation can be folded into it.
ORDER = (
    "drop-identities",
    "static-shapes",
    "fold-constants",
    "single-layer-norm",
    "drop-dead",
    "merge-duplicates",
    "fold-batch-norm",
)
