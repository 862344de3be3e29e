"""Turn radiographs with LabelImg, YOLO or COCO annotations into checked, grouped COCO splits.

    .venv/bin/python tools/prepare_dataset.py --images datasets/fracatlas/images \\
        --annotations datasets/fracatlas/annotations --metadata datasets/fracatlas/dataset.csv \\
        --anatomy-columns hand leg hip shoulder mixed --class-map fractured=fracture --out output/fracatlas

Same as `fracture-det prepare`, whose --help gives the details.
"""

import sys

from fracture_det.cli.prepare import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
