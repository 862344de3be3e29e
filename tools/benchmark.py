"""Measure how fast the detector is on this machine, in every form, beside Detectron2's own predictor and baselines.

    .venv/bin/python tools/benchmark.py --images datasets/fracatlas/images/Fractured --out output/benchmark
    .venv/bin/python tools/benchmark.py --quick --out output/quick

Every candidate runs in a process of its own, one at a time, in rounds: cold start, latency of single radiographs
(median and 95th percentile), radiographs per second, peak memory. Writes benchmark.json, benchmark.md and
benchmark.png; exports are kept in OUT/exports. --quick takes one round of two radiographs, baselines only exported to
OpenVINO in float32, and is meant to end within five minutes on two cores. Without --images those in FRACATLAS_DIR are
taken, else synthetic ones of 500 x 400 px are drawn. Leave the machine alone meanwhile.
A candidate whose package or files are missing is skipped, and named; exit code 1 when one failed, 2 when nothing ran.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fracture_det.baselines.speed.suite import BenchmarkOptions, run_benchmark
from fracture_det.inference.registry import FLOAT

# Former name of an option -> its name now.
RENAMED_OPTIONS = {"--no-rivals": "--no-baselines", "--contender": "--candidate"}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; its exports are used again")
    parser.add_argument("--images", help="file, folder or glob of radiographs")
    parser.add_argument("--detector", type=Path, default=FLOAT, help="fusion file with d2 members (default: shipped)")
    parser.add_argument("--quick", action="store_true", help="one round of two radiographs, without profile")
    parser.add_argument("--rounds", type=int, default=3, help="how often each candidate is measured (default: 3)")
    parser.add_argument("--count", type=int, default=8, help="radiographs per round (default: 8)")
    parser.add_argument("--pruned", metavar="URI", help="pruned detector, of tools/export_model.py")
    parser.add_argument("--no-baselines", action="store_true", help="only this project's detector and Detectron2")
    parser.add_argument(
        "--candidate", action="append", default=[], metavar="NAME=URI", help="one more detector; may be repeated"
    )
    return parser


def rename_options(argv: list[str]) -> list[str]:
    """Return `argv` with RENAMED_OPTIONS under their new names, with a warning for each."""
    renamed = []
    for text in argv:
        name, equals, value = text.partition("=")
        if name in RENAMED_OPTIONS:
            print(f"{name} is now {RENAMED_OPTIONS[name]}; the former name goes with version 1.0", file=sys.stderr)
        renamed.append(RENAMED_OPTIONS.get(name, name) + equals + value)
    return renamed


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    args = build_parser().parse_args(rename_options(sys.argv[1:] if argv is None else argv))
    try:
        options = BenchmarkOptions(
            out=args.out,
            images=args.images,
            detector=args.detector,
            rounds=1 if args.quick else args.rounds,
            count=2 if args.quick else args.count,
            quick=args.quick,
            with_baselines=not args.no_baselines,
            pruned=args.pruned,
            more=tuple(args.candidate),
        )
        result = run_benchmark(options)
    except ValueError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    print((args.out / "benchmark.md").read_text(encoding="utf-8"))
    for name, why in result.failed.items():
        print(f"benchmark: {name}: {why}", file=sys.stderr)
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
