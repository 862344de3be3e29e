"""Pictures of fractures whose type a table states, in groups that share a source or are copies of one another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fracture_det.data.duplicates import near_duplicates
from fracture_det.data.grouping import group_files
from fracture_det.data.image_info import ImageInfo, read_image_infos
from fracture_det.data.metadata import read_metadata
from fracture_det.data.records import TYPE_ATTRIBUTE, Problem
from fracture_det.data.stated_types import UNKNOWN_TYPE, known_type
from fracture_det.data.tables import MetadataError

MIRRORED = "mirrored:"


@dataclass(frozen=True)
class TypedPicture:
    """A picture that shows a fracture. type: of configs/fracture_types.yaml. group: of what belongs together."""

    file_name: str
    type: str
    group: str


def read_typed_pictures(
    images: str | Path, table: str | Path, *, group_column: str | None = None, workers: int = 1
) -> tuple[list[TypedPicture], list[Problem]]:
    """Return the pictures whose type a table's column `type` states, by name, and what is wrong with others.

    group_column: of the table; pictures with one value share a group. Near copies, mirrored ones too, share one anyway.
    Raises MetadataError for a table that cannot be used, or that states no type of any picture.
    """
    root = Path(images)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    metadata = read_metadata(table, names, group_column=group_column)
    listed = [name for name in names if name in metadata.attributes]
    infos = read_image_infos(root, listed, workers=workers)
    problems = [problem for problem in metadata.problems if problem.kind != "metadata_missing"]
    problems += [Problem(info.file_name, "unreadable_image", info.error) for info in infos if info.error]
    types = {name: known_type(metadata.attributes[name].get(TYPE_ATTRIBUTE, "")) for name in listed}
    problems += [
        Problem(name, UNKNOWN_TYPE, "the table states no type of it")
        for name in listed
        if types[name] is None and not any(problem.file == name for problem in problems)
    ]
    usable = [info for info in infos if not info.error and types[info.file_name]]
    if not usable:
        raise MetadataError(
            f"{table}: states the type of no picture in {root} (a column `type`, and one of file names)"
        )
    groups = group_files([info.file_name for info in usable], patients=metadata.patients, copies=_copies(usable))
    return [TypedPicture(name, kind, groups[name]) for name in groups if (kind := types[name]) is not None], problems


def _copies(infos: list[ImageInfo]) -> list[tuple[str, str]]:
    """Return the pairs of files that show one picture, also where one is mirrored."""
    mirrored = [
        replace(info, file_name=MIRRORED + info.file_name, thumbnail=np.ascontiguousarray(info.thumbnail[:, ::-1]))
        for info in infos
        if info.thumbnail is not None
    ]
    pairs = near_duplicates([*infos, *mirrored])
    return [(first.removeprefix(MIRRORED), second.removeprefix(MIRRORED)) for first, second, _ in pairs]
