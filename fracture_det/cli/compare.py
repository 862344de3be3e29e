"""Compare detectors on the same images: figures, differences with intervals, McNemar's and DeLong's tests.

    fracture-det compare --data data/test.json --runs output/eval output/other --out output/compare

A run is an output folder of `fracture-det eval`, with its main operating point, or a predictions.jsonl, with its own
operating score (else the paper's .5); --operating-scores gives others, fixed beforehand. The first run is compared with
every other. Writes comparison.json and comparison.md. Exit code 1 when images were left out, 2 when nothing was
compared.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from fracture_det.calibration.operating_points import PAPER_OPERATING_SCORE
from fracture_det.data.coco import read_coco
from fracture_det.data.predictions import Predictions, align, read_predictions
from fracture_det.evaluation.comparison import Comparison, compare
from fracture_det.evaluation.provenance import provenance
from fracture_det.evaluation.report import Report
from fracture_det.evaluation.usable import check_predicted, check_truth
from fracture_det.reporting.comparison_report import comparison_markdown


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FILE", help="truth as COCO JSON")
    add("--runs", type=Path, nargs="+", required=True, metavar="PATH", help="two or more folders or predictions files")
    add("--names", nargs="+", metavar="NAME", help="names of the runs (default: the names of the detectors)")
    add(
        "--operating-scores",
        type=float,
        nargs="+",
        metavar="S",
        help="a threshold 0..1 for each, never chosen on --data",
    )
    add("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    add("--bootstrap", type=int, default=2000, metavar="N", help="resamples; 0 for no intervals (default: 2000)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the comparison")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    for name in ("names", "operating_scores"):
        values = getattr(arguments, name)
        if values and len(values) != len(arguments.runs):
            parser.error(f"--{name.replace('_', '-')}: expected one for each of {len(arguments.runs)} runs")
    if arguments.bootstrap < 0:
        parser.error(f"--bootstrap must be at least 0, got {arguments.bootstrap}")
    try:
        comparison = run(arguments)
    except (ValueError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    print(comparison_markdown(comparison))
    return 1 if comparison.left_out else 0


def run(arguments: argparse.Namespace) -> Comparison:
    """Read the runs, compare, and write both files into the output folder."""
    dataset = read_coco(arguments.data)
    check_truth(dataset, arguments.data)
    runs = [read_run(path) for path in arguments.runs]
    names = arguments.names or unique_names([run.detector for run, _ in runs], arguments.runs)
    if len(set(names)) < len(names):
        raise ValueError(f"--names: expected different names, got {' '.join(names)}")
    scores = arguments.operating_scores or [score for _, score in runs]
    aligned = {name: align(run, dataset) for name, (run, _) in zip(names, runs, strict=True)}
    failures = {image: f"{why} ({name})" for name, one in aligned.items() for image, why in one.failures.items()}
    for name, one in aligned.items():
        check_predicted(dataset, one, Path(f"{arguments.data}, {name}"))
    # Only images that every detector predicted are compared.
    check_predicted(dataset, replace(next(iter(aligned.values())), failures=failures), arguments.data)
    comparison = compare(
        dataset,
        {name: one.detections for name, one in aligned.items()},
        dict(zip(names, scores, strict=True)),
        n_bootstrap=arguments.bootstrap,
        seed=arguments.seed,
        about=provenance(data=arguments.data),
        type_names={name: run.type_names for name, (run, _) in zip(names, runs, strict=True)},
        progress=sys.stderr.isatty(),
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "comparison.json").write_text(comparison.to_json(), encoding="utf-8")
    (arguments.out / "comparison.md").write_text(comparison_markdown(comparison), encoding="utf-8")
    return comparison


def read_run(path: Path) -> tuple[Predictions, float]:
    """Return the predictions of a run and its operating score."""
    if path.is_dir():
        return read_predictions(path / "predictions.jsonl"), Report.load(path).operating_points[0].score
    predictions = read_predictions(path)
    return predictions, PAPER_OPERATING_SCORE if predictions.operating_score is None else predictions.operating_score


def unique_names(detectors: list[str], paths: list[Path]) -> list[str]:
    """Return the detectors' names; where two have the same, with the run's path."""
    twice = {name for name in detectors if detectors.count(name) > 1}
    return [f"{name} ({path})" if name in twice else name for name, path in zip(detectors, paths, strict=True)]
