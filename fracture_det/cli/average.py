"""Average the weights of trainings that share a start: one network, as fast, that holds where each of them does.

    fracture-det average --detector d2:output/stage_3 --detector d2:output/both_sources --out output/mean
    fracture-det average --detector d2:output/stage_3=3 --detector d2:output/both_sources=1 --out output/mean

Writes OUT/model.safetensors, config.yaml (of the first) and SHA256SUMS: a detector d2:OUT. Choose the shares on
validation images of each source. Exit code 2 where the networks are not of one kind.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from safetensors.torch import save_file

from fracture_det.inference.base import DetectorError
from fracture_det.inference.checksums import write_checksums
from fracture_det.inference.detectron2 import CONFIG_FILE, D2Detector, find_weights
from fracture_det.modeling.averaging import average_weights
from fracture_det.modeling.checkpoints import WeightsError

PREFIX = "d2:"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det average", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--detector",
        type=_detector_and_share,
        action="append",
        required=True,
        metavar="d2:FOLDER[=SHARE]",
        help="a training, and how much it counts (default: 1); repeat it",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the mean")
    return parser


def _detector_and_share(text: str) -> tuple[Path, float]:
    folder, _, share = text.partition("=")
    try:
        number = float(share or 1)
    except ValueError:
        number = 0
    if not folder.startswith(PREFIX) or not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected d2:FOLDER or d2:FOLDER=SHARE with a share above 0, got {text!r}")
    return Path(folder.removeprefix(PREFIX)), number


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if len(arguments.detector) < 2:
        parser.error("--detector: give two or more")
    folders, shares = zip(*arguments.detector, strict=True)
    out: Path = arguments.out
    if any(folder.resolve() == out.resolve() for folder in folders):
        parser.error(f"--out {out}: is one of the detectors")
    try:
        files = [find_weights(folder) for folder in folders]
        out.mkdir(parents=True, exist_ok=True)
        save_file(average_weights(files, shares), out / "model.safetensors", metadata={"format": "pt"})
        (out / "model.safetensors").chmod(0o644)  # safetensors grants it to the owner only
        shutil.copyfile(files[0].parent / CONFIG_FILE, out / CONFIG_FILE)
        write_checksums(out / CONFIG_FILE, out / "model.safetensors")
        D2Detector.open(str(out))  # the configuration fits the weights
    except (WeightsError, DetectorError, OSError) as error:
        print(f"average: {error}", file=sys.stderr)
        return 2
    print(f"{out}: the mean of {', '.join(f'{share:g} x {folder}' for folder, share in arguments.detector)}")
    return 0
