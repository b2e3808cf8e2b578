"""Ring 2: the trained network: loading it, finding where its map lives, and the one definition of that map."""
