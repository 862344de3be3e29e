"""Tables in Markdown, as GitHub shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# A pipe ends a cell unless a backslash escapes it.
_BARE_PIPE = re.compile(r"(?<!\\)\|")
_RULES = {"l": ":---", "r": "---:", "-": "---"}


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], alignment: str = "") -> str:
    """Return a Markdown table without a final newline; pipes and line breaks within a cell are escaped.

    alignment: for each column `l` (left), `r` (right) or `-` (the renderer's default, as for any column not listed).
    Raises ValueError for a row of another length than the header.
    """
    rule = [_RULES[letter] for letter in alignment.ljust(len(header), "-")]
    lines = [header, rule, *rows]
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"markdown_table: expected {len(header)} cells, got {len(line)}: {list(line)}")
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return _BARE_PIPE.sub(r"\\|", " ".join(text.splitlines()))
