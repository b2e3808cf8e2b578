"""The embedded default: a generator of labelled images with masks, and a small classifier trained on them."""
