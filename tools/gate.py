"""Decide whether a candidate may replace the served detector: on frozen tests, by the margins of configs/gate.yaml.

    .venv/bin/python tools/gate.py --test fracatlas data/test.json output/served output/candidate --out output/gate

Same as `fracture-det gate`, whose --help gives the details.
"""

import sys

from fracture_det.cli.gate import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
