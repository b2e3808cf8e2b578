"""Inference-time batch normalisation belongs to the convolution before it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgekit.export.fold import fold_batch_norm, foldable_batch_norms

__all__ = ["FOLD_BATCH_NORM", "FoldBatchNorm"]


@dataclass(frozen=True)
class FoldBatchNorm:
    """See `edgekit.export.fold`."""

    name: str = "fold-batch-norm"
    needs: str = "no batch normalisation in training mode"
    promise: str = "no convolution is left whose only reader is a batch normalisation with constant parameters"

    def obstacle(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        training = [
            node.output[0]
            for node in model.graph.node
            if node.op_type == "BatchNormalization"
            and any(item.name == "training_mode" and item.i for item in node.attribute)
        ]
        return f"in training mode: {', '.join(training)}" if training else None

    def apply(self, model: onnx.ModelProto) -> int:
        """See `GraphPass`."""
        return fold_batch_norm(model)

    def violation(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        left = [norm.output[0] for _, norm in foldable_batch_norms(model)]
        return f"left: {', '.join(left[:5])}" if left else None


FOLD_BATCH_NORM = FoldBatchNorm()
