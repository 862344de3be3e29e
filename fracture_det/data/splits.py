"""Split a data set by group, reproducibly on every machine, and check that nothing leaks."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fracture_det.data.annotation_formats.data_yaml import YAML_SUFFIXES, read_data_yaml, split_of_images
from fracture_det.data.annotations import AnnotationError
from fracture_det.data.metadata import NameIndex
from fracture_det.data.records import EXCLUDED, Dataset, ImageRecord, Problem
from fracture_det.data.stated_types import count_types
from fracture_det.data.tables import MetadataError, find_column, read_table
from fracture_det.structures.wording import counted

SPLITS = ("train", "val", "test")
# In a split file: an image that belongs to no split.
LEFT_OUT = "none"
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)
FORMAT = "fracture_det split 1"

# file name -> split
Assignment = dict[str, str]


class EmptySplitError(ValueError):
    """A split that was to receive images has none. named: whether a given split names one that is empty."""

    def __init__(self, message: str, *, named: bool = False) -> None:
        super().__init__(message)
        self.named = named


class LeakError(ValueError):
    """A group lies in more than one split; the message names the first of them."""


def split_by_group(
    dataset: Dataset, fractions: Sequence[float] = DEFAULT_FRACTIONS, *, seed: int = 0
) -> dict[str, Dataset]:
    """Divide a data set into train, val and test so that no group is in two of them.

    fractions: of train, val and test; they are scaled to a sum of 1. Strata are anatomy and label, each and crossed.
    The same seed gives the same split on any machine and Python version. Raises ValueError for impossible fractions.
    """
    assignment = assign(dataset.records, fractions, seed=seed)
    return {name: take(dataset, assignment, name) for name in SPLITS}


def take(dataset: Dataset, assignment: Mapping[str, str], split: str) -> Dataset:
    """Return the records of one split, in the order of the data set."""
    return Dataset(tuple(r for r in dataset if assignment.get(r.file_name) == split), dataset.class_names)


def assign(
    records: Sequence[ImageRecord],
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    *,
    seed: int = 0,
    fixed: Mapping[str, str] | None = None,
) -> Assignment:
    """Return {file name: split} for all records, whole groups at a time.

    fixed: files whose split is given. Other files of a group with a fixed member go with it where that split may
    receive files (its fraction is not 0) and the group has only one; otherwise they are assigned like the rest, and
    `check_leaks` reports it. The largest groups are placed first, each where it brings its strata nearest to their
    goals; groups of one size come in the order of the SHA-256 of seed and group. A split whose share is half an image
    or more then receives at least one group, if there is one to spare, and a split without a fractured image exchanges
    a group for a fractured one that is no larger than its share, if another split keeps one.
    """
    shares = _shares(fractions)
    fixed = dict(fixed or {})
    homes: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.file_name in fixed:
            homes[record.group_id].add(fixed[record.file_name])
    assignment = {record.file_name: fixed[record.file_name] for record in records if record.file_name in fixed}
    groups: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.file_name):
        home = homes.get(record.group_id, set())
        if record.file_name in fixed:
            continue
        if len(home) == 1 and shares[next(iter(home))] > 0:
            assignment[record.file_name] = next(iter(home))
        else:
            groups[record.group_id].append(record)
    placed = _place(groups, shares, seed)
    taken = set(assignment.values())
    n_placed = sum(map(len, groups.values()))
    for split in SPLITS:
        if split not in taken and shares[split] * n_placed >= 0.5:
            _fill(split, placed, groups)
    homes_of_fractured = {
        (record.group_id, fixed[record.file_name])
        for record in records
        if record.fractured and record.file_name in fixed
    }
    given = Counter(split for _, split in homes_of_fractured)
    for split in SPLITS:
        _exchange(split, placed, groups, given, room=math.ceil(shares[split] * n_placed))
    assignment.update((r.file_name, placed[group]) for group, members in groups.items() for r in members)
    return assignment


def split_by_hash(group: str, fractions: Sequence[float] = DEFAULT_FRACTIONS) -> str:
    """Return the split of a group by the SHA-256 of its name alone, whatever other groups there are.

    fractions: of train, val and test; they are scaled to a sum of 1. Raises ValueError for impossible fractions.
    """
    shares = _shares(fractions)
    place = int.from_bytes(hashlib.sha256(f"split:{group}".encode()).digest()[:8], "big") / 2**64
    end = 0.0
    for split in SPLITS:
        end += shares[split]
        if place < end:
            return split
    return max(SPLITS, key=lambda split: shares[split])  # the sum of the shares is below 1 by rounding


def find_leaks(records: Sequence[ImageRecord], assignment: Mapping[str, str]) -> dict[str, list[str]]:
    """Return {group: its splits} for every group that lies in more than one split."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.file_name in assignment:
            splits_of[record.group_id].add(assignment[record.file_name])
    return {group: sorted(splits, key=SPLITS.index) for group, splits in sorted(splits_of.items()) if len(splits) > 1}


