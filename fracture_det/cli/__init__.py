"""The console command `fracture-det`: one subcommand per task."""

from __future__ import annotations

import argparse
import importlib
import sys

from fracture_det import __version__
from fracture_det.resources import how_to_install

# command -> what it does; its module, of the same name, is imported only when it is called: `serve` loads no torch.
COMMANDS = {
    "prepare": "LabelImg, YOLO or COCO annotations become checked, grouped splits",
    "train": "train a detector on them",
    "closeups": "windows of whole films as training images, down to one finger",
    "pool": "several prepared data sets as one, told apart by source in every report",
    "average": "the mean of trainings that share a start, as one detector",
    "eval": "measure a detector, and write a report that can be published",
    "compare": "detectors side by side on the same images, with intervals and tests",
    "gate": "whether a candidate may replace the served detector: nothing lost, something better",
    "models": "the registry of detectors: signed versions, promotion by the gate, shadow, rollback",
    "predict": "boxes on a radiograph, a folder or an archive",
    "export": "a trained detector for OpenVINO, ONNX or TorchScript; INT8; pruning",
    "benchmark": "speed and memory on this machine, beside other detectors",
    "reproduce": "the paper's comparison again: four detectors trained and evaluated alike",
    "serve": "the upload page and its API",
    "pacs": "the node beside a PACS: DICOM in, structured reports and messages out",
    "admin": "users, tokens and the audit log of the page",
    "deidentify": "copies of DICOM radiographs without their patients",
    "export-feedback": "readers' feedback from the page as annotations to train on",
    "snapshot": "readers' feedback as versions with hashes; each picture in one split for life",
    "watch": "the reference that the page's watch compares with, and how well the watch works",
    "fit-suitability": "what decides whether a picture is a limb radiograph, from folders of films and of others",
    "fit-types": "what tells the type of a fracture, from pictures whose type a table states",
    "build-detectron2": "a wheel of Detectron2 that needs no compiler; only training and d2: detectors need it",
}
JOURNEYS = """\
You have LabelImg XML and want a detector:
    fracture-det prepare --images images --annotations annotations --out data
    fracture-det train --config-file configs/faster_rcnn_R_50_FPN.yaml --data data --images images OUTPUT_DIR run
You must publish how good it is:
    fracture-det eval --detector d2:run --data data/test.json --val data/val.json --images images --out report
You want to see fractures:
    fracture-det serve
    fracture-det predict --input xrays --out predictions

Details: `fracture-det COMMAND --help`. Research use only; not a medical device.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's name; what follows the name is for the command's own parser."""
    lines = "\n".join(f"  {name:18}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="fracture-det",
        usage="fracture-det COMMAND ...",
        description="Bone fracture detection on limb radiographs.",
        epilog=f"commands:\n{lines}\n\n{JOURNEYS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fracture_det {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code, or 2 where a package that it needs is not installed."""
    arguments = sys.argv[1:] if argv is None else argv
    command = build_parser().parse_args(arguments[:1]).command
    try:
        module = importlib.import_module(f"{__name__}.{command.replace('-', '_')}")
        return module.main(arguments[1:])
    except ModuleNotFoundError as error:
        package = error.name or ""
        if not package or package.startswith("fracture_det"):
            raise
        print(f"fracture-det {command}: {how_to_install(package)}", file=sys.stderr)
        return 2
