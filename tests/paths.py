"""Where the repository lies, and the real radiographs beside it."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
QUICK_CONFIG = ROOT / "configs" / "quick" / "faster_rcnn_R_18_FPN_cpu.yaml"
# datasets/README.md says how to get them.
FRACATLAS = Path(os.environ.get("FRACATLAS_DIR", ROOT.parent / "shared" / "fracatlas"))
SCIENCE2022 = Path(os.environ.get("SCIENCE2022_DIR", ROOT.parent / "shared" / "science2022"))


def present(path: Path) -> Path:
    """Return `path`, a file or folder of the real radiographs; skip the test where it is not there."""
    if not path.exists():
        pytest.skip(f"no {path}; set FRACATLAS_DIR and SCIENCE2022_DIR (datasets/README.md)")
    return path
