"""Make the paper's comparison again: train its detectors and the ablations, evaluate them alike, beside the paper.

    fracture-det reproduce --quick --out output/reproduction_quick
    fracture-det reproduce --data output/fracatlas --images datasets/fracatlas/images --out output/reproduction
    fracture-det reproduce --data datasets/mine --prepare '--class-map fractured=fracture' --budget 3 --seeds 3 \\
        --out output/reproduction

--data is a folder of `fracture-det prepare`, or one with images/ and annotations/ (LabelImg), which is prepared first
with the options in --prepare. Writes reproduction.html: Table I and II and the ablations with intervals and the paper's
figures beside them, differences, the curves of trainings, precision and recall, and what agrees with the paper.
OUT/runs has the trainings, OUT/reports an evaluation of each, OUT/logs what each step printed. The same command goes on
where it was stopped. --quick does all of it on drawn radiographs in minutes, to try the way out.
Exit code 1 when some models failed and the others were compared, 2 when nothing was.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from fracture_det.baselines.reproduction.run import reproduce
from fracture_det.baselines.reproduction.study import Budget, ReproductionError, ReproductionOptions
from fracture_det.reporting.reproduction_page import PAGE_FILE


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for everything; goes on with what is there")
    add("--data", type=Path, metavar="DIR", help="prepared splits, or a folder with images/ and annotations/")
    add("--images", type=Path, metavar="DIR", help="folder of the images of prepared splits")
    add("--prepare", default="", metavar="OPTIONS", help="options of `fracture-det prepare`, as one quoted text")
    add("--budget", metavar="12ep|HOURS", help="epochs, or hours of training steps, for each model alike "
        "(default: as each configuration says, 12 epochs)")  # fmt: skip
    add("--models", nargs="+", default=[], metavar="NAME", help="only these, faster_rcnn among them (default: all)")
    add("--seeds", type=int, default=1, metavar="N", help="trainings of each model (default: 1)")
    add("--form", choices=("full", "small"), help="the paper's models, or small ones on one backbone "
        "(default: full where there is a GPU)")  # fmt: skip
    add("--quick", action="store_true", help="on drawn radiographs, in minutes: the detectors learn next to nothing")
    add("--other-test", dest="other_tests", action="append", default=[], metavar="TEST.json@IMAGES",
        help="further test radiographs, of another source; may be repeated")  # fmt: skip
    add("--bootstrap", type=int, default=2000, metavar="N", help="resamples of every interval (default: 2000)")
    add("--num-gpus", type=int, default=1, metavar="N", help="processes of each training, as of `fracture-det train`")
    add("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration keys of every training")
    return parser


def _stop(number: int, frame: object) -> None:
    """End as an exception does, so that the step that is running is ended too."""
    raise SystemExit(128 + number)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    arguments = vars(build_parser().parse_args(argv))
    signal.signal(signal.SIGTERM, _stop)
    try:
        text = arguments.pop("budget")
        budget = Budget() if text is None else Budget.parse(text)
        arguments |= {name: tuple(arguments[name]) for name in ("models", "other_tests", "overrides")}
        options = ReproductionOptions(**arguments, budget=budget)
        failures = reproduce(options, say=lambda text: print(text, flush=True))
    except (ReproductionError, ValueError, OSError) as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    print(f"\nReport: {options.out / PAGE_FILE}")
    return 1 if failures else 0
