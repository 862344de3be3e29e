"""Readers' feedback as versions of a data set: immutable, hashed, and each picture in one split for life."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from fracture_det.data.coco import read_coco, write_coco
from fracture_det.data.duplicates import near_duplicates
from fracture_det.data.feedback import Review, write_reviews
from fracture_det.data.image_info import ImageInfo, read_image_info
from fracture_det.data.records import Dataset
from fracture_det.data.snapshot_card import Facts, card
from fracture_det.data.snapshot_files import (
    CARD_FILE,
    FORMAT,
    HASH_DIGITS,
    SNAPSHOT_FILE,
    UNFINISHED,
    Snapshot,
    SnapshotError,
    delete_from,
    hashes_of,
    read_snapshot,
    read_snapshots,
    sha256_of_all,
    to_json,
)
from fracture_det.data.snapshot_groups import JOINED, Group, grow, key
from fracture_det.data.splits import DEFAULT_FRACTIONS, LEFT_OUT, SPLITS, take

LOCK = ".lock"
DESCRIPTION = "readers' feedback on a detector's boxes: {split}"


@dataclass(frozen=True)
class Candidate:
    """A radiograph with feedback. keys: what it shares with others of its group (`snapshot_groups.key`)."""

    review: Review
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Options:
    """How versions are made.

    fractions: of train, val and test, for new groups. label: class of the fractures that readers drew. secret: what
    tells the secret behind keys of patients from others, None without one. note: licence and consent, for the card.
    command: as it was given.
    """

    fractions: Sequence[float] = DEFAULT_FRACTIONS
    label: str = "fracture"
    secret: str | None = None
    note: str = ""
    command: str = ""


@dataclass(frozen=True)
class Outcome:
    """What was made. snapshot: the newest version. is_new: whether it is new. sizes: radiographs by split.

    left_out: (radiograph, reason). left: radiographs of the version before that are not in it, each with the reason.
    joined: a sentence for each time that groups of several splits turned out to be one.
    """

    snapshot: Snapshot
    is_new: bool
    sizes: Mapping[str, int]
    left_out: Sequence[tuple[str, str]]
    left: Mapping[str, str] = field(default_factory=dict)
    joined: Sequence[str] = ()


@dataclass(frozen=True)
class _Placed:
    """Radiographs with their splits, and the groups that say so."""

    groups: list[Group]
    splits: dict[str, str]
    group_of: dict[str, str]
    left_out: list[tuple[str, str]]
    joined: list[str]


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make a folder for versions if there is none, and hold it against other processes; remove what a killed one left.

    Raises SnapshotError while another process has it, and OSError.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SnapshotError(f"{out}: another snapshot is being made there") from None
        for path in sorted(out.glob(f"{UNFINISHED}*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield


def write_snapshot(
    candidates: Sequence[Candidate],
    out: Path,
    options: Options,
    *,
    now: datetime,
    gone: Mapping[str, str] | None = None,
) -> Outcome:
    """Write what is usable as the next version in `out`, unless that would be the newest one again.

    gone: why radiographs of earlier versions are not among the candidates. Raises SnapshotError for earlier versions
    that are not intact or were made with another secret, and where nothing is usable; and OSError.
    """
    versions = read_snapshots(out)
    last = versions[-1] if versions else None
    _check_secret(last, options.secret)
    usable, left_out = _usable(candidates)
    placed = _place(usable, versions, options.fractions)
    left_out += placed.left_out
    if not placed.splits:
        raise SnapshotError(f"nothing can be trained on: {_reasons(left_out) or 'there is no feedback'}")
    sizes = Counter(placed.splits.values())
    ledger = {"secret": options.secret, "groups": [group.to_json() for group in placed.groups]}
    folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=out))
    try:
        chosen = [candidate.review for candidate, _ in usable if candidate.review.name in placed.splits]
        dataset = _write_data(folder, chosen, placed, options.label)
        hashes = hashes_of(folder, ledger)
        digest = sha256_of_all(hashes)
        if last is not None and last.content["sha256"] == digest:
            return Outcome(last, False, sizes, left_out)
        facts = Facts(
            name=f"{now:%Y-%m-%d}-{digest[:HASH_DIGITS]}",
            sha256=digest,
            previous=None if last is None else last.name,
            dataset=dataset,
            splits={f"{name}.png": split for name, split in placed.splits.items()},
            about={review.name: review.about for review in chosen},
            repeated=_repeated(usable, placed.splits),
            left_out=left_out,
            left=_left(last, placed.splits, {**(gone or {}), **dict(left_out)}),
            joined=placed.joined,
            note=options.note,
            command=options.command,
        )
        content = _content(facts, options, hashes, ledger, number=_next(last), now=now)
        _publish(folder, out / facts.name, {SNAPSHOT_FILE: to_json(content), CARD_FILE: card(facts)})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(read_snapshot(out / facts.name), True, sizes, left_out, facts.left, placed.joined)


def forget(out: Path, radiographs: Collection[str], *, date: str) -> dict[str, list[str]]:
    """Delete radiographs from every version in `out`; return those that each had. Raises SnapshotError and OSError."""
    found = {snapshot.name: delete_from(snapshot, radiographs, date=date) for snapshot in read_snapshots(out)}
    return {name: deleted for name, deleted in found.items() if deleted}


def _check_secret(last: Snapshot | None, secret: str | None) -> None:
    """Refuse another secret than before: no patient of an earlier version would be known again."""
    before = None if last is None else last.content["ledger"]["secret"]
    if last is not None and before is not None and before != secret:
        now = "none is set" if secret is None else "it is another one"
        raise SnapshotError(f"{last.name} was made with a secret for its patients' keys, and now {now}")


def _usable(candidates: Sequence[Candidate]) -> tuple[list[tuple[Candidate, ImageInfo]], list[tuple[str, str]]]:
    """Return the candidates that can be trained on with their pictures, sorted by name, and why others cannot."""
    usable, left_out = [], []
    for candidate in sorted(candidates, key=lambda candidate: candidate.review.name):
        review = candidate.review
        if review.unusable or review.image is None:
            left_out.append((review.name, review.unusable))
            continue
        info = read_image_info("", str(review.image))
        if info.error is not None:
            left_out.append((review.name, f"its picture cannot be read: {info.error}"))
        else:
            usable.append((candidate, info))
    return usable, left_out


def _place(
    usable: Sequence[tuple[Candidate, ImageInfo]], versions: Sequence[Snapshot], fractions: Sequence[float]
) -> _Placed:
    keys = {c.review.name: frozenset({key("picture", info.sha256), *c.keys}) for c, info in usable}
    infos = {info.sha256: info for _, info in usable}
    infos |= _earlier_infos(versions, infos)
    named = [replace(info, file_name=digest) for digest, info in sorted(infos.items())]
    copies = [(key("picture", first), key("picture", second)) for first, second, _ in near_duplicates(named)]
    before = versions[-1].groups if versions else ()
    groups, joined = grow(before, keys.values(), copies=copies, fractions=fractions)
    place_of = {name: index for index, group in enumerate(groups) for name in group.keys}
    splits, group_of, left_out = {}, {}, []
    for candidate, info in usable:
        name, picture = candidate.review.name, key("picture", info.sha256)
        index = place_of[picture]
        groups[index], split = groups[index].place(picture)
        if split == LEFT_OUT:
            left_out.append((name, JOINED.format(split=groups[index].split)))
        else:
            splits[name], group_of[name] = split, groups[index].name
    return _Placed(groups, splits, group_of, left_out, joined)


def _earlier_infos(versions: Sequence[Snapshot], known: Collection[str]) -> dict[str, ImageInfo]:
    """Return the pictures of earlier versions that are still there, by SHA-256, but for those that are known."""
    infos: dict[str, ImageInfo] = {}
    for snapshot in versions:
        for name, digest in snapshot.pictures.items():
            if name in snapshot.deleted or digest in known or digest in infos:
                continue
            path = snapshot.folder / "images" / f"{name}.png"
            info = read_image_info("", str(path))
            if info.sha256 != digest:
                raise SnapshotError(f"{path}: is missing or was changed; see --verify {snapshot.folder}")
            infos[digest] = info
    return infos


def _write_data(folder: Path, reviews: Sequence[Review], placed: _Placed, label: str) -> Dataset:
    """Write pictures, annotations, metadata.csv and the three splits; return the whole data set."""
    write_reviews(reviews, folder, label=label)
    read = read_coco(folder / "coco.json")
    (folder / "coco.json").unlink()
    records = (replace(r, group_id=placed.group_of[r.file_name.removesuffix(".png")]) for r in read)
    dataset = Dataset(tuple(records), read.class_names)
    assignment = {f"{name}.png": split for name, split in placed.splits.items()}
    for split in SPLITS:
        write_coco(
            take(dataset, assignment, split), folder / f"{split}.json", description=DESCRIPTION.format(split=split)
        )
    return dataset


def _repeated(usable: Sequence[tuple[Candidate, ImageInfo]], splits: Mapping[str, str]) -> list[list[str]]:
    """Return the radiographs whose picture several results show, each list sorted."""
    results = defaultdict(list)
    for candidate, info in usable:
        if candidate.review.name in splits:
            results[info.sha256].append(candidate.review.name)
    return [names for names in results.values() if len(names) > 1]


def _left(last: Snapshot | None, splits: Mapping[str, str], why: Mapping[str, str]) -> dict[str, str]:
    before = () if last is None else sorted(last.pictures.keys() - splits.keys())
    return {name: why.get(name, "it is not in the store any more") for name in before}


def _content(
    facts: Facts, options: Options, hashes: Mapping[str, str], ledger: Mapping[str, Any], *, number: int, now: datetime
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": facts.name,
        "number": number,
        "previous": facts.previous,
        "written_at": now.isoformat(timespec="seconds"),
        "sha256": facts.sha256,
        "fractions": list(options.fractions),
        "label": options.label,
        "command": options.command,
        "radiographs": dict(Counter(facts.splits.values())),
        "left_out": [{"radiograph": name, "reason": reason} for name, reason in facts.left_out],
        "left_since_previous": dict(facts.left),
        "joined": list(facts.joined),
        "changed_by_deletion": [],
        "ledger": ledger,
        "hashes": dict(sorted(hashes.items())),
    }


def _next(last: Snapshot | None) -> int:
    return 1 if last is None else int(last.content["number"]) + 1


def _publish(folder: Path, target: Path, texts: Mapping[str, str]) -> None:
    """Add the last files to a version, and give it its name once everything in it is on the disk."""
    if target.exists():
        raise SnapshotError(f"{target}: is there already, and is not the newest version; nothing was written")
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for path in [*folder.rglob("*"), folder]:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    folder.rename(target)


def _reasons(left_out: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in left_out[:5]) + ("; ..." if len(left_out) > 5 else "")
