"""Ring 1: what an attribution map is, when it is one, and the one way to bring two maps to one size and scale."""
