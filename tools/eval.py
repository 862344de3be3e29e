"""Evaluate a detector, or a file of predictions, on a data set with truth.

    .venv/bin/python tools/eval.py --detector shipped --data data/test.json --images data/images --out output/eval
    .venv/bin/python tools/eval.py --predictions output/eval/predictions.jsonl --data data/test.json --out output/again

Writes report.json, report.md, predictions.jsonl, per_site.csv, pr_curve.png and froc.png; docs/evaluation.md explains
each figure. Exit code 1 when an image could not be predicted (the report says which), 2 when nothing was evaluated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fracture_det.data.coco import read_coco
from fracture_det.evaluation import Report, evaluate_predictions, provenance
from fracture_det.inference.batch import predict_to_file
from fracture_det.inference.detector import open_detector
from fracture_det.predictions import read_predictions, write_predictions


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--detector", metavar="URI", help="shipped, or d2:FOLDER_OR_FILE; needs --images")
    source.add_argument("--predictions", type=Path, metavar="FILE", help="predictions.jsonl; no model is needed")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="truth as COCO JSON")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder that the file names of --data start from")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the report")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images per call of the detector")
    parser.add_argument(
        "--operating-score",
        type=float,
        metavar="S",
        help="score 0..1 from which a box counts as a fracture (default: the detector's own, else the paper's 0.5)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    parser.add_argument("--bootstrap", type=int, default=2000, metavar="N", help="resamples; 0 for no intervals")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.detector and arguments.images is None:
        parser.error("--detector needs --images")
    if not 0 <= (arguments.operating_score or 0) <= 1 or arguments.bootstrap < 0:
        parser.error("--operating-score must be 0..1, and --bootstrap at least 0")
    try:
        report = run(arguments)
    except ValueError as error:
        print(f"eval: {error}", file=sys.stderr)
        return 2
    print((arguments.out / "report.md").read_text(encoding="utf-8").split("## ")[0].strip())
    print(f"\nReport: {arguments.out / 'report.md'}")
    return 1 if report.failures else 0


def run(arguments: argparse.Namespace) -> Report:
    """Predict if asked to, evaluate, and write everything into the output folder."""
    dataset = read_coco(arguments.data)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path, timing = arguments.out / "predictions.jsonl", None
    if arguments.detector:
        files = [(record.file_name, arguments.images / record.file_name) for record in dataset]
        timing = predict_to_file(
            open_detector(arguments.detector), files, path, batch_size=arguments.batch_size
        ).as_timing()
    predictions = read_predictions(arguments.predictions or path)
    if arguments.predictions:
        write_predictions(path, predictions)
    report = evaluate_predictions(
        dataset,
        predictions,
        operating_score=arguments.operating_score,
        n_bootstrap=arguments.bootstrap,
        seed=arguments.seed,
        about=provenance(data=arguments.data, predictions=path),
        timing=timing,
        progress=sys.stderr.isatty(),
    )
    report.save(arguments.out)
    return report


if __name__ == "__main__":
    sys.exit(main())
