"""Options under their former names, which will be removed in version 1.0."""

from __future__ import annotations

import argparse
import sys
from typing import Any


class Renamed(argparse.Action):
    """An option under its former name: it works, and says what its name is now.

    A flag has nargs=0. Where the destination's default is a list and the option takes one value, values are appended.
    """

    def __init__(self, option_strings: list[str], dest: str, *, new: str, **options: Any) -> None:
        self.new = new
        super().__init__(option_strings, dest, **{"help": argparse.SUPPRESS, **options})

    def __call__(
        self, _parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        print(f"{option} is now {self.new}; the former name will be removed in version 1.0", file=sys.stderr)
        if self.nargs == 0:
            values = True
        elif self.nargs is None and isinstance(before := getattr(namespace, self.dest, None), list):
            values = [*before, values]
        setattr(namespace, self.dest, values)
