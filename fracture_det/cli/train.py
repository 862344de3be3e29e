"""Train a detector on data that `fracture-det prepare` has written.

    fracture-det train --config-file configs/faster_rcnn_R_50_FPN.yaml \\
        --data output/fracatlas --images ../fracatlas/images OUTPUT_DIR output/fpn

Every epoch is evaluated on val.json. OUTPUT_DIR then holds model_best.pth (best validation AP50), the checkpoints,
config.yaml, log.txt, metrics.json, loss_curves.png, ap_curve.png and TensorBoard events. A killed training continues
with the same command and --resume. Any key of the configuration can be set at the end as KEY VALUE.

Several GPUs:      --num-gpus 4
Several machines:  on each, --num-machines 2 --machine-rank 0|1 --dist-url tcp://FIRST_MACHINE:29500
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import default_setup, launch

from fracture_det.modeling.checkpoints import WeightsError, resolve_weights
from fracture_det.modeling.config import ConfigError, load_config
from fracture_det.resources import find_config
from fracture_det.training.datasets import CatalogError, register_datasets
from fracture_det.training.trainer import check_processes, train


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fracture-det train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", required=True, help="a file, or one that comes with the package: configs/NAME.yaml"
    )
    parser.add_argument(
        "--data", type=Path, action="append", default=[], help="folder with train.json and val.json; may be repeated"
    )
    parser.add_argument(
        "--images", type=Path, action="append", default=[], help="image folder of --data, in the same order"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
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
    """Return the frozen configuration, after checking that its data sets, weights and GPUs are there."""
    cfg = load_config(find_config(args.config_file), args.opts)
    check_processes(cfg, args.num_gpus)
    if len(args.data) != len(args.images):
        raise ConfigError(f"{len(args.data)} --data folders need as many --images folders, got {len(args.images)}")
    if args.data:
        pairs = list(zip(args.data, args.images, strict=True))
        cfg.DATASETS.TRAIN = tuple(f"{data / 'train.json'}@{images}" for data, images in pairs)
        cfg.DATASETS.TEST = tuple(f"{data / 'val.json'}@{images}" for data, images in pairs[:1])
    if not cfg.DATASETS.TRAIN:
        raise ConfigError("no training data: give --data and --images, or DATASETS.TRAIN")
    register_datasets([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST], cfg.DATASETS.CLASS_NAMES)
    cfg.MODEL.WEIGHTS = resolve_weights(cfg.MODEL.WEIGHTS)
    cfg.freeze()
    return cfg


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train in one process of a launch."""
    default_setup(cfg, args)
    logging.getLogger("fvcore").setLevel(logging.WARNING)
    train(cfg, resume=args.resume)


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        cfg = configure(args)
    except (ConfigError, CatalogError, WeightsError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    launch(run, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, (cfg, args))
    return 0
