"""Calibration with the map in its objective: what serves that and nothing else."""
