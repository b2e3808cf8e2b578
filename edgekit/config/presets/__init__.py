"""Recipes that come with edgekit, as data: `--recipe NAME`."""
