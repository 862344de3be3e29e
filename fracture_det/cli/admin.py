"""Users, tokens and the audit log of the page, as `python -m webapp.admin` does in a checkout."""

from __future__ import annotations

from fracture_det.cli.page import import_page


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    return import_page("admin").main(argv, prog="fracture-det admin")
