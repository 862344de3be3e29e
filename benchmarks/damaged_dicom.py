"""What becomes of damaged DICOM files: refused, read as before, or read as something else? And at what cost?

    .venv/bin/python benchmarks/damaged_dicom.py --files 6000

A drawn radiograph in every transfer syntax that can be made here (those of DCMTK included) is damaged at random in
nine ways, and read. `changed` are files that were read and show another picture: of uncompressed pixels nobody can
know. `seconds` and `MB` are the largest of one file, the decoder's process included. A file that raises anything but
the errors of an unreadable image, takes longer than --seconds or more than --megabytes is kept in --keep, and the
exit code is 1. A crash of a decoder ends nothing but its own process; a crash of this one would be seen as one.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from fracture_det.structures.radiograph import DamagedImage, UnreadableImage, read_radiograph
from tests.structures.dicom_damage import DAMAGES, whole_files

FATES = ("files", "damaged", "refused otherwise", "unchanged", "changed")


@dataclass
class Row:
    """What became of the files of one coding."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=6_000, help="how many in all (default: 6,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30.0, help="the longest that one may take (default: 30)")
    parser.add_argument("--megabytes", type=float, default=500.0, help="the most that all may add (default: 500)")
    parser.add_argument("--keep", type=Path, default=Path("output/damaged_dicom"), help="where offenders go")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run and print the table."""
    args = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        files = whole_files(Path(folder), coded=True)
    expected = {name: read_radiograph(data).pixels for name, data in files.items()}
    rows, offenders = {name: Row() for name in files}, 0
    before = _peak_mb()
    kinds = [(coding, damage) for damage in DAMAGES for coding in files]
    for number in tqdm(range(args.files), unit="file", mininterval=5):
        coding, damage = kinds[number % len(kinds)]
        harmed = DAMAGES[damage](bytearray(files[coding]), np.random.default_rng((args.seed, number)))
        begun = time.perf_counter()
        fate = fate_of(harmed, expected[coding])
        seconds = time.perf_counter() - begun
        row = rows[coding]
        row.counts.update(("files", fate))
        row.seconds = max(row.seconds, seconds)
        if fate not in FATES or seconds > args.seconds:
            offenders += 1
            args.keep.mkdir(parents=True, exist_ok=True)
            (args.keep / f"{number}.dcm").write_bytes(harmed)
            print(f"{number}, {coding}, {damage}: {fate}, {seconds:.1f} s", file=sys.stderr)
    added_mb = _peak_mb() - before
    print(f"| coding | {' | '.join(FATES)} | seconds |\n|{' --- |' * (2 + len(FATES))}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{row.counts[fate]:,}' for fate in FATES)} | {row.seconds:.1f} |")
    print(f"\n{offenders} offenders; memory grew by {added_mb:,.0f} MB in this process or a decoder's")
    return 1 if offenders or added_mb > args.megabytes else 0


def fate_of(data: bytes, expected: np.ndarray) -> str:
    """Return one of FATES, or the name of an error that nobody may see."""
    try:
        pixels = read_radiograph(data).pixels
    except DamagedImage:
        return "damaged"
    except UnreadableImage:
        return "refused otherwise"
    except BaseException as error:
        return type(error).__name__
    return "unchanged" if np.array_equal(pixels, expected) else "changed"


def _peak_mb() -> float:
    """Return the most memory that this process, and any of those it started, has held."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1_024


if __name__ == "__main__":
    sys.exit(main())
