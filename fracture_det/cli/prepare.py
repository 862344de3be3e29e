"""Turn radiographs with LabelImg, YOLO or COCO annotations into checked, grouped COCO splits.

    fracture-det prepare --images datasets/fracatlas/images \\
        --annotations datasets/fracatlas/annotations --metadata datasets/fracatlas/dataset.csv \\
        --anatomy-columns hand leg hip shoulder mixed --class-map fractured=fracture --out output/fracatlas

Writes train.json, val.json and test.json (COCO, with `anatomy` and `group` on each image), split.json (what was done,
the SHA-256 of every file), problems.csv (one row per finding) and report.md with figures. Nothing is skipped, cut or
corrected unless a flag asks for it; what cannot be used is left out and listed. Exit status: 0 done; 1 `--strict`, and
a file or an image is left out; 2 a wrong request, nothing usable, an empty split (with `--strict` too), or `--strict`
and an annotation that cannot be read. With 1 and 2 no split is written; problems.csv is, as soon as the files have been
read, and what was found is printed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from tqdm import tqdm

from fracture_det.cli.deprecated import Renamed
from fracture_det.data.checks import REPAIRS, AnnotationRules
from fracture_det.data.output_files import PROBLEMS_FILE
from fracture_det.data.pairing import FORMATS, FileCounts
from fracture_det.data.prepare import PreparedDataset, RefusedError, prepare
from fracture_det.data.prepare_options import AUTO, DEFAULT_NEIGHBOURS, DICOM, PrepareOptions
from fracture_det.data.records import Problem
from fracture_det.data.splits import SPLITS
from fracture_det.structures.wording import counted


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; its help says what each choice means."""
    parser = argparse.ArgumentParser(
        prog="fracture-det prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("what to read").add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="folder of images, searched with its subfolders")
    add("--annotations", type=Path, required=True, metavar="DIR", help="folder of .xml or .txt files; coco: the .json")
    add(
        "--format",
        choices=(AUTO, DICOM, *FORMATS),
        default=AUTO,
        help="default: known from what the annotations hold; dicom: so too, and every image must be a DICOM file",
    )
    add("--yolo-names", nargs="+", metavar="NAME", help="class names by id, where there is no classes.txt")
    add("--metadata", type=Path, metavar="CSV", help="table with a column file_name or image_id, one row per image")
    add(
        "--anatomy-columns",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="one text column, or a 0/1 column per body part",
    )
    add("--site-columns", dest="anatomy_columns", action=Renamed, new="--anatomy-columns", nargs="+")
    add("--group-column", metavar="COLUMN", help="patient: images of one value are never divided between splits")
    add = parser.add_argument_group("how to understand it").add_argument
    add("--classes", nargs="+", default=["fracture"], metavar="NAME", help="final classes (default: fracture)")
    add("--class-map", nargs="+", default=[], metavar="NAME=CLASS", help=_CLASS_MAP)
    add("--types-from-classes", action="store_true", help=_TYPES_FROM_CLASSES)
    add("--repair", nargs="+", default=[], choices=REPAIRS, metavar="HOW", help=_list_repairs())
    add("--missing-xml-is-healthy", action="store_true", help="images without annotation count as reviewed and healthy")
    add("--strict", action="store_true", help=_STRICT)
    add = parser.add_argument_group("how to divide it").add_argument
    add("--fractions", nargs=3, type=float, metavar=("TRAIN", "VAL", "TEST"), help="default: .8 .1 .1")
    add("--split-from", type=Path, metavar="FILE", help=_SPLIT_FROM)
    add("--neighbours", type=int, default=DEFAULT_NEIGHBOURS, metavar="N", help=_NEIGHBOURS)
    add(
        "--drop-leaks", action="store_true", help="leave out of train (then val) what shares a group with a later split"
    )
    add(
        "--allow-empty-split", action="store_true", help="write the splits even where one that has a share has no image"
    )
    add("--seed", type=int, default=0, help="same seed, same split, on any machine (default: 0)")
    add = parser.add_argument_group("where to write").add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; made when missing")
    add("--workers", type=int, metavar="N", help="processes that read images (default: one per core, at most 8)")
    return parser


_CLASS_MAP = "e.g. angle=fracture line=fracture; with a type of fracture: twisted=fracture:spiral"
_TYPES_FROM_CLASSES = (
    'classes that are types of fracture, such as "spiral" or "Oblique fracture" (configs/fracture_types.yaml), are the '
    "first class, of that type"
)
_STRICT = (
    "when anything is left out (an image, an annotation, a file of a kind that is not read): list all of it, write no "
    "split, exit with 1, or with 2 where an annotation cannot be read, nothing is usable or a split would be empty"
)
_SPLIT_FROM = (
    "a CSV with columns file_name (or image_id) and split (train, val, test or none), a split.json of this tool, or "
    "a data.yaml of Ultralytics, whose folders are the splits. "
    "Images that it does not name are divided by --fractions; without --fractions, among the splits it does not name"
)
_NEIGHBOURS = (
    "without --group-column, images whose numbers fall into one block of N consecutive numbers form a group, since "
    f"neighbours are often views of one patient (default: {DEFAULT_NEIGHBOURS}; 0: no blocks)"
)


def _list_repairs() -> str:
    return "repairs to make, each counted: " + "; ".join(f"{name}: {what}" for name, what in REPAIRS.items())


def main(argv: list[str] | None = None) -> int:
    """Prepare a data set as the command line says; return the exit status."""
    arguments = vars(build_parser().parse_args(argv))
    out: Path = arguments["out"]
    try:
        options = _options(arguments)
        prepared = prepare(
            options, progress=lambda s, n, title: tqdm(s, total=n, desc=title, unit="file", disable=None)
        )
    except (ValueError, OSError) as error:
        if isinstance(error, RefusedError):
            _print_found(error.problems, error.files, options)
        print(f"prepare: {error}", file=sys.stderr)
        _mention_earlier_splits(out)
        return 2
    _print_summary(prepared, options)
    if options.strict and prepared.excluded:
        _mention_earlier_splits(out)
        return 2 if prepared.faults or prepared.refusal else 1
    return 0


def _mention_earlier_splits(out: Path) -> None:
    """Say which splits in the folder are not of this run, so that nobody trains on them by mistake."""
    names = [f"{split}.json" for split in SPLITS if (out / f"{split}.json").is_file()]
    if names:
        print(f"prepare: {', '.join(names)} in {out} are not of this run", file=sys.stderr)


def _options(arguments: dict[str, Any]) -> PrepareOptions:
    pairs = [pair.partition("=") for pair in arguments.pop("class_map")]
    targets: dict[str, str] = {}
    for name, _, target in pairs:
        if targets.setdefault(name, target) != target:
            raise ValueError(f"class map {name}={target}: {name} is {targets[name]} already")
    rules = AnnotationRules(
        tuple(arguments.pop("classes")),
        targets,
        frozenset(arguments.pop("repair")),
        arguments.pop("types_from_classes"),
    )
    given: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in arguments.items() if v is not None
    }
    return PrepareOptions(rules=rules, **cast(dict[str, Any], given))


