"""The training loop and what surrounds it: images, schedule, logs, checkpoints."""
