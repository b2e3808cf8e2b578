"""`import cuda.bindings` in a child process whose PYTHONPATH holds the folder above; see `fake_tensorrt.children`."""

import sys

from fake_tensorrt.children import modules_here

sys.modules.update(modules_here("cuda"))
