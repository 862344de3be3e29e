"""What becomes of damaged radiographs: refused, read as before, or read as something else?

    .venv/bin/python benchmarks/damaged_films.py --images datasets/fracatlas/images

Every JPEG of the folders is read as it is: how many are refused as out of place? Then each film on which the detector
is sure ("Fracture likely") is damaged --times times in each of five ways, within its coded pixels: a stretch zeroed,
cut off (with and without an end marker), swapped with another, or repeated. `no limb` counts
those that the page would not analyse, `none seen` those of which no finding is left at all. Exit code 1 when there is
one of these.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from fracture_det.inference.base import Detector
from fracture_det.inference.registry import open_detector
from fracture_det.structures.image_files import find_images
from fracture_det.structures.jpeg import MISPLACED
from fracture_det.structures.radiograph import UnreadableImage, read_radiograph
from fracture_det.suitability.assess import assess
from tests.structures.damage import DAMAGES, in_jpeg

FATES = ("films", "refused", "no limb", "likely", "possible", "none seen")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="shipped", help="URI (default: shipped)")
    parser.add_argument("--images", nargs="+", required=True, help="files, folders or globs of radiographs")
    parser.add_argument(
        "--times",
        type=int,
        default=1,
        help="how often each film is damaged in each way (default: 1; 0: films are read as they are, and no more)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run and print the table."""
    args = build_parser().parse_args(argv)
    detector = open_detector(args.detector) if args.times else None
    paths = [path for folder in args.images for _, path in find_images(folder).files]
    fates = {name: Counter[str]() for name in DAMAGES}
    misplaced = read = 0
    for number, path in enumerate(tqdm(paths, unit="film", mininterval=5)):
        data = path.read_bytes()
        if not data.startswith(b"\xff\xd8"):
            continue
        try:
            pixels = read_radiograph(data).pixels
        except UnreadableImage as error:
            misplaced += error.reason == MISPLACED
            continue
        read += 1
        if detector is not None and finding(detector, pixels) == "likely":
            for name, (damage, with_end) in DAMAGES.items():
                for turn in range(args.times):
                    harmed = in_jpeg(data, damage, np.random.default_rng((number, turn)), with_end=with_end)
                    fates[name].update(("films", fate_of(detector, harmed)))
    print(f"{read:,} whole films were read, {misplaced} refused as out of place.\n")
    print(f"| damage | {' | '.join(FATES)} |\n|{' --- |' * (1 + len(FATES))}")
    for name, counts in fates.items():
        print(f"| {name} | {' | '.join(f'{counts[fate]:,}' for fate in FATES)} |")
    return 1 if any(counts["none seen"] for counts in fates.values()) else 0


def fate_of(detector: Detector, data: bytes) -> str:
    """Return what a clinician would see of this file on the page."""
    try:
        radiograph = read_radiograph(data)
    except UnreadableImage:
        return "refused"
    return finding(detector, radiograph.pixels) if assess(radiograph).ok else "no limb"


def finding(detector: Detector, pixels: np.ndarray) -> str:
    """Return the finding of the page, by its default thresholds."""
    detections, info = detector.predict([pixels])[0], detector.info
    if len(detections.above(info.operating_score)):
        return "likely"
    possible = info.operating_score / 2 if info.possible_score is None else info.possible_score
    return "possible" if len(detections.above(possible)) else "none seen"


if __name__ == "__main__":
    sys.exit(main())
