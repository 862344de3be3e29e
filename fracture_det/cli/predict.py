"""Find fractures on a radiograph, in a folder with its subfolders, or on the files of a pattern.

    fracture-det predict --input xrays/ --out output/predicted
    fracture-det predict --detector d2:output/run --input 'xrays/**/*.png' --out output/predicted
    fracture-det predict --calibration output/eval/calibration.json --input xrays/ --out output/predicted

Writes overlays/FILE.overlay.jpg in the same folders as the input, predictions.csv (boxes from --score on) and
predictions.jsonl (all boxes of the detector, for `fracture-det eval`). An archive, on several machines:

    fracture-det predict --input xrays/ --out output/predicted --resume --no-overlays --parquet
    fracture-det predict --input xrays/ --out output/predicted --shard 2/5
    fracture-det predict --join --out output/predicted
    fracture-det predict --input xrays/ --out output/predicted --engine ray --workers 4

--resume continues where a killed run stopped. Files that are no images by their names are not read; skipped.csv says
why of each, and the exit code stays 0. A picture that does not look like a radiograph of a limb is not analysed: its
row says `unsuitable` and why, unless --force has it predicted and marked. The column `notes` says `burned_in` of a
DICOM file with writing in its picture, which may name the patient: overlays show it, too. The exit code is 1 when a
file could not be predicted or was not analysed, 2 when nothing was.
Research use only; not a medical device.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fracture_det.inference.predict import ENGINES, PredictOptions, run_predict
from fracture_det.inference.prediction_folder import SKIPPED, TABLE, FolderRun, Shard, join_shards
from fracture_det.inference.prediction_tables import TYPES_COLUMN, write_skipped
from fracture_det.structures.image_files import FoundImages, printable
from fracture_det.structures.wording import counted
from fracture_det.suitability.assess import BURNED_IN, BURNED_IN_UNKNOWN, SEVERAL_FILMS

FIRST_SKIPPED = 10  # so many are printed
# What is said of so many files.
NOTES = {
    BURNED_IN: "with writing burned into the picture, which may name the patient; overlays show it, too",
    BURNED_IN_UNKNOWN: "without a word on burned-in writing, which a secondary capture may have",
    SEVERAL_FILMS: "that may hold several films; boxes are given for the whole picture",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--detector", default="shipped", metavar="URI", help="shipped, d2:FOLDER, ensemble:FOLDER, openvino:FOLDER ...")
    add("--calibration", type=Path, metavar="FILE", help="of `fracture-det eval --val`: scores become probabilities")
    add("--input", metavar="FILE|DIR|GLOB", help="a quoted pattern may contain ** and *")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    add("--score", type=float, metavar="S", help="score 0..1 from which a box is shown, calibrated with --calibration "
        "(default: the detector's own, else the paper's 0.5)")  # fmt: skip
    add("--batch-size", type=int, default=1, metavar="N", help="images per call of the detector")
    add("--no-overlays", action="store_true", help="write the tables only")
    add("--parquet", action="store_true", help="also write predictions.parquet: all boxes, with types")
    add("--resume", action="store_true", help="keep what an earlier run, of this detector and these files, wrote")
    add("--shard", metavar="I/N", help="only part I of N, into OUT/shard-I-of-N")
    add("--join", action="store_true", help="make one result of all shards in --out")
    add("--engine", choices=ENGINES, default="local", help="this process, or Ray (of RAY_ADDRESS, else started here)")
    add("--force", action="store_true", help="predict also what does not look like a limb radiograph, and mark it")
    add("--workers", type=int, default=2, metavar="N", help="detectors that --engine ray keeps open (default: 2)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.join == bool(args.input):
        parser.error("give --input, or --join for shards that are done")
    try:
        done = join_shards(args.out, score=args.score, parquet=args.parquet) if args.join else _predict(args)
    except (ValueError, OSError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    print(
        f"{counted(done.predicted, 'radiograph')} predicted, {done.with_boxes} with a box from score {done.score:g} on"
    )
    if done.types:
        named = ", ".join(f"{count} {name}" for name, count in done.types.items())
        print(f"Most probable type of fracture: {named} (column {TYPES_COLUMN} in {TABLE})")
    if done.failed:
        print(
            f"{done.failed} of {counted(done.files, 'file')} could not be predicted",
            file=sys.stderr,
        )
    if done.unsuitable:
        print(
            f"{counted(done.unsuitable, 'file')} not analysed: no radiograph of a limb, by the look of it"
            f" (status unsuitable in {TABLE})",
            file=sys.stderr,
        )
    for note, text in NOTES.items():
        if count := done.notes.get(note):
            print(f"{counted(count, 'file')} {text} (notes: {note} in {TABLE})", file=sys.stderr)
    return 1 if done.failed or done.unsuitable else 0


def _predict(args: argparse.Namespace) -> FolderRun:
    same = ("detector", "out", "calibration", "score", "batch_size", "parquet", "resume", "engine", "workers", "force")
    shard = None if args.shard is None else Shard.parse(args.shard)
    options = PredictOptions(
        source=args.input, shard=shard, overlays=not args.no_overlays, **{name: getattr(args, name) for name in same}
    )
    images = options.find()
    _print_found(images, options.folder / SKIPPED)
    write_skipped(images.skipped, options.folder / SKIPPED)
    done = run_predict(options, images.files)
    if done.resumed:
        print(f"{done.resumed} {'was' if done.resumed == 1 else 'were'} done before")
    print(f"Results: {options.folder}")
    return done


def _print_found(images: FoundImages, table: Path) -> None:
    """Print how many files there are and why the first of those that are not read are not."""
    skipped = images.skipped
    total = len(images.files) + len(skipped)
    if not skipped:
        print(f"{counted(total, 'file')} found, {'a radiograph' if total == 1 else 'all radiographs'}")
        return
    radiographs = counted(len(images.files), "radiograph")
    print(f"{counted(total, 'file')} found: {radiographs}, {len(skipped):,} not read (all of them in {table}):")
    for file in skipped[:FIRST_SKIPPED]:
        print(f"  {printable(file.name)}: {file.reason}")
    if len(skipped) > FIRST_SKIPPED:
        print(f"  and {len(skipped) - FIRST_SKIPPED} more")
