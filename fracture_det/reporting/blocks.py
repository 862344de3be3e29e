"""The content blocks of a report: the same for HTML and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fracture_det.evaluation.report import Estimate, GalleryItem


@dataclass(frozen=True)
class SignedDifference:
    """A difference, formatted with its sign."""

    figure: Estimate


@dataclass(frozen=True)
class AnnotatedEstimate:
    """A figure with a remark beneath it, such as the setting that it was measured at."""

    figure: Estimate
    remark: str


@dataclass(frozen=True)
class Code:
    """A name, a hash or a path: verbatim, may break anywhere."""

    text: str


# None: the column does not apply to the row.
Cell: TypeAlias = "Estimate | AnnotatedEstimate | SignedDifference | Code | str | int | None"
Row: TypeAlias = "tuple[str, Sequence[Cell]]"


@dataclass(frozen=True)
class Column:
    """A column; neighbours of one `group` share a heading above. words: it holds text, aligned to the left."""

    title: str
    group: str = ""
    words: bool = False


@dataclass(frozen=True)
class Table:
    """Rows, each with its name first, in parts with their own heading ("" for none).

    brief: many columns of figures, each in three short lines without Wilson's interval.
    """

    caption: str
    columns: Sequence[Column]
    parts: Sequence[tuple[str, Sequence[Row]]]
    note: str = ""
    brief: bool = False

    @property
    def n_rows(self) -> int:
        """Number of rows, headings of parts aside."""
        return sum(len(rows) for _, rows in self.parts)

    @property
    def many(self) -> bool:
        """Whether its columns are too many for a portrait page with each interval beside its figure."""
        rows = [cells for _, members in self.parts for _, cells in members]
        return any(sum(isinstance(cell, Estimate | AnnotatedEstimate) for cell in cells) > 4 for cells in rows)


@dataclass(frozen=True)
class Text:
    """A paragraph; text between backticks is code."""

    text: str


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Figure:
    """One of the report's figures, by its file name without suffix; `alt` is its text alternative."""

    name: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Gallery:
    """Crops of one kind of example, in order of rank."""

    kind: str
    caption: str
    items: Sequence[GalleryItem]


@dataclass(frozen=True)
class Files:
    """Files beside the report: (path, description)."""

    files: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class SideBySide:
    """Small blocks side by side where there is room."""

    blocks: Sequence[Table | Figure]


Block: TypeAlias = "Table | Text | Heading | Figure | Gallery | Files | SideBySide"


@dataclass(frozen=True)
class Section:
    """One section of a page; `id` is the anchor of links to it."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
