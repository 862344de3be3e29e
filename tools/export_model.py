"""Turn a trained detector into a small or a fast one, and verify that it predicts what its source does.

    .venv/bin/python tools/export_model.py --detector d2:output/half --to safetensors \\
        --check-images datasets/fracatlas/images/Fractured --out output/small
    .venv/bin/python tools/export_model.py --detector d2:output/half --to openvino \\
        --check-images datasets/fracatlas/images/Fractured --out output/openvino
    .venv/bin/python tools/export_model.py --detector shipped --to openvino --int8 \\
        --check-images datasets/fracatlas/images/Fractured --calibration-images output/shipped/fracatlas/train.json \\
        --data output/shipped/fracatlas/val.json --images datasets/fracatlas/images --out output/int8

    .venv/bin/python tools/export_model.py --detector d2:output/half --prune .3 --out output/pruned
    .venv/bin/python tools/train_net.py --config-file output/pruned/config.yaml --data output/fracatlas \\
        --images datasets/fracatlas/images OUTPUT_DIR output/pruned_trained
    .venv/bin/python tools/export_model.py --detector d2:output/pruned_trained --to openvino --against d2:output/half \\
        --data output/fracatlas/val.json --images datasets/fracatlas/images \\
        --check-images datasets/fracatlas/images/Fractured --out output/pruned_openvino

Same as `fracture-det export`, whose --help gives the details.
"""

import sys

from fracture_det.cli.export import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
