"""`python -m tests.pacs.bright_node` is `fracture-det pacs` with the bright-rectangles detector as `bright:0`."""

import sys

from fracture_det.inference.registry import DETECTORS

if __name__ == "__main__":
    from webapp.pacs.command import main

    DETECTORS["bright"] = "tests.webapp.bright:BrightRectangles.open"
    sys.exit(main())
