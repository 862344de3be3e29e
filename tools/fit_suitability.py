"""Fit what decides whether a picture is a radiograph of a limb, and count what it does on every source.

    .venv/bin/python tools/fit_suitability.py --folder fracatlas=../fracatlas --folder science2022=../science2022 \\
        --folder bonebreak=../bonebreak --folder others=../others --out weights/shipped/suitability.json

Same as `fracture-det fit-suitability`, whose --help gives the details.
"""

import sys

from fracture_det.cli.fit_suitability import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
