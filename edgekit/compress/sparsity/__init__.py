"""Sparsity: single weights held at zero, in any or in a fixed pattern."""
