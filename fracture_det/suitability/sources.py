"""Which pictures the head is fitted and measured on: sources by name, each in parts that never change."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from fracture_det.structures.strict_json import convert_json
from fracture_det.suitability.head import KINDS, LIMB

PARTS = TRAIN, VAL, TEST = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class SourceError(ValueError):
    """The list of sources cannot be used; the message names the file, the source and the value."""


class Source(msgspec.Struct, forbid_unknown_fields=True):
    """Pictures below `folder` of one kind, whose path matches `match`; at most `most`, of at least `least_bytes`.

    part: of all of them; or, without one, by what keeps copies together: `split` (a split.json of this project), or
    `group`, an expression whose first group in the file name is the group, or `table`, a CSV whose columns `image_id`
    and `source` name it.
    """

    name: str
    folder: str
    kind: str = LIMB
    part: str = ""
    match: str = ""
    most: int = 1_000_000
    least_bytes: int = 0
    split: str = ""
    group: str = ""
    table: str = ""


class Sources(msgspec.Struct, forbid_unknown_fields=True):
    """The file: sources, and how many pages and shapes are drawn for each part."""

    sources: tuple[Source, ...]
    drawn: dict[str, int] = {}


@dataclass(frozen=True)
class Picture:
    """One picture file, its source and the part that it is in."""

    source: str
    kind: str
    part: str
    path: Path


def read_sources(path: Path) -> Sources:
    """Read a list of sources. Raises SourceError."""
    try:
        sources = convert_json(msgspec.yaml.decode(path.read_bytes()), Sources)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: {error}") from error
    for source in sources.sources:
        if source.kind not in KINDS or (source.part and source.part not in PARTS):
            raise SourceError(f"{path}, {source.name}: expected a kind of {KINDS} and a part of {PARTS} or none")
        if not (source.part or source.split or source.group or source.table):
            raise SourceError(f"{path}, {source.name}: expected one of part, split, group and table")
    return sources


def find_pictures(sources: Sources, folders: Mapping[str, str]) -> list[Picture]:
    """Return all pictures in a fixed order. Raises SourceError for a folder that is not there or empty."""
    return [picture for source in sources.sources for picture in _of_source(source, folders)]


def part_of_group(group: str) -> str:
    """Return the part of a group: one group in ten tests, one validates, on any machine."""
    draw = int(sha256(group.encode()).hexdigest(), 16) % 10
    return TEST if draw == 0 else VAL if draw == 1 else TRAIN


def _of_source(source: Source, folders: Mapping[str, str]) -> Iterator[Picture]:
    try:
        folder, table, split = (Path(text.format_map(folders)) for text in (source.folder, source.table, source.split))
    except KeyError as error:
        raise SourceError(f"{source.name}: there is no folder {error}; give it with --folder") from error
    wanted = re.compile(source.match)
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file() and wanted.search(path.relative_to(folder).as_posix())
    ]
    files = [path for path in files if path.stat().st_size >= source.least_bytes]
    if not files:
        raise SourceError(f"{source.name}: no pictures in {folder} that match {source.match!r}")
    # A fixed choice that takes some of every folder.
    files = sorted(files, key=lambda path: sha256(path.name.encode()).digest())[: source.most]
    parts = _parts(source, folder, files, table=table, split=split)
    for path in sorted(files):
        if (part := parts.get(path)) in PARTS:  # a split leaves some out
            yield Picture(source.name, source.kind, part, path)


def _parts(source: Source, folder: Path, files: list[Path], *, table: Path, split: Path) -> dict[Path, str]:
    if source.part:
        return dict.fromkeys(files, source.part)
    if source.split:
        listed = msgspec.json.decode(split.read_bytes())["files"]
        names = {path: path.relative_to(folder).as_posix() for path in files}
        return {path: listed[name]["split"] for path, name in names.items() if name in listed}
    if source.table:
        with table.open(encoding="utf-8", newline="") as file:
            groups = {row["image_id"]: row["source"] for row in csv.DictReader(file)}
        return {path: part_of_group(groups[path.name]) for path in files}
    found = {path: re.search(source.group, path.name) for path in files}
    return {path: part_of_group(match[1] if match else path.name) for path, match in found.items()}
