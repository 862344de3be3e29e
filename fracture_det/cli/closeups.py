"""Cut close-ups out of whole radiographs, so that a detector learns collimated films from films that have none.

    fracture-det closeups --data output/fracatlas --images datasets/fracatlas/images --out output/closeups
    fracture-det train --config-file configs/faster_rcnn_R_50_FPN.yaml --data output/fracatlas \\
        --images datasets/fracatlas/images --data output/closeups --images output/closeups/images OUTPUT_DIR output/fpn

Of each fractured film of train.json two windows around a fracture, of each healthy one a window that is mostly limb,
down to a finger: OUT/images and OUT/train.json, to train on beside the films. No box is ever cut.

    fracture-det closeups --data output/fracatlas --images datasets/fracatlas/images --splits val test \\
        --per-fracture 0 --out output/healthy_closeups

cuts healthy close-ups to choose thresholds and to test on: see `fracture-det pool`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from fracture_det.data.closeups import cut_closeups
from fracture_det.data.coco import read_coco, write_coco
from fracture_det.data.records import Dataset
from fracture_det.data.splits import SPLITS
from fracture_det.structures.wording import counted


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det closeups", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="folder of `fracture-det prepare`")
    add("--images", type=Path, required=True, metavar="DIR", help="its image folder")
    add("--splits", nargs="+", choices=SPLITS, default=["train"], help="which of its parts to cut (default: train)")
    add("--per-fracture", type=int, default=2, metavar="N", help="windows of each fractured film (default: 2)")
    add("--seed", type=int, default=0, help="which windows are drawn (default: 0)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for images/ and train.json, val.json, test.json")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.per_fracture < 0:
        parser.error(f"--per-fracture must be at least 0, got {arguments.per_fracture}")
    try:
        parts = {split: read_coco(arguments.data / f"{split}.json") for split in dict.fromkeys(arguments.splits)}
        for split, films in parts.items():
            print(_cut(split, films, arguments))
    except (ValueError, OSError) as error:
        print(f"closeups: {error}", file=sys.stderr)
        return 2
    return 0


def _cut(split: str, films: Dataset, arguments: argparse.Namespace) -> str:
    """Write the close-ups of one split; return a sentence on them."""
    closeups = cut_closeups(
        films,
        arguments.images,
        arguments.out / "images",
        per_fracture=arguments.per_fracture,
        seed=arguments.seed,
        progress=lambda stream: tqdm(stream, desc=split, total=len(films), unit="film", disable=None),
    )
    path = arguments.out / f"{split}.json"
    write_coco(closeups, path, description=f"close-ups of {split} of {arguments.data}")
    fractured = sum(bool(len(record.boxes)) for record in closeups)
    count = f"{counted(len(closeups), 'close-up')} of {counted(len(films), 'film')}"
    return f"{path}: {count}, {fractured:,} of them fractured"
