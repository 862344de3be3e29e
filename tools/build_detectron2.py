"""Build a Detectron2 wheel that needs neither a compiler nor GitHub.

    .venv/bin/python tools/build_detectron2.py --out .venv/wheels

Same as `fracture-det build-detectron2`, whose --help gives the details.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # it runs before the package is installed

from fracture_det.cli.build_detectron2 import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
