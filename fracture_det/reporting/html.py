"""report.html: the report as one self-contained page, for the screen and for print on A4."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from fracture_det.evaluation.report import Estimate, GalleryItem, Report
from fracture_det.reporting import formatting
from fracture_det.reporting.blocks import AnnotatedEstimate, Cell, Code, Column, SignedDifference
from fracture_det.reporting.figures import figure_path
from fracture_det.reporting.gallery import crop_path
from fracture_det.reporting.sections import NO_NOTES, NOTES_TITLE, OVERVIEW, SUMMARY_TITLE, sections
from fracture_det.reporting.summary import summary_text

TEMPLATES = Path(__file__).parent / "templates"
# On a phone the two halves of the overview are stacked.
HALVES = ("froc", "roc")


def html(report: Report, folder: Path) -> str:
    """Return report.html, with the figures and the gallery's crops of `folder` embedded."""
    return render_page(
        "report.html",
        folder,
        title=f"Evaluation of {report.about.get('detector', 'a fracture detector')}",
        heading="Evaluation of a fracture detector",
        summary_title=SUMMARY_TITLE,
        summary=summary_text(report),
        notes=report.notes,
        sections=sections(report),
        first_table="operating-points",
        source="report.json",
        content="report gives",
        overview=OVERVIEW,
        halves=HALVES,
    )


def render_page(template: str, folder: Path, **values: Any) -> str:
    """Return a page of page.html, or of a template that extends it, with the figures of `folder` embedded.

    values: title, heading, summary_title, summary, notes, sections, first_table (an id of a section), source (the file
    that the page was made from), content (a noun and its verb, for what that file holds), and what `template` needs.
    """
    environment = _environment()
    return environment.get_template(template).render(
        page=Page(folder),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # nosec
        notes_title=NOTES_TITLE,
        no_notes=NO_NOTES,
        research_only=formatting.RESEARCH_ONLY,
        **values,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["words"] = lambda column: column.words
    environment.filters |= {
        "marked": marked,
        "breakable": breakable,
        "kind": lambda block: type(block).__name__.lower(),
        "cell": _cell,
    }
    environment.globals |= {"format_number": formatting.format_number, "spans": _spans}
    return environment


def marked(text: str) -> Markup:
    """Return one of our own texts: code between backticks stays code, all else is escaped."""
    parts = re.split(r"`([^`]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


def breakable(path: str) -> Markup:
    """Return a path with line-break opportunities after its folders."""
    return Markup("/<wbr>").join(path.split("/"))


@dataclass(frozen=True)
class Page:
    """The files of the report's folder that the page embeds."""

    folder: Path

    def svg(self, name: str, alt: str, twin: str = "") -> Markup:
        """Return a figure as SVG, named `alt`. twin: prefix of its ids where a page has it twice."""
        text = (self.folder / figure_path(name, ".svg")).read_text(encoding="utf-8")
        text = re.sub(r"^\s*<\?xml.*?\?>|<!DOCTYPE.*?>", "", text, flags=re.DOTALL).strip()
        text = re.sub(r'aria-label="[^"]*"', lambda _: f'aria-label="{escape(alt)}"', text, count=1)
        # The drawn width, so that text has one size in all figures whatever the width of the page.
        text = re.sub(r'<svg\b([^>]*?\bwidth="([\d.]+pt)")', r'<svg style="--drawn: \2"\1', text, count=1)
        # Written by our own figures, which escape their texts.
        return Markup(re.sub(r'(\bid="|#)(?=[0-9a-f]{8}-)', rf"\g<1>{twin}", text) if twin else text)  # nosec

    def crop(self, item: GalleryItem) -> str | None:
        """Return a crop of the gallery as a data URI, or None where there is none."""
        path = self.folder / crop_path(item)
        if not path.is_file():
            return None
        return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode("ascii")

    def has_crops(self, items: Sequence[GalleryItem]) -> bool:
        """Return whether any of the items has a crop."""
        return any((self.folder / crop_path(item)).is_file() for item in items)


def _spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return the headings above the columns, each with its number of columns; none when no column has one."""
    if not any(column.group for column in columns):
        return []
    return [(group, len(list(members))) for group, members in groupby(columns, key=lambda column: column.group)]


def _cell(cell: Cell, brief: bool) -> dict[str, Any]:
    """Return a cell for the template: its kind, and its text or its parts."""
    if isinstance(cell, Estimate | SignedDifference | AnnotatedEstimate):
        parts, last = formatting.format_cell(cell, brief)
        return {"kind": "figure" if parts.defined else "undefined", "parts": parts, "last": last}
    if isinstance(cell, Code):
        return {"kind": "code", "text": cell.text}
    if cell is None:
        return {"kind": "none", "text": formatting.DASH}
    return {"kind": "text", "text": f"{cell:,}" if isinstance(cell, int) else cell}
