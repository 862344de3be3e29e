"""Fit what tells the type of a fracture, from pictures whose type a table states.

    .venv/bin/python tools/fit_types.py --images ../bonebreak/images --types ../bonebreak/types.csv \\
        --group-column source --out output/types

Same as `fracture-det fit-types`, whose --help gives the details.
"""

import sys

from fracture_det.cli.fit_types import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
