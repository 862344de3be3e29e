"""Pool prepared data sets, so that thresholds are chosen on several sources and reports tell them apart.

    .venv/bin/python tools/pool.py --source fracatlas output/fracatlas datasets/fracatlas/images --out output/pooled

Same as `fracture-det pool`, whose --help gives the details.
"""

import sys

from fracture_det.cli.pool import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
