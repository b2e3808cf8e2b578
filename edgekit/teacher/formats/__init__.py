"""Model formats: one module each, from a file or folder to a network and what it says about itself."""
