"""Ring 1: the last stage and its counterpart: signing a bundle that passed, and checking one where it is installed."""
