"""The device families edgekit builds for: one YAML file each, and its loader."""
