"""Average the weights of trainings that share a start.

    .venv/bin/python tools/average.py --detector d2:output/stage_3 --detector d2:output/both_sources --out output/mean

Same as `fracture-det average`, whose --help gives the details.
"""

import sys

from fracture_det.cli.average import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
