"""Clean-up passes over an exported graph: each small, each with a promise that is checked."""
