"""Reads back what a page says (tables, texts, links, ids of HTML and of Markdown) without the code that wrote it."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from markdown_it import MarkdownIt

VOID = {"meta", "link", "img", "br", "hr", "input", "path", "use"}


@dataclass
class Table:
    """A table: its caption, its lowest row of headings, and its rows, each led by its name."""

    caption: str = ""
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    @property
    def by_name(self) -> dict[str, dict[str, str]]:
        """Row name -> heading -> cell."""
        return {row[0]: dict(zip(self.header, row[1:], strict=True)) for row in self.rows}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: list[Table] = []
        self._open: list[str] = []
        self._cell: list[str] | None = None
        self._row: list[tuple[str, str]] = []
        self._last_paragraph = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append(Table(caption=self._last_paragraph))
        elif tag == "tr":
            self._row = []
        elif tag in ("td", "th", "caption", "p"):
            self._cell = []
        elif tag == "br" and self._cell is not None:
            self._cell.append(" ")

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if tag in ("td", "th", "caption", "p") and self._cell is not None:
            said = " ".join("".join(self._cell).split())
            self._cell = None
            if tag == "p":
                self._last_paragraph = said
            elif tag == "caption":
                self.tables[-1].caption = said
            else:
                self._row.append((tag, said))
        elif tag == "tr" and self._row:
            if "thead" in self._open:
                self.tables[-1].header = [said for kind, said in self._row if kind == "th"]
            elif len(self._row) > 1:
                self.tables[-1].rows.append([said for _, said in self._row])

    def handle_data(self, data):
        if "style" not in self._open:
            self.text.append(data)
            if self._cell is not None:
                self._cell.append(data)


class Page:
    """An HTML text, read."""

    def __init__(self, text: str) -> None:
        reader = _Reader()
        reader.feed(text)
        reader.close()
        self.tags = reader.tags
        self.tables = reader.tables
        self.text = " ".join("".join(reader.text).split())

    @property
    def ids(self) -> list[str]:
        """Every id, as often as it comes."""
        return [str(found["id"]) for _, found in self.tags if found.get("id")]

    @property
    def links(self) -> list[str]:
        """Every target of a link, in order."""
        return [str(found["href"]) for tag, found in self.tags if tag == "a" and found.get("href")]

    def table(self, caption: str) -> Table:
        """Return the table whose caption begins so."""
        return next(one for one in self.tables if one.caption.startswith(caption))


def from_markdown(text: str) -> Page:
    """Read Markdown as a renderer shows it that lets raw HTML through."""
    page = Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    for table in page.tables:
        # A Markdown table has no upper row of headings: "Images: right" is "right" below "Images".
        table.header = [heading.rpartition(": ")[2] for heading in table.header[1:]]
        # ... and a heading between rows is a row without cells.
        table.rows = [row for row in table.rows if any(row[1:])]
    return page


def sources(text: str) -> list[str]:
    """Return every address that a page would fetch: of images, styles, scripts, fonts and frames."""
    found = re.findall(r"""(?:src|srcset|data|poster)\s*=\s*["']([^"']+)""", text)
    found += re.findall(r"""url\(\s*["']?([^"')]+)""", text) + re.findall(r"@import[^;]+", text)
    found += re.findall(r"""<(?:link|use|image)[^>]+href\s*=\s*["']([^"']+)""", text)
    return [html.unescape(one) for one in found]
