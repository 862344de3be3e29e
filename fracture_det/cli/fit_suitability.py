"""Fit what decides whether a picture is a radiograph of a limb, and count what it does on every source.

    fracture-det fit-suitability --folder fracatlas=../fracatlas --folder science2022=../science2022 \\
        --folder bonebreak=../bonebreak --folder others=../others --out weights/shipped/suitability.json

configs/suitability/sources.yaml lists the sources and their parts; configs/suitability/collect.sh fetches the pictures
that are no radiographs. The threshold is frozen on validation pictures, and test pictures are only counted. Prints a
table of refusals; pictures that cannot be read are listed and left out. Exit code 2 when a source is missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fracture_det.resources import resource
from fracture_det.structures.markdown_table import markdown_table

SOURCES = resource("configs/suitability/sources.yaml")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det fit-suitability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sources", type=Path, default=SOURCES, metavar="FILE", help="list of sources (default: %(default)s)")
    add("--folder", action="append", default=[], metavar="NAME=DIR", help="where a folder that the list names lies")
    add("--out", type=Path, required=True, metavar="FILE", help="the head as JSON")
    add("--workers", type=int, default=1, metavar="N", help="processes that read pictures (default: 1)")
    add("--seed", type=int, default=0, help="of the changes, the drawings and the fit (default: 0)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    from fracture_det.suitability.fit import count_refused, fit_head, samples_of
    from fracture_det.suitability.sources import find_pictures, read_sources

    args = build_parser().parse_args(argv)
    try:
        folders = dict(text.split("=", 1) for text in args.folder)
        sources = read_sources(args.sources)
        pictures = find_pictures(sources, folders)
    except (ValueError, OSError) as error:
        print(f"fit-suitability: {error}", file=sys.stderr)
        return 2
    samples, unread = samples_of(pictures, sources.drawn, seed=args.seed, workers=args.workers)
    for picture in unread:
        print(f"not read, or too small or large: {picture.path}", file=sys.stderr)
    head = fit_head(samples, seed=args.seed)
    head.save(args.out)
    rows = [
        (count.part, count.kind, count.source, count.version, f"{count.refused} of {count.total}")
        for count in count_refused(head, samples)
        if count.part != "train"
    ]
    print(markdown_table(("part", "kind", "source", "version", "refused"), rows))
    print(f"threshold {head.threshold:g}; {len(unread)} pictures not read; written: {args.out}")
    return 0
