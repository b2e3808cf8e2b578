"""Ring 1: the TensorRT engine: device memory, builder, runner. Importing it loads no TensorRT and no CUDA library."""
