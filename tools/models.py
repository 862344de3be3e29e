"""The registry of detectors: signed versions, which one is served, and the way back.

    .venv/bin/python tools/models.py list
    .venv/bin/python tools/models.py rollback

Same as `fracture-det models`, whose --help gives the details.
"""

import sys

from fracture_det.cli.models import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
