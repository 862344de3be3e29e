"""The files of one snapshot of readers' feedback: their hashes, whether these still hold, and deletions."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fracture_det.data.snapshot_groups import Group
from fracture_det.data.splits import SPLITS
from fracture_det.structures.hashes import sha256_of

FORMAT = "fracture_det snapshot 1"
SNAPSHOT_FILE, CARD_FILE, METADATA_FILE = "snapshot.json", "CARD.md", "metadata.csv"
SPLIT_FILES = tuple(f"{split}.json" for split in SPLITS)
# What is written anew where a radiograph is deleted; each radiograph in them has a hash of its own as well.
TABLES = (*SPLIT_FILES, METADATA_FILE)
UNFINISHED = ".unfinished-"
HASH_DIGITS = 12
VERSION_NAME = re.compile(rf"\d{{4}}-\d\d-\d\d-[0-9a-f]{{{HASH_DIGITS}}}")
FRAME, LEDGER, RECORD = "frame", "ledger", "record "
_IMAGE = re.compile(r"images/(?P<id>.+)\.png")


class SnapshotError(ValueError):
    """A folder is no intact snapshot, or snapshots cannot be continued; the message names file, field and value."""


@dataclass(frozen=True)
class Snapshot:
    """One version, as its snapshot.json says.

    content: that file. groups: every group that there ever was, and the split of each picture.
    """

    folder: Path
    content: Mapping[str, Any]
    groups: tuple[Group, ...]

    @property
    def name(self) -> str:
        """The date and the first digits of the hash."""
        return self.folder.name

    @property
    def hashes(self) -> Mapping[str, str]:
        """SHA-256 of each file, of each radiograph in the tables, and of the ledger, as they were written."""
        hashes: Mapping[str, str] = self.content["hashes"]
        return hashes

    @property
    def pictures(self) -> dict[str, str]:
        """Identifier of each radiograph that it was written with -> SHA-256 of its picture."""
        found = {_IMAGE.fullmatch(name): digest for name, digest in self.hashes.items()}
        return {match["id"]: digest for match, digest in found.items() if match is not None}

    @property
    def deleted(self) -> frozenset[str]:
        """The radiographs that were deleted from it since."""
        return frozenset(name for change in self.content["changed_by_deletion"] for name in change["radiographs"])


def read_snapshot(folder: Path) -> Snapshot:
    """Read the snapshot.json of a version, without looking at other files.

    Raises SnapshotError where it cannot be read, or does not fit its ledger and the name of its folder.
    """
    path = folder / SNAPSHOT_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise SnapshotError(f"{path}: format: expected {FORMAT!r}, got {content['format']!r}")
        groups = tuple(Group.from_json(group) for group in content["ledger"]["groups"])
        snapshot = Snapshot(folder, content, groups)
        digest = sha256_of_all(snapshot.hashes)
        number, _, _, _ = int(content["number"]), snapshot.pictures, snapshot.deleted, content["ledger"]["secret"]
    except SnapshotError:
        raise
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SnapshotError(f"{path}: cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SnapshotError(f"{path}: not a snapshot.json: {error!r}") from error
    if number < 1:
        raise SnapshotError(f"{path}: number: expected 1 or more, got {number}")
    if content["sha256"] != digest:
        raise SnapshotError(f"{path}: sha256: the listed hashes give {digest}, it says {content['sha256']}")
    if not VERSION_NAME.fullmatch(folder.name) or not folder.name.endswith(f"-{digest[:HASH_DIGITS]}"):
        raise SnapshotError(f"{folder}: expected a name that ends with {digest[:HASH_DIGITS]}, as its hash begins")
    if content.get("name") != folder.name:
        raise SnapshotError(f"{path}: name: expected {folder.name!r}, that of its folder, got {content.get('name')!r}")
    if snapshot.hashes.get(LEDGER) != sha256_of_json(content["ledger"]):
        raise SnapshotError(f"{path}: ledger: was changed: its SHA-256 is not the listed one")
    return snapshot


def read_snapshots(out: Path) -> list[Snapshot]:
    """Return the versions in a folder, in the order in which they were made. Raises SnapshotError and OSError."""
    folders = [folder for folder in sorted(out.iterdir()) if not folder.name.startswith(UNFINISHED) and folder.is_dir()]
    versions = [
        read_snapshot(folder)
        for folder in folders
        if VERSION_NAME.fullmatch(folder.name) or (folder / SNAPSHOT_FILE).exists()
    ]
    versions.sort(key=lambda snapshot: int(snapshot.content["number"]))
    for first, second in pairwise(versions):
        if first.content["number"] == second.content["number"]:
            raise SnapshotError(f"{second.folder}: number: {second.content['number']} is that of {first.name}, too")
    return versions


def sha256_of_all(hashes: Mapping[str, str]) -> str:
    """Return the SHA-256 of a listing: a line `<hash>  <name>` for each, sorted by name, as sha256sum writes them."""
    return hashlib.sha256("".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()).hexdigest()


def sha256_of_json(content: Any) -> str:
    """Return the SHA-256 of the JSON of `content`, with sorted keys and without blanks."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hashes_of(folder: Path, ledger: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes of a version that is written but for its card and snapshot.json. Raises OSError."""
    files = {name: sha256_of(folder / name) for name in _files(folder)}
    return {**files, **record_hashes(folder), LEDGER: sha256_of_json(ledger)}


