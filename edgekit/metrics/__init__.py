"""Ring 1: numbers about maps and answers. They describe; policies judge."""