def check_leaks(records: Sequence[ImageRecord], assignment: Mapping[str, str]) -> None:
    """Raise LeakError when a group lies in more than one split."""
    leaks = find_leaks(records, assignment)
    if leaks:
        shown = "; ".join(f"{group} in {' and '.join(splits)}" for group, splits in list(leaks.items())[:5])
        lie = counted(len(leaks), "group lies", "groups lie")
        raise LeakError(
            f"{lie} in more than one split, so that test images would leak from training: {shown}"
            f"{'; ...' if len(leaks) > 5 else ''} (--drop-leaks leaves their images out of the earlier split)"
        )


def drop_leaks(records: Sequence[ImageRecord], assignment: Mapping[str, str]) -> tuple[Assignment, list[Problem]]:
    """Leave out of train, then val, the images whose group also lies in a later split; report each."""
    leaks = find_leaks(records, assignment)
    kept, problems = dict(assignment), []
    for record in records:
        splits = leaks.get(record.group_id)
        split = assignment.get(record.file_name)
        if splits and split is not None and split != splits[-1]:
            del kept[record.file_name]
            detail = f"left out of {split}: group {record.group_id} also lies in {splits[-1]}"
            problems.append(Problem(record.file_name, "leak", detail, EXCLUDED))
    return kept, problems


def read_split(
    path: str | Path, file_names: Sequence[str], *, image_root: str | Path | None = None
) -> tuple[Assignment, dict[str, str], list[Problem]]:
    """Read {file name: split} from a CSV, from a split.json of this project, or from Ultralytics' data.yaml.

    A CSV has the columns file_name (or image_id) and split. A split is train, val, test, or `none` for an image that
    is to be left out. image_root: the folder to which `file_names` are relative; a data.yaml is read better with it.
    Returns also the SHA-256 that split.json holds per file, and problems for names without an image. Raises
    MetadataError for a file that is none of these, or names none of the images, an unknown split, a name that fits
    several images, or one named twice.
    """
    path = Path(path)
    if path.suffix.lower() in YAML_SUFFIXES:
        return _read_data_yaml_split(path, file_names, image_root)
    problems: list[Problem] = []
    rows = _split_json_rows(path) if path.suffix.lower() == ".json" else _split_csv_rows(path, problems)
    index = NameIndex(file_names)
    assignment: Assignment = {}
    digests: dict[str, str] = {}
    for name, split, digest in rows:
        if split not in (*SPLITS, LEFT_OUT):
            expected = ", ".join((*SPLITS, LEFT_OUT))
            raise MetadataError(f"{path}: {name}: split: expected one of {expected}, got {split!r}")
        files = index.find(name)
        if len(files) > 1:
            raise MetadataError(f"{path}: {name}: fits several images: {', '.join(files[:4])}")
        if not files:
            problems.append(Problem(name, "split_without_image", f"named in {path.name} for {split}"))
            continue
        if assignment.get(files[0], split) != split:
            raise MetadataError(f"{path}: {name}: named for {assignment[files[0]]} and for {split}")
        assignment[files[0]] = split
        if digest:
            digests[files[0]] = digest
    if not assignment:
        first = ", ".join(name for name, _, _ in rows[:3]) or "nothing"
        raise MetadataError(
            f"{path}: it names none of the {counted(len(file_names), 'image')}: it names {first}; the images are "
            f"{', '.join(file_names[:3])}"
        )
    return assignment, digests, problems


