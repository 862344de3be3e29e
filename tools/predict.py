"""Find fractures on a radiograph, in a folder with its subfolders, or on the files of a pattern.

    .venv/bin/python tools/predict.py --detector shipped --input xrays/ --out output/predicted
    .venv/bin/python tools/predict.py --detector d2:output/run --input 'xrays/**/*.png' --out output/predicted
    .venv/bin/python tools/predict.py --calibration output/eval/calibration.json --input xrays/ --out output/predicted

Writes overlays/FILE.overlay.jpg in the same folders as the input, predictions.csv (boxes from --score on) and
predictions.jsonl (all boxes of the detector, for tools/eval.py). Exit code 1 when a file could not be predicted, 2
when nothing was. Research use only; not a medical device.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fracture_det.inference.batch import find_images
from fracture_det.inference.detector import open_detector
from fracture_det.inference.folders import predict_to_folder


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--detector", default="shipped", metavar="URI", help="shipped, d2:FOLDER_OR_FILE or fused:FOLDER"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="calibration.json of tools/eval.py --val: scores become probabilities (default: raw scores)",
    )
    parser.add_argument("--input", required=True, metavar="FILE|DIR|GLOB", help="a quoted pattern may hold ** and *")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--score",
        type=float,
        metavar="S",
        help="score 0..1 from which a box is shown, calibrated with --calibration (default: the detector's own, else "
        "the paper's 0.5)",
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images per call of the detector")
    parser.add_argument("--no-overlays", action="store_true", help="write the tables only")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        found = find_images(arguments.input, leave_out=arguments.out)
        if found.skipped:
            print(f"{len(found.skipped)} files are no images and were skipped, first {found.skipped[0]}")
        done = predict_to_folder(
            open_detector(arguments.detector, calibration=arguments.calibration),
            found.files,
            arguments.out,
            score=arguments.score,
            batch_size=arguments.batch_size,
            overlays=not arguments.no_overlays,
        )
    except ValueError as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    print(f"{done.predicted} radiographs predicted, {done.with_boxes} with a box from score {done.score:g} on")
    print(f"Results: {arguments.out}")
    if done.failed:
        print(f"{done.failed} of {len(found.files)} files could not be predicted", file=sys.stderr)
    return 1 if done.failed else 0


if __name__ == "__main__":
    sys.exit(main())
