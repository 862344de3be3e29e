"""Write the readers' feedback of the web page as the next version of a data set that only grows by versions.

    fracture-det snapshot --out datasets/feedback
    fracture-det snapshot --verify datasets/feedback
    fracture-det snapshot --out datasets/feedback --forget

Reads the store of the FRACTURE_* variables (docs/api.md) and writes OUT/<date>-<12 digits of its hash>: images/,
annotations/, train.json, val.json, test.json, metadata.csv, snapshot.json and CARD.md. A version is never written to
again; the same feedback gives the same hash, and no new version. What is usable is as for `export-feedback`.

A picture has one split for life, or is left out: patients, studies, identical pictures and near copies are one group,
also with pictures of earlier versions, and a new group is divided by its hash. Where groups of two splits turn out to
be one, it is of the later of train, val and test; what was in another split, and what comes later, is left out and
named. Studies are known of radiographs from a PACS; their patients too while the node keeps the files, with
FRACTURE_SITE_SECRET set, and as hashes by that secret, as `prepare` and `deidentify` do.

What was deleted from the store is not in the next version, and its card names it. --forget deletes it from earlier
versions as well, and says so in their snapshot.json; --verify then accepts exactly that.

Exit code 1 where nothing could be written, or --verify finds something; 2 for a wrong request.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fracture_det.cli.export_feedback import results_of, review_of, was_read
from fracture_det.cli.page import import_page
from fracture_det.data.dicom_groups import SECRET_VARIABLE
from fracture_det.data.snapshot_files import SNAPSHOT_FILE, SnapshotError, read_snapshots, verify_snapshot
from fracture_det.data.snapshot_groups import key
from fracture_det.data.snapshots import Candidate, Options, Outcome, forget, locked, write_snapshot
from fracture_det.data.splits import DEFAULT_FRACTIONS, SPLITS, split_by_hash
from fracture_det.structures.dicom import MIN_SECRET_BYTES
from fracture_det.structures.image_errors import UnreadableImage
from fracture_det.structures.radiograph import read_dicom_file
from fracture_det.structures.wording import counted

GONE, ALL = "gone", "all"
NO_RESULT, NO_PICTURE = "it is not in the store any more", "its picture is not kept any more"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="fracture-det snapshot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="DIR", help="folder with all versions; made when missing")
    what.add_argument("--verify", type=Path, metavar="DIR", help="a version, or a folder with versions, to check")
    parser.add_argument("--label", default="fracture", help="class of drawn fractures (default: fracture)")
    parser.add_argument(
        "--fractions",
        nargs=3,
        type=float,
        default=DEFAULT_FRACTIONS,
        metavar=("TRAIN", "VAL", "TEST"),
        help="how new groups are divided (default: .8 .1 .1); groups of earlier versions stay where they are",
    )
    parser.add_argument(
        "--anonymous-readers", action="store_true", help="numbers instead of readers' names; of this version only"
    )
    parser.add_argument("--note", default="", metavar="TEXT", help="licence and consent, for the card")
    parser.add_argument(
        "--forget",
        nargs="?",
        const=GONE,
        choices=(GONE, ALL),
        help="delete from earlier versions what is not in the store any more; refused where that is every radiograph, "
        "which a wrong FRACTURE_DATA_DIR looks like, unless `--forget all` says so",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        split_by_hash("", args.fractions)
    except ValueError as error:
        parser.error(f"--fractions: {error}")
    if args.verify is not None and args.forget is not None:
        parser.error("--forget: goes with --out")
    if args.verify is not None:
        return _verify(args.verify)
    arguments = sys.argv[1:] if argv is None else argv
    command = shlex.join(["fracture-det", "snapshot", *arguments])
    page, settings, stores = import_page(), import_page("settings"), import_page("store")
    try:
        options = Options(tuple(args.fractions), args.label, _fingerprint(_secret()), args.note, command)
        chosen = settings.Settings.from_environ()
        store = page.open_store(chosen)
        try:
            with locked(args.out):
                return _snapshot(store, stores.HistoryFilter(), chosen.data_dir, args, options)
        finally:
            store.close()
    except (settings.SettingsError, stores.StoreError, stores.StoreUnavailable, SnapshotError, OSError) as error:
        print(f"snapshot: {error}", file=sys.stderr)
        return 1


def _snapshot(store: Any, wanted: Any, folder: Path, args: argparse.Namespace, options: Options) -> int:
    results = {stored.id: stored for stored in results_of(store, wanted)}
    earlier = {name for snapshot in read_snapshots(args.out) for name in snapshot.pictures}
    for name in earlier - results.keys():  # a page of results moves while others are deleted
        if (stored := store.results.get(name)) is not None:
            results[name] = stored
    judged = [stored for _, stored in sorted(results.items()) if was_read(stored)]
    gone = {name: _why_gone(results.get(name)) for name in earlier}
    gone = {name: why for name, why in gone.items() if why}
    now = datetime.now(timezone.utc)
    if args.forget == GONE and earlier and len(gone) == len(earlier):
        raise SnapshotError(
            f"none of the {counted(len(earlier), 'radiograph')} of {args.out} is in the store in {folder}: is that the "
            "right one (FRACTURE_DATA_DIR, FRACTURE_DATABASE_URL)? If so, `--forget all` deletes them"
        )
    status = 0
    try:
        if not judged:
            what = f"has {counted(len(results), 'result')}, none with feedback" if results else "is empty"
            raise SnapshotError(
                f"the store in {folder} {what}; nothing was written (FRACTURE_DATA_DIR, FRACTURE_DATABASE_URL)"
            )
        candidates = _candidates(store, judged, anonymous=args.anonymous_readers)
        _print_outcome(write_snapshot(candidates, args.out, options, now=now, gone=gone), args.out)
    except SnapshotError as error:
        if args.forget is None:
            raise
        print(f"snapshot: {error}", file=sys.stderr)
        status = 1
    if args.forget is not None:
        for version, names in forget(args.out, gone, date=f"{now:%Y-%m-%d}").items():
            print(f"deleted from {version}: {', '.join(names)}")
    return status


def _why_gone(stored: Any) -> str:
    """Return why a radiograph is to be forgotten, or an empty text."""
    if stored is None:
        return NO_RESULT
    return "" if stored.image_path is not None else NO_PICTURE


def _candidates(store: Any, judged: Sequence[Any], *, anonymous: bool) -> list[Candidate]:
    keys = _keys(store, {stored.id for stored in judged})
    said = [said for stored in judged for said in (*stored.readings, stored.settled) if said is not None]
    names = _numbered(one.author for one in said) if anonymous else {}
    candidates = []
    for stored in judged:
        review = review_of(stored, names)
        about = {**review.about, "finding": stored.finding}
        own = {key("upload", stored.input_sha256), *keys.get(stored.id, ())}
        candidates.append(Candidate(replace(review, about=about), frozenset(own)))
    return candidates


def _numbered(authors: Iterable[str]) -> dict[str, str]:
    """Return a number for each reader, in an order that is not that of their names."""
    ordered = sorted(set(authors), key=lambda name: hashlib.sha256(name.encode()).digest())
    return {name: f"reader {number}" for number, name in enumerate(ordered, start=1)}


def _keys(store: Any, wanted: set[str]) -> Mapping[str, set[str]]:
    """Return the keys of study and patient of results from the PACS; patients only by the secret of the site."""
    secret, keys, unread = _secret(), dict[str, set[str]](), 0
    for result, (study, identifier) in store.pacs_status.origins().items():
        if result not in wanted:
            continue
        keys[result] = {key("study", study)}
        if not secret or identifier is None:
            unread += 1
            continue
        try:
            file = read_dicom_file(store.pacs.spool.object_path(identifier), secret=secret)
        except (UnreadableImage, OSError):  # deleted by now, or no longer to be read
            unread += 1
            continue
        if file.patient_key is not None:
            keys[result].add(key("patient", file.patient_key))
    if unread:
        why = "the node no longer keeps their files" if secret else f"{SECRET_VARIABLE} is not set"
        print(f"{counted(unread, 'radiograph')} from the PACS: grouped by study, not by patient: {why}")
    return keys


def _secret() -> bytes:
    """Return the secret of the site, empty where none is set. Raises SnapshotError for one that is too short."""
    secret = os.environ.get(SECRET_VARIABLE, "").encode()
    if secret and len(secret) < MIN_SECRET_BYTES:
        raise SnapshotError(f"{SECRET_VARIABLE}: expected at least {MIN_SECRET_BYTES} characters, got {len(secret)}")
    return secret


def _fingerprint(secret: bytes) -> str | None:
    return hmac.new(secret, b"fracture_det snapshot", hashlib.sha256).hexdigest()[:32] if secret else None


def _print_outcome(outcome: Outcome, out: Path) -> None:
    for name, reason in outcome.left_out:
        print(f"left out: {name}: {reason}")
    for name, reason in outcome.left.items():
        print(f"left since {outcome.snapshot.content['previous']}: {name}: {reason}")
    for sentence in outcome.joined:
        print(f"joined: {sentence}")
    sizes = ", ".join(f"{outcome.sizes.get(split, 0):,} {split}" for split in SPLITS)
    n = counted(sum(outcome.sizes.values()), "radiograph")
    if outcome.is_new:
        print(f"{outcome.snapshot.folder}: {n} ({sizes}), {len(outcome.left_out)} left out")
    else:
        print(f"{out}: nothing new since {outcome.snapshot.name}: {n} ({sizes})")


def _verify(folder: Path) -> int:
    """Print what is not as it was written in a version, or in every version of a folder; return the exit code."""
    try:
        versions = [folder] if (folder / SNAPSHOT_FILE).exists() else [s.folder for s in read_snapshots(folder)]
    except (SnapshotError, OSError) as error:
        print(f"snapshot: {error}", file=sys.stderr)
        return 1
    if not versions:
        print(f"snapshot: {folder}: no snapshot lies there", file=sys.stderr)
        return 1
    faulty = 0
    for version in versions:
        problems, deletion = verify_snapshot(version)
        faulty += bool(problems)
        for problem in problems:
            print(f"{version}: {problem}")
        state = f"{counted(len(problems), 'difference')}" if problems else "as it was written"
        print(f"{version}: {state}{'; ' + deletion if deletion else ''}")
    return 1 if faulty else 0
