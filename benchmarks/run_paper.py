"""Compression with and without matched maps: the tables of Park et al. 2020, on data that can be shared.

    python benchmarks/run_paper.py --work WORK [--profile cpu|gpu] [--jobs 2] [--only PATTERN ...] [--minutes 10]

See benchmarks/paper/README.md.
"""

from paper.run import main

if __name__ == "__main__":
    main()
