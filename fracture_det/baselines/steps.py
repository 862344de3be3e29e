"""Long work as steps, each a command that is not run again once it has succeeded."""

from __future__ import annotations

import shlex
from pathlib import Path


def is_done(record: Path, command: list[str]) -> bool:
    """Return whether the file `record` says that this very command has succeeded."""
    return record.is_file() and record.read_text(encoding="utf-8") == shlex.join(command)


def mark_done(record: Path, command: list[str]) -> None:
    """Write that `command` has succeeded."""
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(shlex.join(command), encoding="utf-8")
