"""Train, export and evaluate the shipped detector again, step by step, as configs/shipped/recipe.yaml describes.

    .venv/bin/python tools/train_shipped.py --dry-run
    .venv/bin/python tools/train_shipped.py --folder fracatlas=../fracatlas --folder science2022=../science2022

See --help for how steps resume and how to run another recipe.
"""

import sys

from fracture_det.cli.train_shipped import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
