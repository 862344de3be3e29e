"""How the commands reach the page, which the package itself does not import."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from fracture_det.resources import CHECKOUT, resource


def import_page(module: str = "") -> ModuleType:
    """Import a module of the page, such as `settings`; without one, the page's package.

    By its name as text, because `fracture_det` does not depend on the page: only `serve`, `admin`, `export-feedback`
    and `snapshot` start it. A checkout has it as `webapp`, an installed wheel as `fracture_det_webapp`; never both in
    one process, which would define every class twice.
    """
    if CHECKOUT and str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))  # the folder `webapp` of the checkout itself is never installed
    package = "webapp" if CHECKOUT else "fracture_det_webapp"
    return importlib.import_module(f"{package}.{module}" if module else package)


def calibrate_shipped(detector: str | None) -> None:
    """Let the shipped detector be served with its calibration, unless FRACTURE_CALIBRATION names another.

    detector: the URI that was asked for; None for that of FRACTURE_DETECTOR, else the shipped one.
    """
    if (detector or os.environ.get("FRACTURE_DETECTOR") or "shipped") == "shipped":
        os.environ.setdefault("FRACTURE_CALIBRATION", str(resource("weights/shipped/calibration.json")))
