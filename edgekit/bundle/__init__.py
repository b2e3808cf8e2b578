"""Ring 1: the folder that travels: layout, manifest, packing, strict unpacking, the golden set."""
