"""Write the readers' feedback of the web page as the next version of a data set, and verify versions.

    .venv/bin/python tools/snapshot.py --out datasets/feedback
    .venv/bin/python tools/snapshot.py --verify datasets/feedback

Same as `fracture-det snapshot`, whose --help gives the details.
"""

import sys

from fracture_det.cli.snapshot import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
