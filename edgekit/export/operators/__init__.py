"""Operator tables: one JSON file a version of an engine, with its source in the file."""
