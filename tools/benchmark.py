"""Measure how fast the detector is on this machine, in every form, beside Detectron2's own predictor and baselines.

    .venv/bin/python tools/benchmark.py --images datasets/fracatlas/images/Fractured --out output/benchmark
    .venv/bin/python tools/benchmark.py --quick --out output/quick

Same as `fracture-det benchmark`, whose --help gives the details.
"""

import sys

from fracture_det.cli.benchmark import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