def _print_found(problems: Sequence[Problem], files: FileCounts, options: PrepareOptions) -> None:
    """Print, where nothing is written, the problems by kind, what became of the files, and where all of it stands."""
    _print_kinds(problems, sys.stderr)
    print(files, file=sys.stderr)
    print(f"see {options.out / PROBLEMS_FILE}", file=sys.stderr)


def _print_kinds(problems: Sequence[Problem], file: TextIO) -> None:
    for (kind, action), n in sorted(Counter((p.kind, p.action) for p in problems).items()):
        print(f"{n:7,}  {kind} ({action})", file=file)


def _print_summary(prepared: PreparedDataset, options: PrepareOptions) -> None:
    if options.strict and prepared.excluded:
        for problem in prepared.excluded:
            print(f"{problem.file}: {problem.kind}: {problem.detail}", file=sys.stderr)
        _print_found(prepared.problems, prepared.files, options)
        leave = counted(len(prepared.excluded), "problem leaves", "problems leave")
        print(f"strict: {leave} something out; no split written", file=sys.stderr)
        if prepared.refusal:
            print(f"prepare: {prepared.refusal}", file=sys.stderr)
        return
    _print_kinds(prepared.problems, sys.stdout)
    for note in prepared.notes:
        print(note)
    print(prepared.files)
    sizes = Counter(prepared.assignment.values())
    print(f"{counted(prepared.n_images, 'image')} found; " + ", ".join(f"{sizes[s]:,} {s}" for s in SPLITS))
    print(f"see {options.out / 'report.md'} and {options.out / PROBLEMS_FILE}")
