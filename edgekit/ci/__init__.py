"""What a pipeline reads of a gate and of two bundles: reports in the formats of CI systems. Judges nothing itself."""
