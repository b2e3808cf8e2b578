"""The stages in order: skipped where nothing changed, resumable, ending in a bundle and a verdict."""
