"""The node beside a PACS, which `fracture-det pacs` starts; webapp/pacs/command.py has its options."""

from __future__ import annotations

import argparse
import sys

from fracture_det.cli.page import calibrate_shipped, import_page


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser: argparse.ArgumentParser = import_page("pacs.command").build_parser()
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one action; return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    build_parser().parse_args(arguments)  # --help and a wrong option end here, before the environment is touched
    calibrate_shipped(None)
    code: int = import_page("pacs.command").main(arguments)
    return code
