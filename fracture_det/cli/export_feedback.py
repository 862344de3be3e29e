"""Write the readers' feedback of the web page as a data set to train on: LabelImg XML and COCO.

    fracture-det export-feedback --out datasets/feedback
    fracture-det prepare --images datasets/feedback/images \\
        --annotations datasets/feedback/annotations --out output/feedback

Reads the store of the FRACTURE_* variables (docs/api.md). What one reader says is the boxes judged right, where the
reader put them, and the fractures drawn; boxes judged wrong are left out, and "no fracture" makes it a healthy one.
The truth of a radiograph is what an adjudicator has settled; else what all its readers agree on, each box being the
mean of theirs. Where they disagree, where one found it not readable or has not judged a box at or above the operating
point, and where the picture is gone, the radiograph is left out and named. Types of fracture that readers stated are
`attributes` in both. OUT/metadata.csv says who judged, when, of which model, and whose word the truth is. Exit code 1
when nothing could be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fracture_det.cli.page import import_page
from fracture_det.data.feedback import Review, write_reviews
from fracture_det.structures.readings import ONE_READER, ReadRadiograph
from fracture_det.structures.wording import counted

PER_PAGE = 100


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="fracture-det export-feedback", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the data set")
    parser.add_argument("--label", default="fracture", help="class of drawn fractures (default: fracture)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    args = build_parser().parse_args(argv)
    page, settings, stores = import_page(), import_page("settings"), import_page("store")
    try:
        store = page.open_store(settings.Settings.from_environ())
        reviews = list(reviews_of(store, stores.HistoryFilter()))
        store.close()
        left_out = write_reviews(reviews, args.out, label=args.label)
    except (settings.SettingsError, stores.StoreError, stores.StoreUnavailable, OSError) as error:
        print(f"export-feedback: {error}", file=sys.stderr)
        return 1
    for name, reason in left_out:
        print(f"left out: {name}: {reason}")
    print(f"{args.out}: {counted(len(reviews) - len(left_out), 'radiograph')}, {len(left_out)} left out")
    return 0 if len(reviews) > len(left_out) else 1


def reviews_of(store: Any, wanted: Any) -> Iterator[Review]:
    """Give every result of the page's store that somebody has read, newest first; `wanted` is its filter."""
    yield from (review_of(stored) for stored in results_of(store, wanted) if was_read(stored))


def results_of(store: Any, wanted: Any) -> Iterator[Any]:
    """Give every result of the page's store, newest first; `wanted` is its filter."""
    number, total = 1, 1
    while (number - 1) * PER_PAGE < total:
        results, total = store.results.page(wanted, page=number, per_page=PER_PAGE)
        yield from results
        number += 1


def was_read(stored: Any) -> bool:
    """Return whether anybody has said anything of a result of the page's store."""
    return bool(stored.readings or stored.settled)


def review_of(stored: Any, names: Mapping[str, str] | None = None) -> Review:
    """Return what was said of a result of the page's store that somebody has read; names: instead of people's own."""
    read: ReadRadiograph = stored.read
    people = [(names or {}).get(reading.author, reading.author) for reading in read.readings]
    newest = max(said.updated_at for said in (*read.readings, read.settled) if said is not None)
    about = {
        "author": "; ".join(people),
        "updated_at": datetime.fromtimestamp(newest, timezone.utc).isoformat(timespec="seconds"),
        "model": stored.model,
        "weights": stored.model_sha256 or "",
    }
    if read.basis != ONE_READER:  # of one reader there is nothing to add
        about["truth"] = read.basis
    if read.settled is not None:
        about["adjudicator"] = (names or {}).get(read.settled.author, read.settled.author)
    return Review(stored.id, stored.image_path, (stored.height, stored.width), read, about)
