"""Ring 1: the network's interface with the world: what goes in, what the answers are called, numpy only."""
