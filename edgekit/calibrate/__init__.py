"""Ring 2, stage: from FP32 graph and calibration images to a scale table and a Q/DQ graph. No torch."""
