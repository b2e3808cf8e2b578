"""Quantisation-aware training: the exported graph learns with the rounding of its engine in place (torch, onnx)."""
