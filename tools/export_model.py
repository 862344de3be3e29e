"""Turn a training folder into a small detector to ship, and prove that it answers as its source.

    .venv/bin/python tools/export_model.py --detector d2:output/half --to safetensors \
        --check-images datasets/fracatlas/images/Fractured --out weights/shipped

writes model.safetensors (half precision), config.yaml, the training log and SHA256SUMS; then both detectors run on
some of --check-images, and the export fails when over 2 % of the boxes move by more than 1 px or their scores by .01.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fracture_det.export import ExportError, export_safetensors
from fracture_det.inference.batch import InputError, find_images
from fracture_det.inference.detector import DetectorError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", required=True, help="d2:FOLDER or d2:FILE of a training")
    parser.add_argument("--to", choices=["safetensors"], default="safetensors", help="form of the export")
    parser.add_argument("--check-images", required=True, help="file, folder or glob of radiographs to compare on")
    parser.add_argument("--check-count", type=int, default=50, help="how many of them (default: 50)")
    parser.add_argument("--title", default="", help="what people call the model, instead of the configuration's")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; files in it are replaced")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        images = [path for _, path in find_images(args.check_images).files[: args.check_count]]
        source = Path(args.detector.removeprefix("d2:"))
        agreement = export_safetensors(source, args.out, images, title=args.title)
    except (ExportError, DetectorError, InputError) as error:
        print(f"export_model: {error}", file=sys.stderr)
        return 2
    size_mb = (args.out / "model.safetensors").stat().st_size / 1e6
    same = f"{agreement.n_boxes - agreement.n_moved} of {agreement.n_boxes} boxes"
    shift = agreement.largest_shift
    print(f"{args.out}: {size_mb:.1f} MB; on {len(images)} radiographs {same} stay, with scores within {shift:.5f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
