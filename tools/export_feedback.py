"""Write the readers' feedback of the web page as a data set to train on: LabelImg XML and COCO.

    .venv/bin/python tools/export_feedback.py --out datasets/feedback
    .venv/bin/python tools/prepare_dataset.py --images datasets/feedback/images \\
        --annotations datasets/feedback/annotations --out output/feedback

Same as `fracture-det export-feedback`, whose --help gives the details.
"""

import sys

from fracture_det.cli.export_feedback import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