def record_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each radiograph in the tables, `record ID`, and of what remains of them, `frame`.

    A radiograph is its split, its entry, its annotations without their numbers, and its row of metadata.csv, so that
    its hash stays when others are deleted. Raises OSError, KeyError, TypeError or ValueError for other tables.
    """
    header, *rows = _rows((folder / METADATA_FILE).read_text(encoding="utf-8"))
    row_of = {row[0]: row for row in rows}
    hashes, frames = {}, []
    for name in SPLIT_FILES:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        annotations: dict[int, list[dict[str, Any]]] = {entry["id"]: [] for entry in content["images"]}
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append({k: v for k, v in annotation.items() if k != "id"})
        for entry in content["images"]:
            file_name = entry["file_name"]
            record = [name, entry, annotations[entry["id"]], row_of.pop(file_name)]
            hashes[RECORD + file_name.removesuffix(".png")] = sha256_of_json(record)
        frames.append({k: v for k, v in content.items() if k not in ("images", "annotations")})
    return {**hashes, FRAME: sha256_of_json([header, frames, sorted(row_of)])}


def verify_snapshot(folder: Path) -> tuple[list[str], str]:
    """Return a sentence for each thing in a version that is not as it was written, and what deletion took from it.

    Files that deletion took must be away, and the tables must hold every other radiograph unchanged. The card is not
    looked at: it has blanks to fill in.
    """
    try:
        snapshot = read_snapshot(folder)
        present = _files(folder)
    except (SnapshotError, OSError) as error:
        return [str(error)], ""
    found, gone = [], snapshot.deleted
    away = {name for identifier in gone for name in _files_of(identifier)}
    of_files = {k: v for k, v in snapshot.hashes.items() if k not in (FRAME, LEDGER) and not k.startswith(RECORD)}
    for name, digest in sorted(of_files.items()):
        if gone and name in TABLES and name in present:
            continue  # by radiograph, below
        if name not in present:
            found += [] if name in away else [f"{name}: missing"]
        elif name in away:
            found.append(f"{name}: still there, although deleted; --forget finishes that")
        elif sha256_of(folder / name) != digest:
            found.append(f"{name}: changed")
    found += [f"{name}: not part of the snapshot" for name in sorted(present - of_files.keys())]
    if gone:
        found += _changed_records(snapshot)
    dates = ", ".join(sorted({str(change.get("date")) for change in snapshot.content["changed_by_deletion"]}))
    return found, f"changed by deletion on {dates}: {', '.join(sorted(gone))}" if gone else ""


def _changed_records(snapshot: Snapshot) -> list[str]:
    """Return how the tables differ from what they were, but for radiographs that were deleted."""
    try:
        now = record_hashes(snapshot.folder)
    except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
        return [f"{', '.join(TABLES)}: cannot be read: {error!r}"]
    away = {RECORD + identifier for identifier in snapshot.deleted}
    expected = {k: v for k, v in snapshot.hashes.items() if (k.startswith(RECORD) or k == FRAME) and k not in away}
    changed = {name for name in expected.keys() & now.keys() if expected[name] != now[name]}
    sentences = {"changed": changed, "missing": expected.keys() - now.keys()}
    sentences |= {"still there, although deleted; --forget finishes that": now.keys() & away}
    sentences |= {"not part of the snapshot": now.keys() - expected.keys() - away}
    return [
        f"{'head of the tables' if name == FRAME else name + ' of the tables'}: {what}"
        for what, names in sentences.items()
        for name in sorted(names)
    ]


def delete_from(snapshot: Snapshot, radiographs: Collection[str], *, date: str) -> list[str]:
    """Delete radiographs from a version with their annotations, and return those that it had.

    First snapshot.json says so, then they go: where that is cut short, the next call finishes it. Raises OSError.
    """
    new = sorted(snapshot.pictures.keys() & set(radiographs) - snapshot.deleted)
    folder, changes = snapshot.folder, list(snapshot.content["changed_by_deletion"])
    if new:
        changes.append({"date": date, "radiographs": new})
        write_whole(folder / SNAPSHOT_FILE, to_json({**snapshot.content, "changed_by_deletion": changes}))
    gone = snapshot.deleted | set(new)
    if not gone:
        return []
    for identifier in sorted(gone):
        for name in _files_of(identifier):
            (folder / name).unlink(missing_ok=True)
    for name in SPLIT_FILES:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        images = [entry for entry in content["images"] if entry["file_name"].removesuffix(".png") not in gone]
        if len(images) < len(content["images"]):
            numbers = {entry["id"] for entry in images}
            annotations = [entry for entry in content["annotations"] if entry["image_id"] in numbers]
            text = json.dumps({**content, "images": images, "annotations": annotations}, ensure_ascii=False)
            write_whole(folder / name, text)
    rows = _rows((folder / METADATA_FILE).read_text(encoding="utf-8"))
    kept = [row for row in rows if row[0].removesuffix(".png") not in gone]
    if len(kept) < len(rows):
        table = io.StringIO()
        csv.writer(table).writerows(kept)
        write_whole(folder / METADATA_FILE, table.getvalue())
    _note_in_card(folder / CARD_FILE, changes)
    return new


def _note_in_card(card: Path, changes: list[dict[str, Any]]) -> None:
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    notes = [
        f"Changed by deletion on {change['date']}: {', '.join(change['radiographs'])}. The figures above and the hash "
        "are those of before.\n"
        for change in changes
    ]
    missing = [note for note in notes if note not in text]
    if missing:
        write_whole(card, "\n".join([text, *missing]))


def to_json(content: Mapping[str, Any]) -> str:
    """Return what a snapshot.json holds, as text."""
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is never half there: beside the version first, then renamed. Raises OSError."""
    number, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent.parent)
    with os.fdopen(number, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)


def _files(folder: Path) -> set[str]:
    """Return the files of a version but for its card and snapshot.json, as paths with forward slashes."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return found - {SNAPSHOT_FILE, CARD_FILE}


def _files_of(identifier: str) -> tuple[str, str]:
    return f"images/{identifier}.png", f"annotations/{identifier}.xml"


def _rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))
