"""How the commands reach the page, which the package itself does not import."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from fracture_det.resources import CHECKOUT


def import_page(module: str = "") -> ModuleType:
    """Import a module of the page, such as `settings`; without one, the page's package.

    By its name as text, because `fracture_det` does not depend on the page: only `serve`, `admin` and
    `export-feedback` start it. A checkout has it as `webapp`, an installed wheel as `fracture_det_webapp`; never both
    in one process, which would define every class twice.
    """
    if CHECKOUT and str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))  # the folder `webapp` of the checkout itself is never installed
    package = "webapp" if CHECKOUT else "fracture_det_webapp"
    return importlib.import_module(f"{package}.{module}" if module else package)
