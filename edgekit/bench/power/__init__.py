"""What an engine draws while it runs: sensors of machines, read while others are timed."""
