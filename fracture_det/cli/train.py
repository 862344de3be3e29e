"""Train a detector on data that `fracture-det prepare` has written.

    fracture-det train --config-file configs/faster_rcnn_R_50_FPN.yaml \\
        --data output/fracatlas --images ../fracatlas/images OUTPUT_DIR output/fpn

Several sources: repeat --data and --images; --data FOLDER=2 is drawn twice as often as one without a number; without
any number, each by its size. Every epoch is evaluated on the val.json of each source that has one, and the best is that
with the best mean over sources. OUTPUT_DIR then holds model_best.pth (best validation AP50), the checkpoints,
config.yaml, log.txt, metrics.json, loss_curves.png, ap_curve.png and TensorBoard events. A training that was killed or
whose evaluation failed continues with the same command and --resume. Any key of the configuration can be set at the end
as KEY VALUE; DATASETS.TEST "()" trains without validation. All data are checked first: exit code 2, with every problem,
and nothing written.

Several GPUs:      --num-gpus 4
Several machines:  on each, --num-machines 2 --machine-rank 0|1 --dist-url tcp://FIRST_MACHINE:29500
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import default_setup, launch
from tqdm import tqdm

from fracture_det.modeling.checkpoints import WeightsError, resolve_weights
from fracture_det.modeling.config import ConfigError, load_config
from fracture_det.resources import find_config
from fracture_det.training.datasets import CatalogError, register_training_data
from fracture_det.training.output_folder import check_output_folder, make_output_folder
from fracture_det.training.trainer import check_processes, train


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fracture-det train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", required=True, help="a file, or one that comes with the package: configs/NAME.yaml"
    )
    parser.add_argument(
        "--data",
        type=_source,
        action="append",
        default=[],
        metavar="FOLDER[=WEIGHT]",
        help="folder with train.json and val.json, and how often to draw from it; may be repeated",
    )
    parser.add_argument(
        "--images", type=Path, action="append", default=[], help="image folder of --data, in the same order"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR, if any")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="remove the files of another run from OUTPUT_DIR, and nothing else there",
    )
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        help="processes on this machine, each on a GPU of its own; without GPUs, on the CPU",
    )
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", help="tcp://host:port of the first machine")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration keys to set")
    return parser


def configure(args: argparse.Namespace) -> CfgNode:
    """Return the frozen configuration, after checking its data, weights, GPUs and output folder."""
    cfg = load_config(find_config(args.config_file), args.opts)
    check_processes(cfg, args.num_gpus)
    if args.data or args.images:
        _set_datasets(cfg, args)
    if not cfg.DATASETS.TRAIN:
        raise ConfigError("no training data: give --data and --images, or DATASETS.TRAIN")
    cfg.MODEL.WEIGHTS = resolve_weights(cfg.MODEL.WEIGHTS)
    if args.machine_rank == 0:  # the others find what the first one writes, where they share the folder
        check_output_folder(
            cfg, resume=args.resume, overwrite=args.overwrite, config_file=find_config(args.config_file)
        )
    register_training_data(
        cfg, progress=lambda stream, n, title: tqdm(stream, total=n, desc=title, unit="file", disable=None)
    )
    cfg.freeze()
    return cfg


def _set_datasets(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Set DATASETS to the folders of --data and --images, DATASETS.TEST only unless it was given."""
    if len(args.data) != len(args.images):
        raise ConfigError(f"{len(args.data)} --data folders need as many --images folders, got {len(args.images)}")
    for option, folders in (("--data", [folder for folder, _ in args.data]), ("--images", args.images)):
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(f"{option} {folder}: {'a file, not a' if folder.exists() else 'no such'} folder")
    pairs = [(folder, images) for (folder, _), images in zip(args.data, args.images, strict=True)]
    cfg.DATASETS.TRAIN = tuple(f"{data / 'train.json'}@{images}" for data, images in pairs)
    if any(weight is not None for _, weight in args.data):
        cfg.DATALOADER.SOURCE_WEIGHTS = tuple(1.0 if weight is None else weight for _, weight in args.data)
    if "DATASETS.TEST" not in args.opts[::2]:
        validated = [pair for number, pair in enumerate(pairs) if not number or _has_validation(pair[0])]
        cfg.DATASETS.TEST = tuple(dict.fromkeys(f"{data / 'val.json'}@{images}" for data, images in validated))


def _has_validation(folder: Path) -> bool:
    """Say whether a further source has a val.json with images, or one that is wrong, of which the checks tell more."""
    try:
        return bool(json.loads((folder / "val.json").read_bytes()).get("images"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError):
        return True


def _source(text: str) -> tuple[Path, float | None]:
    """Return the folder and the weight that an argument of --data names."""
    folder, separator, number = text.rpartition("=")
    if not separator or Path(text).exists():
        return Path(text), None
    try:
        weight = float(number)
    except ValueError:
        return Path(text), None
    if not 0 < weight < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a weight above 0, got {number}")
    return Path(folder), weight


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train in one process of a launch."""
    default_setup(cfg, args)
    logging.getLogger("fvcore").setLevel(logging.WARNING)
    train(cfg, resume=args.resume)


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        cfg = configure(args)
        make_output_folder(cfg, overwrite=args.overwrite and args.machine_rank == 0)
    except (ConfigError, CatalogError, WeightsError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    launch(run, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, (cfg, args))
    return 0
