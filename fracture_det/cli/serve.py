"""Serve the upload page and its API.

    fracture-det serve --host 127.0.0.1 --port 8000 --detector shipped

The shipped detector comes with the calibration that makes its scores probabilities; every other one needs
--calibration for that, as does `python -m webapp` in a checkout. The rest is set by the FRACTURE_* variables of
docs/api.md.
"""

from __future__ import annotations

import sys

from fracture_det.cli.page import calibrate_shipped, import_page


def main(argv: list[str] | None = None) -> int:
    """Serve until stopped; return 1 when the settings or the port cannot be used."""
    arguments = sys.argv[1:] if argv is None else argv
    server = import_page("__main__")
    given = server.build_parser(prog="fracture-det serve", description=__doc__).parse_args(arguments)
    calibrate_shipped(given.detector)
    return server.main(arguments)
