"""Calibrators side by side, beside other people's tools: what of the map is left at eight, six and four bits."""
