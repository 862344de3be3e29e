"""Make the paper's comparison again: four detectors and two ablations, trained and evaluated alike, beside the paper.

    .venv/bin/python tools/reproduce.py --quick --out output/reproduction_quick

Same as `fracture-det reproduce`, whose --help gives the details.
"""

import sys

from fracture_det.cli.reproduce import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
