"""Ring 1: gates and verdicts: what somebody demanded, and whether the evidence shows it."""
