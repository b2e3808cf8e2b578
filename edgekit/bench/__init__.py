"""Ring 1: how long an engine takes on this machine, and what it takes: each engine in a process of its own."""
