"""Files per second and memory of the conversion, from 1,000 to 100,000 LabelImg XML files.

    .venv/bin/python benchmarks/conversion.py --counts 1000 10000 100000

For each count N, in a process of its own: N different LabelImg XML files (three of ten with one box) and N image names
that are hard links to 20 drawn radiographs of 320 x 256 px are written to a temporary folder; then `prepare` runs as in
tools/prepare_dataset.py, with one worker, and these stages are timed:

  images       reading every image whole: decoding, SHA-256, thumbnail
  annotations  matching, reading and checking every XML file
  duplicates   perceptual hashes, candidates, verification (the links are taken for different pictures, by shuffling the
               pixels of their thumbnails: a folder of 20 pictures 5,000 times over is not what is to be measured)
  split+write  groups, split, COCO files, split.json, report and figures

Real radiographs are larger: their decoding takes longer in proportion to their pixels. `peak` is the largest resident
memory of the process; `result` the part of it that grows with the number of files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from fracture_det.data import prepare as stages
from fracture_det.data.image_info import ImageInfo
from fracture_det.data.prepare import prepare
from fracture_det.data.prepare_options import PrepareOptions
from tests.builders import draw_radiograph, labelimg_xml, write_image

N_PICTURES = 20


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="numbers of files")
    parser.add_argument("--folder", type=Path, help="where to make the temporary files (default: the system's place)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure each count in a fresh process and print a Markdown table."""
    arguments = build_parser().parse_args(argv)
    if arguments.one is not None:
        print(json.dumps(measure(arguments.one, arguments.folder)))
        return 0
    print("| files | images/s | XML/s | duplicates, s | split+write, s | all, s | files/s | start, MiB | peak, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for count in arguments.counts:
        folder = ["--folder", str(arguments.folder)] if arguments.folder else []
        command = [sys.executable, __file__, "--one", str(count), *folder]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        seconds = result["seconds"]
        total = sum(seconds.values())
        row = [
            f"{count:,}",
            f"{count / seconds['images']:,.0f}",
            f"{count / seconds['annotations']:,.0f}",
            f"{seconds['duplicates']:.1f}",
            f"{seconds['split+write']:.1f}",
            f"{total:.1f}",
            f"{count / total:,.0f}",
            f"{result['start_mib']:.0f}",
            f"{result['peak_mib']:.0f}",
        ]
        print(f"| {' | '.join(row)} |", flush=True)
    return 0


def measure(count: int, place: Path | None) -> dict:
    """Return seconds per stage and memory in MiB for `count` files."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        options = write_files(Path(folder), count)
        start_mib = peak_mib()
        clock = {"start": time.perf_counter()}

        def note(stream: Iterable, _total: int, title: str) -> Iterable:
            clock[title] = time.perf_counter()
            yield from stream
            clock[f"{title}, end"] = time.perf_counter()

        find_copies = stages.find_copies

        def timed_copies(infos: list[ImageInfo], dataset):
            rng = np.random.default_rng(0)
            for k, info in enumerate(infos):  # in place, so that the memory measured is that of the tool
                object.__setattr__(info, "sha256", f"{k:064x}")
                info.thumbnail[:] = rng.permuted(info.thumbnail.ravel()).reshape(32, 32)
            clock["duplicates"] = time.perf_counter()
            found = find_copies(infos, dataset)
            clock["duplicates, end"] = time.perf_counter()
            return found

        stages.find_copies = timed_copies
        prepare(options, progress=note)
        end = time.perf_counter()
    return {
        "seconds": {
            "images": clock["reading images, end"] - clock["reading images"],
            "annotations": clock["reading annotations, end"] - clock["reading annotations"],
            "duplicates": clock["duplicates, end"] - clock["duplicates"],
            "split+write": end - clock["duplicates, end"],
        },
        "start_mib": start_mib,
        "peak_mib": peak_mib(),
    }


def write_files(folder: Path, count: int) -> PrepareOptions:
    """Write `count` XML files, and as many names for a few drawn radiographs."""
    images, annotations = folder / "images", folder / "annotations"
    images.mkdir()
    annotations.mkdir()
    rng = np.random.default_rng(0)
    for k in range(min(N_PICTURES, count)):
        write_image(folder / f"{k}.jpg", draw_radiograph(rng, fractured=k % 3 == 0)[0])
    for k in range(count):
        image = images / f"IMG{k:07d}.jpg"
        os.link(folder / f"{k % N_PICTURES}.jpg", image)
        x0, y0, width, height = rng.integers(1, 100, 4)
        boxes = [("fracture", (x0, y0, x0 + width, y0 + height))] if k % 10 < 3 else []
        image_xml = labelimg_xml(image, (320, 256, 3), boxes)
        (annotations / f"IMG{k:07d}.xml").write_text(image_xml, encoding="utf-8")
    return PrepareOptions(images, annotations, folder / "out", workers=1)


def peak_mib() -> float:
    """Return the largest resident memory of this process so far in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main())
