"""Calibrators beside other people's tools: what is left of maps and answers at eight bits and below.

    python benchmarks/run_calibration.py --work WORK [--profile quick|full] [--networks PATTERN ...] [--methods ...]

See benchmarks/calibration/README.md.
"""

from calibration.run import main

if __name__ == "__main__":
    main()
