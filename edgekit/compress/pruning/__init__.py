"""Structured pruning: which channels go, what goes with them, and the proof that nothing else did."""
