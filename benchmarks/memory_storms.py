"""Uploads that take as much memory as an upload can: does the server stay below the figure that the documents state?

    .venv/bin/python benchmarks/memory_storms.py --out output/memory_storms

Starts `python -m webapp` as benchmarks/storm.py does, and sends at once:

  deep      1, 4 and 6 PNGs of 64 megapixels with 16 bits of red, green, blue and opacity: half a megabyte each, and
            half a gigabyte decoded
  large     60 and 100 grey PNGs of nearly 16 MB, the most that is accepted by default
  bursts    seven times 60 of these, with a rest after each: does memory come back?

Uploads for which there is no room get 503 with Retry-After; any other response than 201 and that is a failure, and so
is more memory (RSS of the worker, sampled twenty times a second) than --limit-mb.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import struct
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.storm import held_mb, peak_of, running, send_all
from fracture_det.inference.registry import DETECTORS
from fracture_det.inference.service import encode_png

# What docs/deployment.md asks for.
LIMIT_MB = 3_000.0
DEEP, LARGE, BURSTS, REST_S = (1, 4, 6), (60, 100), 7, 5.0
DEEP_SIDE, LARGE_SIDE = 8_000, 3_990


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="shipped", help="URI; bright:SECONDS is the toy (default: shipped)")
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB, help=f"(default: {LIMIT_MB:,.0f})")
    parser.add_argument("--out", type=Path, required=True, help="folder for memory_storms.json")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run; return 1 when memory rose above the limit or a response was not right."""
    args = build_parser().parse_args(argv)
    DETECTORS["bright"] = "tests.webapp.bright:BrightRectangles.open"
    os.environ["FRACTURE_SUITABILITY"] = "off"  # these are no radiographs, and what is refused takes less memory
    rows: list[dict[str, Any]] = []
    with running(args.detector) as (address, worker):
        print(f"at rest: {held_mb(worker):.0f} MB", flush=True)
        deep, large = deep_png(), large_png()
        for name, file, counts in (("deep", deep, DEEP), ("large", large, LARGE), ("burst", large, (60,) * BURSTS)):
            for count in counts:
                rows.append(storm(address, worker, name, [file] * count))
                print("{name} x {uploads}: peak {peak_mb:.0f} MB, after {after_mb:.0f}; {answers}".format(**rows[-1]))
                sys.stdout.flush()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "memory_storms.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    highest = max(row["peak_mb"] for row in rows)
    print(f"highest: {highest:.0f} MB of {args.limit_mb:.0f}")
    return 1 if highest > args.limit_mb or any(set(row["answers"]) - {"201", "503"} for row in rows) else 0


def storm(address: str, worker: psutil.Process, name: str, files: list[bytes]) -> dict[str, Any]:
    """Send the files at once; return the peak, the memory after a rest, and how often each status came."""
    with peak_of(worker) as peak:
        responses = asyncio.run(send_all(address, files))
    time.sleep(REST_S)
    answers = Counter(str(response.status) for response in responses)
    for lost in {str(response.body) for response in responses if not response.status}:
        print(f"lost: {lost}")
    return {
        "name": name,
        "uploads": len(files),
        "peak_mb": peak[0],
        "after_mb": held_mb(worker),
        "answers": dict(sorted(answers.items())),
    }


def deep_png() -> bytes:
    """Return a PNG of 64 megapixels, 16 bits RGBA, in which each row has one colour."""
    rows = np.zeros((DEEP_SIDE, 1 + 8 * DEEP_SIDE), np.uint8)
    rows[:, 1::2] = (np.arange(DEEP_SIDE) % 251)[:, None]
    rows[:, 7::8] = rows[:, 8::8] = 255
    header = struct.pack(">IIBBBBB", DEEP_SIDE, DEEP_SIDE, 16, 6, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def large_png() -> bytes:
    """Return a grey PNG of nearly 16 MB: noise, which cannot be compressed."""
    noise = np.random.default_rng(0).integers(0, 256, (LARGE_SIDE, LARGE_SIDE), np.uint8)
    return encode_png(np.repeat(noise[:, :, None], 3, axis=2))


if __name__ == "__main__":
    sys.exit(main())
