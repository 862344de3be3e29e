"""Measure how fast the detector is on this machine, in every form, beside Detectron2's own predictor and baselines.

    fracture-det benchmark --images datasets/fracatlas/images/Fractured --out output/benchmark
    fracture-det benchmark --quick --out output/quick

Every candidate runs in a process of its own, one at a time, in rounds: cold start, latency of single radiographs
(median and 95th percentile), radiographs per second, peak memory. Writes benchmark.json, benchmark.md and
benchmark.png; exports are kept in OUT/exports. --quick takes one round of two radiographs, baselines only exported to
OpenVINO in float32, and is meant to end within five minutes on two cores. Without --images those in FRACATLAS_DIR are
taken, else synthetic ones of 500 x 400 px are drawn. Leave the machine otherwise idle.
A candidate whose package or files are missing is skipped, and named; exit code 1 when one failed, 2 when nothing ran.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fracture_det.baselines.speed.suite import BenchmarkOptions, run_benchmark
from fracture_det.cli.deprecated import Renamed
from fracture_det.inference.registry import FLOAT


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; its exports are used again")
    parser.add_argument("--images", help="file, folder or glob of radiographs")
    parser.add_argument("--detector", type=Path, default=FLOAT, help="ensemble.json with d2 members (default: shipped)")
    parser.add_argument("--quick", action="store_true", help="one round of two radiographs, without profile")
    parser.add_argument("--rounds", type=int, default=3, help="how often each candidate is measured (default: 3)")
    parser.add_argument("--count", type=int, default=8, help="radiographs per round (default: 8)")
    parser.add_argument("--pruned", metavar="URI", help="pruned detector, of `fracture-det export`")
    parser.add_argument("--no-baselines", action="store_true", help="only this project's detector and Detectron2")
    parser.add_argument("--no-rivals", dest="no_baselines", action=Renamed, new="--no-baselines", nargs=0)
    parser.add_argument(
        "--candidate", action="append", default=[], metavar="NAME=URI", help="one more detector; may be repeated"
    )
    parser.add_argument("--contender", dest="candidate", action=Renamed, new="--candidate")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    args = build_parser().parse_args(argv)
    if args.detector == FLOAT and not FLOAT.is_file():
        print(
            "benchmark: the float weights that it starts from are in the repository only, not in the wheel:"
            " run it in a checkout, or name others with --detector",
            file=sys.stderr,
        )
        return 2
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
