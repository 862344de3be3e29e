"""Where the figures of a report come from, so that they can be made again."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from fracture_det import __version__
from fracture_det.resources import CHECKOUT

# The packages that figures depend on; those that are not installed took no part.
PACKAGES = ("numpy", "pycocotools", "opencv-python-headless", "pillow", "torch", "detectron2")
SPLIT_FILE = "split.json"


def provenance(*, data: Path, **files: Path | None) -> dict[str, str]:
    """Return what a report states of its origin: names and SHA-256 of its files, commit, versions.

    data: the truth; the split manifest beside it (`split.json`) is named too. files: further files by their role.
    """
    split = data.parent / SPLIT_FILE
    roles = {"data": data, "split": split if split.is_file() else None, **files}
    about: dict[str, str] = {}
    for role, path in roles.items():
        if path is not None:
            about |= {role: path.name, f"{role} SHA-256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return {**about, "fracture_det": __version__, **_commit(), **_versions()}


def _commit() -> dict[str, str]:
    """Return the commit of the checkout that this package runs from; an installed copy has none."""
    if (
        CHECKOUT is None or not (CHECKOUT / ".git").exists()
    ):  # a copy in another repository's environment must not show that one's commit
        return {}
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": found.stdout.strip()}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
