"""Relevance propagation: maps at the pixels or at a module, by layer-wise rules. For evaluation, never exported."""
