"""What a page about an evaluation is made of, whether it is written as HTML or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fracture_det.evaluation.report import Estimate, GalleryItem


@dataclass(frozen=True)
class Delta:
    """A difference, written with its sign."""

    figure: Estimate


@dataclass(frozen=True)
class Remark:
    """A figure with words beneath it, such as the setting it was measured at."""

    figure: Estimate
    words: str


@dataclass(frozen=True)
class Code:
    """A name, a hash or a path: shown as it is, broken anywhere."""

    text: str


# None is a cell that says nothing, because the column does not apply to the row.
Cell: TypeAlias = "Estimate | Remark | Delta | Code | str | int | None"
Row: TypeAlias = "tuple[str, Sequence[Cell]]"


@dataclass(frozen=True)
class Column:
    """A column; neighbours of one `group` share a heading above. words: it holds text, which is set to the left."""

    title: str
    group: str = ""
    words: bool = False


@dataclass(frozen=True)
class Table:
    """Rows, each led by its name, in parts with a heading of their own ("" for none).

    brief: many columns of figures, each set in three short lines without Wilson's interval.
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
        """Whether its figures are too many to stand beside their intervals on an upright page."""
        rows = [cells for _, members in self.parts for _, cells in members]
        return any(sum(isinstance(cell, Estimate | Remark) for cell in cells) > 4 for cells in rows)


@dataclass(frozen=True)
class Text:
    """A paragraph; what stands between backticks is set as code."""

    text: str


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Drawing:
    """One of the report's figures, by its name without suffix; `alt` says what it shows to who cannot see it."""

    name: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Gallery:
    """Crops of one kind, surest or largest first."""

    kind: str
    caption: str
    items: Sequence[GalleryItem]


@dataclass(frozen=True)
class Files:
    """Files beside the report: (path, what it is)."""

    files: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Beside:
    """Small blocks that stand side by side where there is room."""

    blocks: Sequence[Table | Drawing]


Block: TypeAlias = "Table | Text | Heading | Drawing | Gallery | Files | Beside"


@dataclass(frozen=True)
class Section:
    """One part of a page; `id` is what links to it name."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
