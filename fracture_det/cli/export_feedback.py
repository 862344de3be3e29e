"""Write the readers' feedback of the web page as a data set to train on: LabelImg XML and COCO.

    fracture-det export-feedback --out datasets/feedback
    fracture-det prepare --images datasets/feedback/images \\
        --annotations datasets/feedback/annotations --out output/feedback

Reads the store of the FRACTURE_* variables (docs/api.md). The truth of a radiograph is its boxes that were judged right
and the fractures that were drawn; boxes judged wrong are left out, and "no fracture" makes it a healthy one. One on
which a box at or above the operating point was not judged is not reviewed: it is left out and named, as is one whose
picture is gone. Types of fracture that readers stated are `attributes` in both.
OUT/metadata.csv says who judged, when, and of which model. Exit code 1 when nothing could be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fracture_det.cli.page import import_page
from fracture_det.data.feedback import Review, write_reviews
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
    """Give every result of the page's store that has feedback, newest first; `wanted` is its filter."""
    yield from (review_of(stored) for stored in results_of(store, wanted) if stored.feedback is not None)


def results_of(store: Any, wanted: Any) -> Iterator[Any]:
    """Give every result of the page's store, newest first; `wanted` is its filter."""
    number, total = 1, 1
    while (number - 1) * PER_PAGE < total:
        results, total = store.results.page(wanted, page=number, per_page=PER_PAGE)
        yield from results
        number += 1


def review_of(stored: Any) -> Review:
    """Return what was said of a result of the page's store that has feedback."""
    feedback = stored.feedback
    at = datetime.fromtimestamp(feedback.updated_at, timezone.utc).isoformat(timespec="seconds")
    return Review(
        name=stored.id,
        image=stored.image_path,
        size=(stored.height, stored.width),
        boxes=[(x0, y0, x1, y1) for x0, y0, x1, y1 in stored.detections.boxes.tolist()],
        labels=stored.labels,
        n_required=len(stored.detections.above(stored.operating_score)),
        verdicts=feedback.verdicts,
        missed=feedback.missed,
        no_fracture=feedback.no_fracture,
        types=feedback.types,
        missed_types=feedback.missed_types,
        about={
            "author": feedback.author,
            "updated_at": at,
            "model": stored.model,
            "weights": stored.model_sha256 or "",
        },
    )
