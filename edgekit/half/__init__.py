"""Ring 2: FP16 types written into ONNX graphs, for runtimes that compute in the types a graph has. Needs onnx alone."""
