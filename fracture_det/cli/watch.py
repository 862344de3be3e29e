"""The reference that the page's watch compares with, and how well the watch works.

    fracture-det watch reference --from-store --since 2026-01-01 --until 2026-02-12 --out watch.json
    fracture-det watch reference --data data/val.json --images data/images --out watch.json
    fracture-det watch simulate --data data/val.json data/test.json --images data/images --out output/watch

`reference` writes what a detector sees and says when all is well: counts of features of radiographs and of results, no
radiograph. A site's own first weeks are the best reference (--from-store, of the FRACTURE_* variables); validation
images stand in until then. FRACTURE_WATCH_REFERENCE names the file to the page.

`simulate` draws windows from real radiographs: how often an unchanged one is an alarm, and after how many radiographs a
change (gamma, inversion, size, blur, noise, another mix of body parts) is found. Every --every'th one is changed;
the others are the reference. Values are kept in OUT, and an interrupted run goes on. Prints two tables. Exit code 2 for
a wrong request. docs/monitoring.md explains the test.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from fracture_det.cli.page import import_page
from fracture_det.monitoring.counts import Counts, WatchError, total
from fracture_det.monitoring.drift import Rule
from fracture_det.monitoring.reference import make_reference
from fracture_det.structures.wording import counted


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det watch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    reference = commands.add_parser("reference", help="make a reference")
    source = reference.add_mutually_exclusive_group(required=True)
    source.add_argument("--from-store", action="store_true", help="of what the page has analysed")
    source.add_argument("--data", type=Path, nargs="+", metavar="FILE", help="of these images, as COCO JSON")
    add = reference.add_argument
    add("--since", type=_date, metavar="DATE", help="first day (YYYY-MM-DD, UTC) of --from-store")
    add("--until", type=_date, metavar="DATE", help="the day after the last one of --from-store")
    add("--out", type=Path, required=True, metavar="FILE", help="the reference as JSON")
    add("--tables", type=Path, metavar="DIR", help="folder that keeps the values of --data (default: beside --out)")
    add("--about", metavar="TEXT", help="what it was made of, for people (default: the data and the days)")
    _add_rule(reference)
    _add_detector(reference)
    simulate = commands.add_parser("simulate", help="how often it alarms, and how soon")
    add = simulate.add_argument
    add("--data", type=Path, nargs="+", required=True, metavar="FILE", help="radiographs no training saw, as COCO JSON")
    add("--neighbours", type=Path, metavar="FILE", help="COCO JSON of images whose neighbours by name are one visit")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for values and tables")
    add("--every", type=int, default=4, metavar="N", help="every n'th radiograph is changed (default: 4)")
    add("--runs", type=int, default=200, metavar="N", help="runs for each change (default: 200)")
    add("--references", type=int, default=50, metavar="N", help="references drawn for false alarms (default: 50)")
    _add_rule(simulate)
    _add_detector(simulate)
    return parser


def _add_rule(parser: argparse.ArgumentParser) -> None:
    rule = Rule()
    add = parser.add_argument_group("rule").add_argument
    add("--rate", type=float, default=rule.rate, metavar="P", help="alarms per window without a change (default: .01)")
    add("--images-per-visit", type=int, default=rule.images_per_visit, metavar="N", help="wholly alike (default: 2)")
    add("--window", type=int, default=rule.window, metavar="N", help="radiographs in a window (default: 100)")
    add("--draws", type=int, default=rule.draws, metavar="N", help="for each threshold (default: 20,000)")
    add("--seed", type=int, default=rule.seed, metavar="N", help="of everything drawn (default: 0)")


def _add_detector(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("detector and images, for --data").add_argument
    add("--images", type=Path, metavar="DIR", help="folder that file names start from")
    add("--detector", default="shipped", metavar="URI", help="shipped, d2:FOLDER ... (default: shipped)")
    add("--calibration", type=Path, metavar="FILE", help="as the page has it; of the shipped detector, its own")


def _date(text: str) -> str:
    return f"{datetime.strptime(text, '%Y-%m-%d'):%Y-%m-%d}"


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.data and args.images is None:
        parser.error("--data: needs --images")
    try:
        rule = Rule(args.rate, args.images_per_visit, args.window, args.draws, args.seed)
        if args.command == "simulate":
            from fracture_det.cli.watch_simulate import simulate

            simulate(args, rule)
            return 0
        made = _of_store(args) if args.from_store else _of_data(args)
        reference = make_reference(*made, rule=rule)
        reference.save(args.out)
    except (ValueError, OSError) as error:
        print(f"watch: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {counted(reference.counts.images, 'radiograph')}; {reference.about}")
    return 0


def _of_store(args: argparse.Namespace) -> tuple[str, str, Counts, dict[str, Counts]]:
    page, settings, stores = import_page(), import_page("settings"), import_page("store")
    try:
        store = page.open_store(settings.Settings.from_environ())
        try:
            days = [day for day in store.watch.days() if _is_between(day.date, args.since, args.until)]
        finally:
            store.close()
    except stores.StoreUnavailable as error:
        raise WatchError(str(error)) from error
    if not days:
        raise WatchError("the store has no radiograph of these days (FRACTURE_DATA_DIR, --since, --until)")
    detectors = {day.model_sha256: day.model for day in days}
    if len(detectors) > 1:
        raise WatchError(f"several detectors served in these days: {', '.join(detectors.values())}; choose days of one")
    [(sha256, name)] = detectors.items()
    about = args.about or f"this site, {days[0].date} to {days[-1].date}, {name}"
    return sha256, about, total(day.counts for day in days), {}


def _is_between(date: str, since: str | None, until: str | None) -> bool:
    return (since is None or date >= since) and (until is None or date < until)


def _of_data(args: argparse.Namespace) -> tuple[str, str, Counts, dict[str, Counts]]:
    from fracture_det.cli.watch_simulate import measured, open_watched
    from fracture_det.monitoring.simulate import Pool

    detector, possible = open_watched(args)
    records, rows = measured(args, args.tables or args.out.parent, detector, possible)
    pool = Pool(rows, [record.anatomy for record in records])
    level, operating = import_page("presentation").finding_level, detector.info.score_threshold
    findings = Counter(level(row["score"], operating, possible) for row in rows if row is not None)
    counts = replace(pool.counts(pool.everything), findings=dict(findings))
    about = args.about or f"{counted(counts.images, 'image')} of {_names(args.data)}, {detector.info.name}"
    return detector.info.sha256 or "", about, counts, pool.strata()


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)
