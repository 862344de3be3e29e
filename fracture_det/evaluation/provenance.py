"""Where the figures of a report come from, so that they can be made again."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fracture_det import __version__


def provenance(**files: Path) -> dict[str, str]:
    """Return name and SHA-256 of each file, and this package's version, for the `about` of a report."""
    about = {"fracture_det": __version__}
    for role, path in files.items():
        about[role] = path.name
        about[f"{role} SHA-256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return about
