"""Cut close-ups out of whole radiographs, so that a detector learns collimated films from films that have none.

    .venv/bin/python tools/closeups.py --data output/fracatlas --images datasets/fracatlas/images --out output/closeups

Same as `fracture-det closeups`, whose --help gives the details.
"""

import sys

from fracture_det.cli.closeups import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
