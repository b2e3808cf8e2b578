"""Ring 1: how long an engine takes on this machine, each engine in a process of its own."""
