"""Tables beside the images, as spreadsheets save them: CSV of any common delimiter and encoding."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from fracture_det.data.records import Problem

KEY_COLUMNS = ("file_name", "image_id", "filename", "file", "image", "name")
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# Longest first: that of UTF-32 begins like that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What Western European text in Windows-1252 does not have: three letters with accents in a row, or a word of such
# letters alone; a capital with one after a small letter; a symbol between letters (but quotation marks, dashes and
# dots); a control character. Text of another 8-bit encoding soon shows one of these.
_ACCENTED, _LETTER = "\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e", "A-Za-z"
_SMALL, _CAPITAL = "a-z\u00df-\u00f6\u00f8-\u00ff", "\u00c0-\u00d6\u00d8-\u00de\u0152\u0160\u0178\u017d"
_SYMBOL = "[^\\s\\x00-\\x7f\u2018\u2019\u201c\u201d\u2013\u2014\u00b7" + _ACCENTED + "]"
_ANY = f"[{_LETTER}{_ACCENTED}]"
NOT_WESTERN = re.compile(
    f"[{_ACCENTED}]{{3}}|(?<!{_ANY})[{_ACCENTED}]{{2}}(?!{_ANY})|[{_SMALL}][{_CAPITAL}]|{_ANY}{_SYMBOL}{_ANY}|[\x80-\x9f]"
)


class MetadataError(ValueError):
    """A table that cannot be used: no such column, no key column, or not a CSV."""


class Table(NamedTuple):
    """The rows of a table by column, the column that holds the image names, and what was noticed in reading."""

    rows: list[dict[str, str]]
    key: str
    problems: list[Problem]


def read_table(path: str | Path) -> Table:
    """Return the rows of a CSV, without blanks around names of columns and values.

    The delimiter is the one with which a column of KEY_COLUMNS appears (its case and blanks do not matter). The
    encoding is UTF-8, what a byte order mark says, UTF-16 or, where nothing speaks against it, Windows-1252, of which
    Latin-1 is a part. Anything but UTF-8 with commas is reported; so are rows with more fields than columns, which are
    not used. Raises MetadataError for any other encoding, and for a file without such a column.
    """
    path = Path(path)
    text, encoding = _decode(path)
    delimiter, header, key, lines = _split(path, text)
    problems = []
    if encoding not in ("utf-8", "utf-8-sig") or delimiter != ",":
        detail = f"read as {encoding}, separated by {DELIMITERS[delimiter]}"
        problems.append(Problem(path.name, "metadata_dialect", detail))
    rows = []
    for number, fields in lines:
        if any(field.strip() for field in fields[len(header) :]):
            detail = (
                f"line {number} has {len(fields)} fields for {len(header)} columns, so that values may have moved; not "
                f"used. A {delimiter!r} inside a value needs quotes around the value"
            )
            problems.append(Problem(path.name, "metadata_row_too_long", detail))
        else:
            values = [*fields, *[""] * (len(header) - len(fields))]
            rows.append({name: value.strip() for name, value in zip(header, values, strict=False) if name})
    return Table(rows, key, problems)


def find_column(columns: list[str], wanted: str) -> str | None:
    """Return the column called `wanted`; its case and blanks do not matter where one alone is meant."""
    if wanted in columns:
        return wanted
    fitting = [column for column in columns if _plain(column) == _plain(wanted)]
    return fitting[0] if len(fitting) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _decode(path: Path) -> tuple[str, str]:
    """Return the text of the file and its encoding."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MetadataError(f"{path}: cannot be read: {error.strerror or error}") from error
    marked = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    # Half of the bytes of plain text in UTF-16 are zero: the upper ones.
    half = len(data) // 4
    unmarked = "utf-16-le" if data[1::2].count(0) > half else "utf-16-be" if data[::2].count(0) > half else None
    for encoding in filter(None, (marked, unmarked, "utf-8")):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    text = data.decode("latin-1")
    try:
        western = data.decode("cp1252")
    except UnicodeDecodeError:
        western = text
    if doubt := NOT_WESTERN.search(western):
        line = western.count("\n", 0, doubt.start()) + 1
        raise MetadataError(
            f"{path}: line {line} is not UTF-8, and whether it is another encoding such as Windows-1250, Windows-1251 "
            f"or Mac Roman cannot be told: save the table as UTF-8 (in Excel: CSV UTF-8)"
        )
    return western, "latin-1" if western == text else "cp1252"


def _split(path: Path, text: str) -> tuple[str, list[str], str, list[tuple[int, list[str]]]]:
    """Return the delimiter, the names of the columns, the key column, and (line number, fields) of the other lines."""
    given = re.match(r'"?sep=([,;|\t])"?[ \t]*\r?\n', text)  # a first line that Excel reads and writes
    if given:
        text = text[given.end() :]
    headers = {}
    for delimiter in [given[1]] if given else DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            lines = [(reader.line_num + bool(given), fields) for fields in reader if any(map(str.strip, fields))]
        except csv.Error as error:
            raise MetadataError(f"{path}: line {reader.line_num}: {error}") from error
        header = [name.strip() for name in lines[0][1]] if lines else []
        headers[delimiter] = header
        plain = [_plain(name) for name in header]
        key = next((header[plain.index(name)] for name in KEY_COLUMNS if name in plain), None)
        if key is not None:
            twice = sorted(name for name, count in Counter(header).items() if name and count > 1)
            if twice:
                raise MetadataError(f"{path}: several columns are called {', '.join(map(repr, twice))}")
            return delimiter, header, key, lines[1:]
    header = max(headers.values(), key=len)
    raise MetadataError(f"{path}: expected one of the columns {', '.join(KEY_COLUMNS)}, got {', '.join(header)}")
