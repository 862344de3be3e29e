"""What `fracture-det watch` does with images: their values, and the tables of false alarms and delays."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fracture_det.cli.page import import_page
from fracture_det.data.coco import read_coco
from fracture_det.data.records import ImageRecord
from fracture_det.inference.base import Detector
from fracture_det.inference.registry import open_detector
from fracture_det.monitoring.changes import CHANGES, Change
from fracture_det.monitoring.counts import WatchError
from fracture_det.monitoring.drift import MIN_IMAGES, Rule
from fracture_det.monitoring.features import Values
from fracture_det.monitoring.measure import measure_files, measure_pictures
from fracture_det.monitoring.reference import make_reference
from fracture_det.monitoring.simulate import MOST_WINDOWS, Delay, FalseAlarms, Pool, delay, false_alarms
from fracture_det.resources import resource
from fracture_det.structures.markdown_table import markdown_table

# Sizes of windows, images of a visit, and whether these are one and the same, for false alarms.
UNCHANGED = ((100, 1, True), (300, 1, True), (100, 2, True), (300, 2, True), (100, 3, True))
NEIGHBOURS = ((100, 3, False), (300, 3, False), (100, 5, False))
WINDOWS = 100


def open_watched(args: argparse.Namespace) -> tuple[Detector, float]:
    """Return the detector of the arguments, and the score from which it has a finding, as on the page."""
    calibration = args.calibration
    if calibration is None and args.detector == "shipped":
        calibration = resource("weights/shipped/calibration.json")
    detector = open_detector(args.detector, calibration=calibration)
    thresholds_of, settings = import_page("context").thresholds_of, import_page("settings").Settings
    return detector, thresholds_of(settings.from_environ(), detector.info)[1]


def measured(
    args: argparse.Namespace,
    folder: Path,
    detector: Detector,
    possible_score: float,
    *,
    change: tuple[str, Change] | None = None,
    every: int = 1,
) -> tuple[list[ImageRecord], list[Values | None]]:
    """Return the records of --data, by name, and their values after a change, or None of what is refused."""
    records = sorted((record for path in args.data for record in read_coco(path)), key=lambda one: one.file_name)
    if not records:
        raise WatchError(f"{args.data[0]}: there is no image in it")
    chosen = records[::every]
    name, alter = change or ("untouched", None)
    files = [(record.file_name, args.images / record.file_name) for record in chosen]
    path = folder / f"{name.replace(' ', '_')}.jsonl"
    rows = measure_files(detector, files, path, possible_score=possible_score, alter=alter)
    return chosen, [row.values for row in rows]


def simulate(args: argparse.Namespace, rule: Rule) -> None:
    """Measure, draw and print both tables."""
    detector, possible = open_watched(args)
    records, rows = measured(args, args.out, detector, possible)
    pool = Pool(rows, [record.anatomy for record in records])
    size = max(len(pool) // 2, MIN_IMAGES)
    alarms = [
        false_alarms(pool, rule, n, per_visit, alike=alike, size=size, references=args.references, windows=WINDOWS)
        for n, per_visit, alike in UNCHANGED
    ]
    if args.neighbours is not None:
        names = sorted((record.file_name for record in read_coco(args.neighbours)), key=lambda name: Path(name).name)
        files = [(name, args.images / name) for name in names]
        beside = Pool([row.values for row in measure_pictures(files, args.out / "neighbours.jsonl")])
        alarms += [
            false_alarms(
                beside, rule, n, per_visit, alike=alike, size=size, references=args.references, windows=WINDOWS
            )
            for n, per_visit, alike in NEIGHBOURS
        ]
    print(_alarm_table(alarms))
    delays = _delays(args, rule, detector, possible, records, rows)
    print(f"\n{_delay_table(delays)}")


def _delays(
    args: argparse.Namespace,
    rule: Rule,
    detector: Detector,
    possible: float,
    records: Sequence[ImageRecord],
    rows: Sequence[Values | None],
) -> list[Delay]:
    others = [index for index in range(len(rows)) if index % args.every]
    before = Pool([rows[index] for index in others], [records[index].anatomy for index in others])
    reference = make_reference("simulated", "", before.counts(before.everything), before.strata(), rule)
    options = {"per_visit": rule.images_per_visit, "runs": args.runs, "seed": rule.seed}
    delays = [delay("none", reference, before, Pool(rows[:: args.every]), **options)]
    for name, change in CHANGES.items():
        after = measured(args, args.out, detector, possible, change=(name, change), every=args.every)[1]
        delays.append(delay(name, reference, before, Pool(after), **options))
    for part in before.strata():
        chosen = [index for index in range(0, len(rows)) if records[index].anatomy == part]
        if len(chosen) >= 20:
            after_part = Pool([rows[index] for index in chosen])
            delays.append(delay(f"{part} only", reference, before, after_part, **options))
    return delays


def _alarm_table(alarms: Sequence[FalseAlarms]) -> str:
    header = ("a visit", "images in a window", "windows", "with an alarm", "of the worst 1 in 20 references")
    rows = [
        (one.visits, f"{one.n}", f"{one.windows:,}", f"{100 * one.rate:.2f} %", f"{100 * one.worst:.0f} %")
        for one in alarms
    ]
    return markdown_table(header, rows)


def _delay_table(delays: Sequence[Delay]) -> str:
    header = ("change", "median delay", "95 %", "found", "called a mix", "refused", "furthest")
    limit = f"over {MOST_WINDOWS} windows"
    rows = [
        (
            one.change,
            limit if one.median is None else f"{one.median:.0f}",
            limit if one.late is None else f"{one.late:.0f}",
            *(f"{100 * share:.0f} %" for share in (one.found, one.explained, one.refused)),
            one.leading,
        )
        for one in delays
    ]
    return markdown_table(header, rows)
