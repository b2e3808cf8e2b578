"""Ring 2, stage: the explained graph (logits and map) as ONNX, checked against torch."""
