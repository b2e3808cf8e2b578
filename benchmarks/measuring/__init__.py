"""What several benchmarks share: real images, networks from a seed, graphs cut down to the logits, runs in turns."""