def count_split(dataset: Dataset, assignment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return per split: images, fractured, healthy, boxes, groups, boxes by class, images and fractured by anatomy.

    types: boxes by known type of fracture, and images by that of the radiograph as a whole.
    """
    counts: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        members = take(dataset, assignment, split).records
        classes = Counter(dataset.class_names[index] for record in members for index in record.classes.tolist())
        anatomies = Counter(record.anatomy or "unknown" for record in members)
        fractured = Counter(record.anatomy or "unknown" for record in members if record.fractured)
        counts[split] = {
            "images": len(members),
            "fractured": sum(record.fractured for record in members),
            "healthy": sum(not record.fractured for record in members),
            "boxes": sum(len(record.boxes) for record in members),
            "groups": len({record.group_id for record in members}),
            "classes": {name: classes[name] for name in dataset.class_names},
            "anatomies": {
                anatomy: {"images": anatomies[anatomy], "fractured": fractured[anatomy]}
                for anatomy in sorted(anatomies)
            },
            "types": count_types(members),
        }
    return counts


def _shares(fractions: Sequence[float]) -> dict[str, float]:
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or not 0 < sum(fractions) < math.inf:
        raise ValueError(f"fractions: expected three numbers of at least 0 for train, val, test, got {fractions}")
    return {split: fraction / sum(fractions) for split, fraction in zip(SPLITS, fractions, strict=True)}


def _strata(record: ImageRecord) -> tuple[str, ...]:
    """Return what is to be balanced: all images, the label, the anatomy, and anatomy x label.

    The coarse strata decide where the fine ones are too small to fill every split.
    """
    label = "fractured" if record.fractured else "healthy"
    # These keys are summed in alphabetical order: another word would divide the same data differently.
    return "all", label, f"site {record.anatomy}", f"{label} {record.anatomy}"


def _place(groups: Mapping[str, Sequence[ImageRecord]], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    strata = {group: Counter(key for r in members for key in _strata(r)) for group, members in groups.items()}
    totals: Counter[str] = sum(strata.values(), Counter())
    # What each split still lacks of each stratum; plain floats in a fixed order, so the same everywhere.
    lack = {(split, stratum): shares[split] * totals[stratum] for split in SPLITS for stratum in sorted(totals)}

    def order(group: str) -> tuple[int, str]:
        return -len(groups[group]), hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()

    placed = {}
    for group in sorted(groups, key=order):
        counts = sorted(strata[group].items())

        def cost(split: str, counts: list[tuple[str, int]] = counts) -> float:
            # By how much the squared distance to the goals grows, each relative to its goal.
            return sum(
                ((lack[split, stratum] - n) ** 2 - lack[split, stratum] ** 2) / (shares[split] * totals[stratum])
                for stratum, n in counts
            )

        best = min((split for split in SPLITS if shares[split] > 0), key=cost)
        placed[group] = best
        for stratum, n in counts:
            lack[best, stratum] -= n
    return placed


def _read_data_yaml_split(
    path: Path, file_names: Sequence[str], image_root: str | Path | None
) -> tuple[Assignment, dict[str, str], list[Problem]]:
    try:
        content = read_data_yaml(path)
        assignment, unmatched = split_of_images(content, file_names, image_root)
    except AnnotationError as error:
        raise MetadataError(str(error)) from error
    if not assignment:
        folders = ", ".join(place for places in content.splits.values() for place in places) or "no split"
        raise MetadataError(f"{path}: it names {folders}, and none of the images lies there")
    problems = [
        Problem(entry, "split_without_image", f"named in {path.name} for {split}") for entry, split in unmatched
    ]
    return assignment, {}, problems


def _fill(split: str, placed: dict[str, str], groups: Mapping[str, Sequence[ImageRecord]]) -> None:
    """Move the last of the smallest groups of the fullest split to `split`, where that is empty."""
    n_groups = Counter(placed.values())
    if n_groups[split] or not n_groups:
        return
    fullest = max(SPLITS, key=lambda name: n_groups[name])
    if n_groups[fullest] > 1:
        donors = [group for group, home in placed.items() if home == fullest]
        placed[min(reversed(donors), key=lambda group: len(groups[group]))] = split


def _exchange(
    split: str,
    placed: dict[str, str],
    groups: Mapping[str, Sequence[ImageRecord]],
    given: Counter[str],
    *,
    room: int,
) -> None:
    """Give `split`, where no image of it is fractured, a fractured group for the group that is nearest in size.

    given: how many fractured groups each split has besides those that are `placed`. room: images of the largest group
    to give. The split that has the most fractured groups gives the last of its smallest, and keeps at least one.
    Nothing can be measured, and so nothing trained, with a split that has none.
    """
    fractured = [group for group in placed if any(record.fractured for record in groups[group])]
    count = given + Counter(placed[group] for group in fractured)
    own = [group for group, home in placed.items() if home == split]
    donor = max(SPLITS, key=lambda name: count[name])
    gifts = [group for group in fractured if placed[group] == donor and len(groups[group]) <= room]
    if count[split] or not own or count[donor] < 2 or not gifts:
        return
    gift = min(reversed(gifts), key=lambda group: len(groups[group]))
    back = min(reversed(own), key=lambda group: abs(len(groups[group]) - len(groups[gift])))
    placed[gift], placed[back] = split, donor


def check_splits_filled(assignment: Mapping[str, str], wanted: Sequence[str], named: Collection[str] = ()) -> None:
    """Raise EmptySplitError when one of the `wanted` splits has no image. named: those that a given split names."""
    sizes = Counter(assignment.values())
    empty = [split for split in wanted if not sizes[split]]
    if empty:
        found = ", ".join(f"{sizes[split]:,} {split}" for split in SPLITS)
        raise EmptySplitError(
            f"{' and '.join(empty)} would be empty: {counted(len(assignment), 'image')} can be used ({found})",
            named=not set(named).isdisjoint(empty),
        )


def _split_csv_rows(path: Path, problems: list[Problem]) -> list[tuple[str, str, str]]:
    rows, key, noticed = read_table(path)
    problems += noticed
    for problem in noticed:
        if problem.kind == "metadata_row_too_long":  # an image without its split could go from test to train
            raise MetadataError(f"{path}: {problem.detail}")
    column = find_column(list(rows[0]), "split") if rows else "split"
    if column is None:
        raise MetadataError(f"{path}: no column 'split'; it has {', '.join(rows[0])}")
    return [(row[key], row[column], "") for row in rows]


def read_groups(path: Path) -> dict[str, str]:
    """Return {file name: group} of a split.json. Raises MetadataError for a file that is none."""
    return {name: str(entry["group"]) for name, entry in _split_json_files(path).items() if entry.get("group")}


def _split_json_rows(path: Path) -> list[tuple[str, str, str]]:
    try:
        return [(name, entry["split"], entry["sha256"]) for name, entry in _split_json_files(path).items()]
    except (KeyError, TypeError) as error:
        raise MetadataError(f"{path}: not a split.json: {error!r}") from error


def _split_json_files(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise MetadataError(f"{path}: format: expected {FORMAT!r}, got {content['format']!r}")
        files = content["files"]
        if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
            raise TypeError("files: expected an object of objects")
        return files
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise MetadataError(f"{path}: not a split.json: {error!r}") from error
