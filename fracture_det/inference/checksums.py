"""File integrity: SHA-256, and the SHA256SUMS beside the files."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHECKSUM_FILE = "SHA256SUMS"


class ChecksumError(ValueError):
    """A file is not what SHA256SUMS beside it says; the message names it and both values."""


def checked_sha256(*paths: Path) -> str:
    """Return the SHA-256 of the files of one folder, read one after the other.

    Raises ChecksumError where SHA256SUMS lies beside them and does not agree with each.
    """
    sums = paths[0].with_name(CHECKSUM_FILE)
    recorded = dict(line.split()[::-1] for line in sums.read_text().splitlines() if line) if sums.is_file() else None
    whole = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if recorded is not None and recorded.get(path.name) != digest:
            raise ChecksumError(f"{path}: SHA-256 is {digest}, {CHECKSUM_FILE} says {recorded.get(path.name)}")
        whole.update(content)
    return whole.hexdigest()


def write_checksums(*paths: Path) -> None:
    """Write SHA256SUMS (as of sha256sum) for files of one folder, beside them."""
    sums = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths)
    paths[0].with_name(CHECKSUM_FILE).write_text("".join(sums))
