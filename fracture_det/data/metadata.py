"""The table beside the images: body part, patient and further columns per file."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from fracture_det.data.inventory import nfc
from fracture_det.data.records import Problem
from fracture_det.data.stated_folders import folder_parts
from fracture_det.data.stated_labels import fractured_by_row
from fracture_det.data.stated_types import use_type_column
from fracture_det.data.tables import MetadataError, find_column, read_table

# With a point or a comma: tables with empty cells often hold whole numbers as decimal ones.
_TRUE, _FALSE = ("1", "1.0", "1,0", "true", "yes"), ("0", "0.0", "0,0", "false", "no", "")


@dataclass(frozen=True)
class Metadata:
    """What the table says, per image file name.

    anatomies: body part; absent where unknown. patients: value of the group column, None when no column was named.
    attributes: all other columns; of a column `type`, the names of types of fracture. fractured: which column says that
    the image is fractured; also of rows that are not used because they fit several images, or are a second one.
    """

    anatomies: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] | None = None
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    fractured: dict[str, str] = field(default_factory=dict)


class NameIndex:
    """Finds image files by relative path, by name or by stem; a name that fits several files fits none.

    A written folder must be that of the file, or the file have none: site2/1.png does not find site1/1.png. Names
    compare in Unicode NFC.
    """

    def __init__(self, file_names: Sequence[str]) -> None:
        self._files: dict[str, list[str]] = defaultdict(list)
        for file_name in file_names:
            path = PurePosixPath(nfc(file_name))
            for key in {nfc(file_name), path.name, path.stem}:
                self._files[key].append(file_name)

    def find(self, written: str) -> list[str]:
        """Return the files that `written` may refer to: one if it is unambiguous, else none or several."""
        written = nfc(written.replace("\\", "/"))
        if written in self._files:
            return self._files[written]
        folder = folder_parts(posixpath.dirname(written))[-1:]
        files = self._files.get(PurePosixPath(written).name, [])
        return [file for file in files if set(folder) <= set(own := folder_parts(posixpath.dirname(file))) or not own]


def read_metadata(
    path: str | Path, file_names: Sequence[str], *, anatomy_columns: Sequence[str] = (), group_column: str | None = None
) -> Metadata:
    """Read anatomies, patients and attributes for the image files from a CSV (see `read_table`).

    anatomy_columns: one column of text, or one flag (0 or 1) per anatomy. Of several set flags, a column named `mixed`
    wins; without it the names are joined with `+` and reported. Raises MetadataError for an unknown column.
    """
    rows, key, problems = read_table(path)
    columns = list(rows[0]) if rows else [key]

    def column_of(wanted: str) -> str:
        column = find_column(columns, wanted)
        if column is None:
            raise MetadataError(f"{path}: no column {wanted!r}; it has {', '.join(columns)}")
        return column

    anatomy_columns = [column_of(name) for name in anatomy_columns]
    group_column = column_of(group_column) if group_column else None
    metadata = Metadata(patients={} if group_column else None)
    index = NameIndex(file_names)
    others = [column for column in columns if column not in (key, group_column, *anatomy_columns)]
    for row in rows:
        files = index.find(row[key])
        if said := fractured_by_row(row, others):
            metadata.fractured.update((file, f"{said} in {Path(path).name}") for file in files)
        if not files:
            problems.append(Problem(row[key], "metadata_without_image", f"row of {Path(path).name}"))
        elif len(files) > 1:
            problems.append(Problem(row[key], "metadata_ambiguous", f"fits {', '.join(files[:4])}; row not used"))
        elif files[0] in metadata.attributes:
            problems.append(Problem(files[0], "metadata_twice", f"a second row {row[key]!r}; not used"))
        else:
            _take_row(metadata, files[0], row, (anatomy_columns, group_column, others), problems)
    types, of_types = use_type_column(metadata.attributes, Path(path).name)
    problems += of_types
    for file_name, kind in types.items():
        metadata.fractured.setdefault(file_name, f"column type says {kind} in {Path(path).name}")
    for file_name in file_names:
        if file_name not in metadata.attributes:
            problems.append(Problem(file_name, "metadata_missing", f"no row in {Path(path).name}; anatomy unknown"))
    return replace(metadata, problems=tuple(problems))


def _take_row(
    metadata: Metadata,
    file_name: str,
    row: dict[str, str],
    columns: tuple[Sequence[str], str | None, Sequence[str]],
    problems: list[Problem],
) -> None:
    anatomy_columns, group_column, others = columns
    metadata.attributes[file_name] = {column: row[column] for column in others}
    if group_column:
        if row[group_column]:
            assert metadata.patients is not None
            metadata.patients[file_name] = row[group_column]
        else:
            detail = f"column {group_column} is empty; the image is a group of its own"
            problems.append(Problem(file_name, "group_unknown", detail))
    if anatomy_columns:
        anatomy, remark = _anatomy(row, anatomy_columns)
        if anatomy is not None:
            metadata.anatomies[file_name] = anatomy
        if remark is not None:
            problems.append(Problem(file_name, *remark))


def _anatomy(row: dict[str, str], columns: Sequence[str]) -> tuple[str | None, tuple[str, str] | None]:
    """Return the anatomy, or None, and the kind and detail of a problem with it, or None."""
    if len(columns) == 1 and row[columns[0]].lower() not in _TRUE + _FALSE:
        return row[columns[0]], None
    invalid = [column for column in columns if row[column].lower() not in _TRUE + _FALSE]
    if invalid:
        return None, ("anatomy_unknown", f"column {invalid[0]}: {row[invalid[0]]!r}, expected 0 or 1")
    flags = [column for column in columns if row[column].lower() in _TRUE]
    if not flags:
        return None, ("anatomy_unknown", f"none of {', '.join(columns)} is set")
    if len(flags) == 1:
        return flags[0], None
    if "mixed" in flags:
        return "mixed", None
    return "+".join(flags), ("several_anatomies", f"{', '.join(flags)} are all set")
