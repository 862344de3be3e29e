"""Cut close-ups out of whole radiographs, so that a detector learns collimated films from films that have none.

    fracture-det closeups --data output/fracatlas --images datasets/fracatlas/images --out output/closeups
    fracture-det train --config-file configs/faster_rcnn_R_50_FPN.yaml --data output/fracatlas \\
        --images datasets/fracatlas/images --data output/closeups --images output/closeups/images OUTPUT_DIR output/fpn

Of each fractured film of train.json two windows around a fracture, of each healthy one a window that is mostly limb,
down to a finger: OUT/images and OUT/train.json, to train on beside the films. No box is ever cut.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from fracture_det.data.closeups import cut_closeups
from fracture_det.data.coco import read_coco, write_coco
from fracture_det.structures.wording import counted


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det closeups", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="folder of `fracture-det prepare`: its train.json")
    add("--images", type=Path, required=True, metavar="DIR", help="its image folder")
    add("--per-fracture", type=int, default=2, metavar="N", help="windows of each fractured film (default: 2)")
    add("--seed", type=int, default=0, help="which windows are drawn (default: 0)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for images/ and train.json")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.per_fracture < 0:
        parser.error(f"--per-fracture must be at least 0, got {arguments.per_fracture}")
    try:
        films = read_coco(arguments.data / "train.json")
        out = arguments.out / "images"
        closeups = cut_closeups(
            films,
            arguments.images,
            out,
            per_fracture=arguments.per_fracture,
            seed=arguments.seed,
            progress=lambda stream: tqdm(stream, total=len(films), unit="film", disable=None),
        )
        write_coco(closeups, arguments.out / "train.json", description=f"close-ups of {arguments.data}")
    except (ValueError, OSError) as error:
        print(f"closeups: {error}", file=sys.stderr)
        return 2
    fractured = sum(bool(len(record.boxes)) for record in closeups)
    print(
        f"{counted(len(closeups), 'close-up')} of {counted(len(films), 'film')}, {fractured:,} of them fractured: {out}"
    )
    return 0
