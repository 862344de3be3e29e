"""Memory and speed of the prediction service over many requests: does anything pile up?

    .venv/bin/python benchmarks/service.py --images datasets/fracatlas/images/Fractured --requests 10000

Threads pass the files of --images, over and over, as bytes to one PredictionService, as the page does. A line for each
tenth of the requests: the memory that the process holds (RSS, 1 MB = 10^6 bytes) and requests per second. The last line
says by how much the memory of the last tenth differs from that of the second: the first fills caches.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from fracture_det.inference.registry import open_detector
from fracture_det.inference.service import PredictionService, UnreadableImage
from fracture_det.structures.image_files import find_images

TENTHS = 10


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="shipped", help="URI of the detector (default: shipped)")
    parser.add_argument("--images", required=True, help="file, folder or glob of radiographs")
    parser.add_argument("--requests", type=int, default=1000, help="how many in all (default: 1000)")
    parser.add_argument("--threads", type=int, default=8, help="that ask at the same time (default: 8)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run; return the exit code."""
    args = build_parser().parse_args(argv)
    files = [path.read_bytes() for _, path in find_images(args.images).files[:200]]
    per_tenth = max(1, args.requests // TENTHS)
    sources = cycle(files)
    held: list[float] = []
    refused = 0
    with PredictionService(open_detector(args.detector)) as service, ThreadPoolExecutor(args.threads) as pool:

        def ask(source: bytes) -> bool:
            try:
                service.predict(source)
            except UnreadableImage:
                return False
            return True

        service.warm_up()
        print(f"{service.info.name}, {len(files)} files, {args.threads} threads")
        for tenth in range(TENTHS):
            begun = time.perf_counter()
            refused += per_tenth - sum(pool.map(ask, islice(sources, per_tenth)))
            seconds = time.perf_counter() - begun
            held.append(psutil.Process().memory_info().rss / 1e6)
            done = (tenth + 1) * per_tenth
            print(f"{done:7,} requests  {held[-1]:7.1f} MB  {per_tenth / seconds:6.2f} per second", flush=True)
    print(f"{refused} unreadable; memory of the last tenth against the second: {100 * (held[-1] / held[1] - 1):+.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
