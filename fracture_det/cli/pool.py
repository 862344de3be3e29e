"""Pool prepared data sets, so that thresholds are chosen on several sources and reports tell them apart.

    fracture-det pool --source fracatlas output/fracatlas datasets/fracatlas/images \\
        --source science output/science datasets/science2022/images --out output/pooled
    fracture-det eval --detector shipped --data output/pooled/test.json --val output/pooled/val.json \\
        --images output/pooled/images --out output/report

Writes train.json, val.json and test.json of all sources together, and images/NAME, a link to the images of each;
nothing is copied. Each image has the attribute `source`, for which eval's report has a row with intervals. Exit code 2
where something is wrong; then no split is written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fracture_det.data.annotations import AnnotationError
from fracture_det.data.pooling import PoolingError, Source, pool


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det pool", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "DATA", "IMAGES"),
        help="what to call it, its folder of `fracture-det prepare`, and its image folder; repeat it",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pooled data set")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        sources = [Source(name, Path(data), Path(images)) for name, data, images in arguments.source]
        counts = pool(sources, arguments.out)
    except (PoolingError, AnnotationError, OSError) as error:
        print(f"pool: {error}", file=sys.stderr)
        return 2
    for split, by_source in counts.items():
        listed = ", ".join(f"{count:,} of {name}" for name, count in by_source.items())
        print(f"{arguments.out / split}.json: {sum(by_source.values()):,} images ({listed})")
    return 0
