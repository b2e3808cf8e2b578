"""The device families edgekit builds for: one YAML file each, its loader, and the table of what cannot work there."""
