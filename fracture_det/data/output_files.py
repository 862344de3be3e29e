"""The files that `prepare` writes, where its output lies among its input."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

PROBLEMS_FILE = "problems.csv"
PROBLEM_COLUMNS = ["file", "kind", "detail", "action"]
_FIGURES = ("box_sizes.png", "anchor_fit.png", "image_size.png")
OUTPUT_FILES = (
    *("train.json", "val.json", "test.json", "split.json", "report.json", "report.md", PROBLEMS_FILE),
    *_FIGURES,
)


def earlier_output(out: Path, inputs: Iterable[Path]) -> frozenset[Path]:
    """Return the real paths of what an earlier run wrote to `out`, which is neither images nor annotations.

    inputs: files and folders that are read. Raises ValueError where the output would replace one of them, or a file in
    one of them that is not of an earlier run.
    """
    written = [path.resolve() for name in OUTPUT_FILES if (path := out / name).exists()]
    own = _is_output(out)
    for source in inputs:
        real = source.resolve()
        for path in written:
            if path == real or (not own and path.is_relative_to(real)):
                where = "is" if path == real else "lies in"
                raise ValueError(f"--out {out}: would replace {path.name}, which {where} {source}; give another folder")
    return frozenset(written)


def _is_output(folder: Path) -> bool:
    """Return whether a folder holds the problems.csv that every run writes first."""
    try:
        with (folder / PROBLEMS_FILE).open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), None) == PROBLEM_COLUMNS
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
