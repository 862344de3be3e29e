"""Turn a trained detector into a small or a fast one, and verify that it predicts what its source does.

    fracture-det export --detector d2:output/half --to safetensors \\
        --check-images datasets/fracatlas/images/Fractured --out output/small
    fracture-det export --detector d2:output/half --to openvino \\
        --check-images datasets/fracatlas/images/Fractured --out output/openvino
    fracture-det export --detector shipped --to openvino --int8 \\
        --check-images datasets/fracatlas/images/Fractured --calibration-images output/shipped/fracatlas/train.json \\
        --data output/shipped/fracatlas/val.json --images datasets/fracatlas/images --out output/int8

safetensors: a folder for d2:, weights in half precision. openvino, onnx, torchscript: one graph from letterbox to
boxes for openvino:, onnx: and torchscript:, without Detectron2. Both detectors then run on --check-images, and the
export fails when over 2 % of the boxes move by more than 1 px or their scores by .01. --int8 fails when AP50 or AUROC
on --data drops by more than .005; parts that cost more are left in float. Of an ensemble every member is exported.
Exit code 2 when an export fails.

    fracture-det export --detector d2:output/half --prune .3 --out output/pruned
    fracture-det train --config-file output/pruned/config.yaml --data output/fracatlas \\
        --images datasets/fracatlas/images OUTPUT_DIR output/pruned_trained
    fracture-det export --detector d2:output/pruned_trained --to openvino --against d2:output/half \\
        --data output/fracatlas/val.json --images datasets/fracatlas/images \\
        --check-images datasets/fracatlas/images/Fractured --out output/pruned_openvino

--prune removes whole channels; the result must be trained further. --against fails when AP50 is then more than .01, or
AUROC more than .005, below the detector that was pruned.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from fracture_det.export.exporter import SAFETENSORS, ExportOptions, run_export
from fracture_det.export.graph import FORMATS


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--detector",
        required=True,
        help="d2:, yolov3:, efficientdet: or detr: with a FOLDER or FILE, ensemble:FOLDER or shipped",
    )
    parser.add_argument(
        "--to", choices=[SAFETENSORS, *FORMATS], default=SAFETENSORS, help="form (default: safetensors)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; files in it are replaced")
    parser.add_argument("--check-images", help="file, folder or glob of radiographs to compare on")
    parser.add_argument("--check-count", type=int, default=200, help="how many of them (default: 200)")
    parser.add_argument("--batch-size", type=int, default=1, help="radiographs per call of the graph (default: 1)")
    parser.add_argument("--title", default="", help="display name of the model, instead of the configuration's")
    parser.add_argument("--calibration", type=Path, help="calibration.json of the source, to stand in the file")
    parser.add_argument("--half", action="store_true", help="OpenVINO stores weights in half precision")
    parser.add_argument("--int8", action="store_true", help="quantize to 8 bits, with --to openvino")
    parser.add_argument(
        "--calibration-images", help="file, folder, glob or COCO file of --images: what INT8 takes its ranges from"
    )
    parser.add_argument("--data", type=Path, help="annotated validation images (COCO) that INT8 is measured on")
    parser.add_argument("--images", type=Path, help="folder of the images of --data")
    parser.add_argument(
        "--prune", type=float, metavar="SHARE", help="channels of the backbone to take away, such as .3"
    )
    parser.add_argument("--against", metavar="URI", help="detector that was pruned, whose accuracy is the reference")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    args = build_parser().parse_args(argv)
    try:
        run_export(ExportOptions(**{field.name: getattr(args, field.name) for field in fields(ExportOptions)}))
    except ValueError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    return 0
