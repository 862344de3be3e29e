"""Fit a classifier of types of fracture on pictures whose type a table states, and measure it in five folds.

    fracture-det fit-types --images ../bonebreak/images --types ../bonebreak/types.csv --group-column source \\
        --out output/types

The table has a column of file names and a column `type` (names or synonyms of configs/fracture_types.yaml). Pictures of
one group (--group-column), and near copies, mirrored ones too, are in one fold. What is measured is said of pictures
whose groups neither the fit, nor its penalty, nor its temperature has seen; what is written is then fitted on all.

Writes classifier.json, model.xml, model.bin and SHA256SUMS, which `types` in an ensemble.json names, and report.md with
its figures. Pictures that cannot be read, or of unknown type, are listed and left out. Exit code 2 when nothing can be
fitted.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.calibration.type_threshold import ACCURACY, DEFAULT_ACCURACY, choose_type_threshold
from fracture_det.data.tables import MetadataError
from fracture_det.data.typed_pictures import TypedPicture, read_typed_pictures
from fracture_det.structures.fracture_types import fracture_types
from fracture_det.structures.markdown_table import markdown_table

# Fewer pictures of a type cannot be in every fold's fit and test.
LEAST_GROUPS = 10


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det fit-types", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="pictures of one fracture each")
    add("--types", type=Path, required=True, metavar="FILE", help="CSV table of file names and types")
    add("--group-column", metavar="NAME", help="column of the table: patient, study or source")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the classifier and its report")
    add("--sizes", type=int, nargs="+", default=[224, 480], metavar="PX", help="multiples of 32 (default: 224 480)")
    add("--min-score", type=float, default=0.24, help="raw score of a box from which types are told (default: .24)")
    add("--accuracy", type=float, default=DEFAULT_ACCURACY, help="of the types that are named (default: %(default)s)")
    add("--workers", type=int, default=1, metavar="N", help="processes that read pictures (default: 1)")
    add("--seed", type=int, default=0, help="of the folds and intervals (default: 0)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    args = build_parser().parse_args(argv)
    try:
        _check(args)
        pictures, problems = read_typed_pictures(
            args.images, args.types, group_column=args.group_column, workers=args.workers
        )
        for problem in problems:
            print(f"{problem.file}: {problem.kind}: {problem.detail}", file=sys.stderr)
        return _fit(_common_types(pictures), args)
    except (MetadataError, OSError) as error:
        print(f"fit-types: {error}", file=sys.stderr)
        return 2


def _check(args: argparse.Namespace) -> None:
    """Raise MetadataError for an option that cannot be used, before anything takes long."""
    bad = [size for size in args.sizes if size < 64 or size % 32]
    if bad:
        raise MetadataError(f"--sizes: expected multiples of 32 px from 64 on, got {bad[0]}")
    for name, value in (("accuracy", args.accuracy), ("min-score", args.min_score)):
        if not 0 < value <= 1:  # NaN is neither
            raise MetadataError(f"--{name}: expected a number above 0, up to 1, got {value}")
    if not 0 <= args.seed < 2**31:
        raise MetadataError(f"--seed: expected 0 to {2**31 - 1}, got {args.seed}")
    if not args.images.is_dir():
        raise MetadataError(f"--images {args.images}: no such folder")
    if args.out.exists() and not args.out.is_dir():
        raise MetadataError(f"--out {args.out}: is a file; name a folder")


def _common_types(pictures: list[TypedPicture]) -> list[TypedPicture]:
    """Return the pictures of types that have enough groups; the others are named. Raises MetadataError."""
    groups = Counter(kind for kind, _ in {(picture.type, picture.group) for picture in pictures})
    few = {kind: count for kind, count in groups.items() if count < LEAST_GROUPS}
    for name, count in few.items():
        print(f"type {name}: {count} groups of pictures, fewer than {LEAST_GROUPS}; left out", file=sys.stderr)
    if len(groups) - len(few) < 2:
        raise MetadataError(f"at least two types with {LEAST_GROUPS} groups of pictures each are needed")
    return [picture for picture in pictures if picture.type not in few]


def _fit(pictures: list[TypedPicture], args: argparse.Namespace) -> int:
    from fracture_det.export.type_classifier import ClassifierExportError, export_type_classifier
    from fracture_det.inference.type_classifier import TypeClassifierConfig
    from fracture_det.modeling.type_network import TypeFeatures, TypeNetwork
    from fracture_det.training.type_classifier import answer_in_folds, choose_penalty, fit_layer

    backbone = TypeFeatures()
    names = [name for name in fracture_types().names if name in {picture.type for picture in pictures}]
    features = _features(backbone, pictures, args)
    truth = np.array([names.index(picture.type) for picture in pictures])
    groups = [picture.group for picture in pictures]
    folded = answer_in_folds(features, truth, groups, seed=args.seed)
    confidence, right = folded.probability.max(axis=1), folded.probability.argmax(axis=1) == truth
    threshold = choose_type_threshold(confidence, right, len(truth), rule=ACCURACY, target=args.accuracy)
    named = _named_in_folds(confidence, right, folded.fold, args.accuracy)
    group = np.unique(groups, return_inverse=True)[1]
    penalty, temperature = choose_penalty(features, truth, group, seed=args.seed)
    layer = fit_layer(features, truth, penalty).cooled(temperature)
    config = TypeClassifierConfig(
        type_names=tuple(names),
        sizes=tuple(args.sizes),
        min_score=args.min_score,
        fitted_on=f"{len(pictures)} pictures of {args.images.resolve().parent.name}, {len(set(groups))} groups",
        # Where none is enough, only certainty would name a type.
        confidence=1.0 if threshold.confidence is None else threshold.confidence,
        accuracy=float(right[named].mean()) if threshold.confidence is not None and named.any() else None,
    )
    try:
        export_type_classifier(TypeNetwork(backbone, layer.weight, layer.bias), config, args.out)
    except ClassifierExportError as error:
        print(f"fit-types: {error}", file=sys.stderr)
        return 2
    text = _report(names, truth, folded.probability, group, config, named, args)
    (args.out / "report.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"penalties {folded.penalties}, then {penalty:g}; temperatures {folded.temperatures}, then {temperature:.2f}")
    print(f"written: {args.out}")
    return 0


def _features(backbone: Any, pictures: list[TypedPicture], args: argparse.Namespace) -> NDArray[np.float32]:
    """Return the features (N, 2, D) of each picture as it is and mirrored."""
    import cv2
    from tqdm import tqdm

    from fracture_det.inference.type_classifier import squares_of
    from fracture_det.modeling.type_network import features_of
    from fracture_det.structures.radiograph import read_radiograph

    rows = []
    for picture in tqdm(pictures, desc="features", unit="picture", disable=None):
        pixels = read_radiograph(args.images / picture.file_name).pixels
        grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        squares = squares_of(grey, args.sizes)
        mirrored = [np.ascontiguousarray(square[:, ::-1]) for square in squares]
        rows.append([features_of(backbone, squares), features_of(backbone, mirrored)])
    return np.array(rows, dtype=np.float32)


def _named_in_folds(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], fold: NDArray[np.int64], target: float
) -> NDArray[np.bool_]:
    """Return which answers (N,) reach the confidence that the answers of the other folds give."""
    named = np.zeros(len(right), dtype=bool)
    for index in np.unique(fold):
        others = fold != index
        found = choose_type_threshold(
            confidence[others], right[others], int(others.sum()), rule=ACCURACY, target=target
        )
        if found.confidence is not None:
            named |= (fold == index) & (confidence >= found.confidence)
    return named


def _report(
    names: list[str],
    truth: NDArray[np.int64],
    probability: NDArray[np.float64],
    group: NDArray[np.int64],
    config: Any,
    named: NDArray[np.bool_],
    args: argparse.Namespace,
) -> str:
    """Draw the figures and return the report as Markdown."""
    from fracture_det.evaluation.types import TypeAnswers, evaluate_types
    from fracture_det.reporting.figures import type_figures
    from fracture_det.reporting.formatting import format_estimate
    from fracture_det.reporting.types import FIGURE_TITLES

    indices = np.arange(len(truth))
    answers = TypeAnswers(tuple(names), truth, probability, np.ones(len(truth), bool), indices, group)
    types = evaluate_types(answers, None, n_bootstrap=1000, seed=args.seed)
    for name, draw in type_figures(types).items():
        draw(args.out / f"{name}.png")

    def cells(estimate: Any) -> tuple[str, str]:
        return format_estimate(estimate).value, format_estimate(estimate).interval

    overall = [
        (FIGURE_TITLES[name], *cells(figure.detector), cells(figure.chance)[0])
        for name, figure in types.answered.items()
    ]
    overall.append(("ECE of the answers", *cells(types.reliability.figures["ECE"]), ""))
    by_type = [
        (row.name, str(row.n), *(cells(row.figures[key])[0] for key in ("recall", "precision", "f1")))
        for row in types.rows
    ]
    if config.accuracy is None:
        said = f"No confidence is found from which {args.accuracy:g} of the named types are right, so none is named."
    else:
        said = (
            f"A type is named from a confidence of {config.confidence:.3f} on: chosen so that {args.accuracy:g} of the "
            f"named types are right. With the confidence of the other folds, {int(named.sum())} of {len(named)} "
            f"pictures ({named.mean():.3f}) have a named type, and {config.accuracy:.3f} of them are right."
        )
    return "\n\n".join(
        [
            "# Types of fracture, in five folds",
            f"{config.fitted_on}. Each is answered by a classifier that has seen no picture of its group.",
            markdown_table(("figure", "value", "95 % interval", "chance"), overall),
            markdown_table(("type", "pictures", "recall", "precision", "F1"), by_type),
            said,
            "![Confusion table](types_confusion.png)\n",
        ]
    )
