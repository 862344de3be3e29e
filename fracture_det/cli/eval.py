"""Evaluate a detector, or a file of predictions, on a data set with truth, and write a report fit for publication.

    fracture-det eval --detector shipped --data data/test.json --val data/val.json --images data/images \\
        --out output/eval
    fracture-det eval --predictions output/eval/predictions.jsonl --data data/test.json --out output/again

Writes report.html, report.md, report.json, per_anatomy.csv, strata.csv, matches.csv, figures, galleries, a model
card, the CLAIM and TRIPOD+AI checklists; docs/evaluation.md explains each figure. Thresholds and calibration are
fitted on --val, kept in calibration.json, and applied to --data. Exit code 1 when an image could not be predicted
(the report names it), 2 when nothing was evaluated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fracture_det.calibration.score_maps import DEFAULT_METHOD, METHODS
from fracture_det.calibration.type_threshold import DEFAULT_ACCURACY
from fracture_det.evaluation.estimates import PREVALENCES
from fracture_det.evaluation.pipeline import EvaluationOptions, run_evaluation
from fracture_det.reporting.summary import summary_text
from fracture_det.reporting.writer import write_report_with_gallery


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("detector").add_mutually_exclusive_group(required=True).add_argument
    add("--detector", metavar="URI", help="shipped, d2:FOLDER_OR_FILE or ensemble:FOLDER; needs --images")
    add("--predictions", type=Path, metavar="FILE", help="predictions.jsonl of --data (and --val); no model is needed")
    add = parser.add_argument_group("data").add_argument
    add("--data", type=Path, required=True, metavar="FILE", help="truth of the test images as COCO JSON")
    add("--images", type=Path, metavar="DIR", help="folder that file names start from; without it, no galleries")
    add("--batch-size", type=int, default=1, metavar="N", help="images per batch (default: 1)")
    group = parser.add_argument_group("thresholds and calibration, never fitted on --data")
    add = group.add_mutually_exclusive_group().add_argument
    add("--val", type=Path, metavar="FILE", help="truth of validation images as COCO JSON: fit both on them")
    add("--calibration", type=Path, metavar="FILE", help="calibration.json from an earlier run with --val")
    add = group.add_argument
    add("--val-predictions", type=Path, metavar="FILE", help="predictions of --val, where --predictions lacks them")
    add("--calibration-method", choices=METHODS, default=DEFAULT_METHOD, help="(default: %(default)s)")
    add("--fp-target", type=float, default=1.0, metavar="N", help="false positives per image to allow (default: 1)")
    exclusive = group.add_mutually_exclusive_group()
    exclusive.add_argument("--type-accuracy", type=float, metavar="A", help=_TYPE_ACCURACY)
    exclusive.add_argument("--type-coverage", type=float, metavar="C", help="or: as many of the images have an answer")
    add(
        "--operating-score",
        type=float,
        metavar="S",
        help="a threshold 0..1 chosen on other data; the main operating point of the report",
    )
    add = parser.add_argument_group("analysis").add_argument
    add("--prevalence", type=float, nargs="+", default=list(PREVALENCES), metavar="P", help=_PREVALENCE)
    add(
        "--robustness",
        action="store_true",
        help="also evaluate under noise, blur, JPEG, rotation ...: 40 more passes (hours)",
    )
    add("--robustness-images", type=int, metavar="N", help="measure robustness on N images, drawn by group")
    add("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    add("--bootstrap", type=int, default=2000, metavar="N", help="resamples; 0 for no intervals (default: 2000)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the report")
    return parser


_TYPE_ACCURACY = (
    f"share of answers that must be right; gives the confidence from which a type is told (default: {DEFAULT_ACCURACY})"
)
_PREVALENCE = "shares of fractured images at which to report PPV and NPV (default: .05 .2 .5)"


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.detector and arguments.images is None:
        parser.error("--detector needs --images")
    if arguments.robustness and not arguments.detector:
        parser.error("--robustness needs --detector: it predicts perturbed images")
    if arguments.val_predictions and not arguments.val:
        parser.error("--val-predictions needs --val")
    if arguments.bootstrap < 0 or not arguments.fp_target > 0:
        parser.error("--bootstrap must be at least 0, and --fp-target above 0")
    if not 0 <= (arguments.operating_score or 0) <= 1 or not all(0 < share < 1 for share in arguments.prevalence):
        parser.error("--operating-score must be 0..1, and each --prevalence above 0 and below 1")
    for option in ("type_accuracy", "type_coverage"):
        value = getattr(arguments, option)
        if value is not None and (not 0 < value <= 1 or not arguments.val):
            parser.error(f"--{option.replace('_', '-')} needs --val, and must be above 0, up to 1; got {value}")
    try:
        report = run_evaluation(EvaluationOptions(**vars(arguments)), progress=sys.stderr.isatty())
        report = write_report_with_gallery(report, arguments.out, data=arguments.data, images_dir=arguments.images)
    except (ValueError, OSError) as error:
        print(f"eval: {error}", file=sys.stderr)
        return 2
    print(summary_text(report))
    print(f"\nReport: {arguments.out / 'report.html'}")
    return 1 if report.failures else 0
