"""Ring 0: what every other part stands on. Standard library and numpy only."""
