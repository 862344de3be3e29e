"""Compare detectors on the same images: figures, differences with intervals, McNemar's and DeLong's tests.

    .venv/bin/python tools/compare.py --data data/test.json --runs output/eval output/other --out output/compare

Same as `fracture-det compare`, whose --help gives the details.
"""

import sys

from fracture_det.cli.compare import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
