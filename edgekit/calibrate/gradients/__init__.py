"""Reverse-mode differentiation of an explained ONNX graph, as an ONNX graph that a runtime runs. No torch."""
