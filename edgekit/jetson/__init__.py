"""Which Jetson this is: module, JetPack and power mode, and what each JetPack release brings. No GPU is opened."""
