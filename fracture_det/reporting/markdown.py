"""report.md: the report as Markdown, as GitHub shows it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fracture_det.evaluation.report import Estimate, Report
from fracture_det.reporting.blocks import (
    AnnotatedEstimate,
    Block,
    Cell,
    Code,
    Figure,
    Files,
    Gallery,
    Heading,
    Section,
    SideBySide,
    SignedDifference,
    Table,
    Text,
)
from fracture_det.reporting.figures import figure_path
from fracture_det.reporting.formatting import DASH, RESEARCH_ONLY, format_cell, format_number
from fracture_det.reporting.gallery import sheet_path
from fracture_det.reporting.sections import NO_NOTES, NOTES_TITLE, OVERVIEW, SUMMARY_TITLE, sections
from fracture_det.reporting.summary import summary_text
from fracture_det.structures.markdown_table import markdown_table

# What Markdown, GitHub's mathematics or HTML would interpret.
_MARKUP = re.compile(r"([\\`*\[\]<>|~$]|(?<![^\W_])_|_(?![^\W_]))")


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line."""
    text = _MARKUP.sub(r"\\\1", " ".join(text.split()).replace("&", "&amp;"))
    return text.replace(r"\<", "&lt;").replace(r"\>", "&gt;")


def code(text: str) -> str:
    """Return a text as code, which a table can hold too: with more backticks around it than in it."""
    text = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}".replace("|", "\\|")


def marked(text: str) -> str:
    """Return one of our own texts: code between backticks stays code."""
    return re.sub(r"`([^`]+)`|[^`]+", lambda part: code(part[1]) if part[1] else _escaped_inline(part[0]), text)


def _escaped_inline(text: str) -> str:
    """Return a part of a line: spaces at its ends, which `escaped` drops, separate it from the code beside it."""
    start, end = (" " if edge.isspace() else "" for edge in (text[0], text[-1]))
    return f"{start}{escaped(text)}{end}" if text.strip() else " "


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: Sequence[bool] = ()) -> str:
    """Return a table of escaped cells; the first column and those of words are aligned left, figures right."""
    is_left = [index == 0 or (index < len(words) and words[index]) for index in range(len(header))]
    return markdown_table(header, rows, "".join("l" if left else "r" for left in is_left))


def markdown(report: Report, folder: Path | None = None) -> str:
    """Return report.md; it includes the sheets of the gallery that `folder` has."""
    parts = [
        "# Evaluation of a fracture detector",
        f"*{RESEARCH_ONLY}*",
        f"## {SUMMARY_TITLE}",
        escaped(summary_text(report)),
        _image(OVERVIEW),
        f"## {NOTES_TITLE}",
        "\n".join(f"- {escaped(note)}" for note in report.notes) or NO_NOTES,
    ]
    for section in sections(report):
        parts += list(_section(section, folder))
    return "\n\n".join(parts) + "\n"


def _section(section: Section, folder: Path | None) -> Iterator[str]:
    yield f"## {escaped(section.title)}"
    for block in section.blocks:
        yield from _block(block, folder)


def _block(block: Block, folder: Path | None) -> Iterator[str]:
    if isinstance(block, Gallery):
        yield from _gallery(block, folder)
    elif isinstance(block, SideBySide):
        for member in block.blocks:
            yield from _block(member, folder)
    else:
        yield _WRITERS[type(block)](block)


def _image(figure: Figure) -> str:
    return f"![{escaped(figure.alt)}]({figure_path(figure.name, '.png')})\n\n*{escaped(figure.caption)}*"


def _files(files: Files) -> str:
    return "\n".join(f"- [{name}]({name}): {escaped(description)}" for name, description in files.files)


def _table(block: Table) -> str:
    heads = [f"{column.group}: {column.title}" if column.group else column.title for column in block.columns]
    rows = []
    for heading, members in block.parts:
        if heading:
            rows.append([f"**{escaped(heading)}**", *[""] * len(heads)])
        rows += [[escaped(name) or DASH, *(_cell(cell, block.brief) for cell in cells)] for name, cells in members]
    words = [True, *(column.words for column in block.columns)]
    text = f"**{escaped(block.caption)}**\n\n" + table(["", *map(escaped, heads)], rows, words=words)
    return f"{text}\n\n{marked(block.note)}" if block.note else text


def _cell(cell: Cell, brief: bool) -> str:
    if cell is None:
        return DASH
    if isinstance(cell, Estimate | SignedDifference | AnnotatedEstimate):
        parts, last_line = format_cell(cell, brief)
        return "<br>".join(escaped(line) for line in (parts.lines[0], last_line) if line)
    if isinstance(cell, Code):
        return code(cell.text) if cell.text else DASH
    return escaped(f"{cell:,}" if isinstance(cell, int) else cell)


def _gallery(block: Gallery, folder: Path | None) -> Iterator[str]:
    yield f"**{escaped(block.caption)}**"
    sheet = sheet_path(block.kind)
    if folder is not None and (folder / sheet).is_file():
        yield f"![{escaped(block.caption)}]({sheet})"
    rows = [
        [
            str(item.rank),
            code(item.file_name),
            escaped(item.anatomy or "unknown"),
            DASH if item.score is None else format_number(item.score),
            ", ".join(f"{value:g}" for value in item.box),
        ]
        for item in block.items
    ]
    header = ["Rank", "File", "Body part", "Score", "Box x0, y0, x1, y1, px"]
    yield table(header, rows, words=[False, True, True, False, False])


_WRITERS: dict[type, Callable[[Any], str]] = {
    Table: _table,
    Text: lambda block: marked(block.text),
    Heading: lambda block: f"### {escaped(block.text)}",
    Figure: _image,
    Files: _files,
}
