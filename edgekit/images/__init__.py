"""Ring 1 with one optional package, Pillow: image files and folders of them."""
