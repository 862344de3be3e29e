"""Train a detector on data that tools/prepare_dataset.py has written.

    .venv/bin/python tools/train_net.py --config-file configs/faster_rcnn_R_50_FPN.yaml \\
        --data output/fracatlas --images ../fracatlas/images OUTPUT_DIR output/fpn

Same as `fracture-det train`, whose --help gives the details.
"""

import sys

from fracture_det.cli.train import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
