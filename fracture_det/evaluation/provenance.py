"""Provenance of a report's figures, so that they can be reproduced."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from fracture_det import __version__
from fracture_det.resources import CHECKOUT

# The packages that figures depend on; those that are not installed took no part.
PACKAGES = ("numpy", "pycocotools", "opencv-python-headless", "pillow", "simplejpeg", "torch", "detectron2")
SPLIT_FILE = "split.json"
# The keys of `about` by which reports are read again; the roles of files have their name and `digest_key`.
DETECTOR, CONFIG, WEIGHTS, COMMIT = "detector", "config", "weights", "commit"
DATA, SPLIT, CALIBRATION = "data", "split", "calibration"


def digest_key(role: str) -> str:
    """Return the key in `about` of the SHA-256 of a file by its role, such as DATA or WEIGHTS."""
    return f"{role} SHA-256"


def provenance(*, data: Path, **files: Path | None) -> dict[str, str]:
    """Return the origin of a report: names and SHA-256 of its files, commit, versions.

    data: the truth; the split manifest beside it (`split.json`) is included. files: further files by their role.
    """
    split = data.parent / SPLIT_FILE
    roles = {DATA: data, SPLIT: split if split.is_file() else None, **files}
    about: dict[str, str] = {}
    for role, path in roles.items():
        if path is not None:
            about |= {role: path.name, digest_key(role): hashlib.sha256(path.read_bytes()).hexdigest()}
    return {**about, **software()}


def software() -> dict[str, str]:
    """Return the version of this package, its commit in a checkout, and the versions that figures depend on."""
    return {"fracture_det": __version__, **_commit(), **_versions()}


def _commit() -> dict[str, str]:
    """Return the commit of the checkout that this package runs from; an installed copy has none."""
    # A copy in another repository's environment must not report that one's commit.
    if CHECKOUT is None or not (CHECKOUT / ".git").exists():
        return {}
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {COMMIT: described.stdout.strip()}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
