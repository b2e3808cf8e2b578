"""Why maps did not match: searches for known faults, one family a module, and what each found."""
