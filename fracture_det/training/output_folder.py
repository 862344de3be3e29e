"""The folder that a training writes to: whose it is, whether it can be resumed, and what of it may be removed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from fracture_det.modeling.config import ConfigError, load_config
from fracture_det.training.datasets import SPEC_SEPARATOR

# All that a training writes; nothing else is removed.
RUN_FILES = (
    "config.yaml",
    "log.txt*",
    "metrics.json",
    "last_checkpoint",
    "model_[0-9]*.pth",
    "model_best*.pth",
    "model_final*.pth",
    "events.out.tfevents.*",
    "loss_curves.png",
    "ap_curve.png",
)
CONFIG_FILE = "config.yaml"
# Where these sections differ, a checkpoint would go on as another model, or on other data.
MODEL_KEYS = ("MODEL.", "DATASETS.", "INPUT.FORMAT", "SOLVER.EMA_DECAY")
# Exceptions: a resumed training starts from its checkpoint, on any device, under any title.
HARMLESS_KEYS = ("MODEL.WEIGHTS", "MODEL.DEVICE", "MODEL.TITLE")
IGNORED_KEYS = ("OUTPUT_DIR", "VERSION")
_logger = logging.getLogger("detectron2")


def check_output_folder(cfg: CfgNode, *, resume: bool, overwrite: bool, config_file: Path | None = None) -> None:
    """Raise ConfigError where OUTPUT_DIR holds another run, unless it is to be resumed or overwritten.

    A run is resumed if its config.yaml has the same model and data; other differences are logged as a warning.
    config_file: of this training; it and MODEL.WEIGHTS must not be among what is to be overwritten.
    """
    folder = Path(cfg.OUTPUT_DIR)
    if resume and overwrite:
        raise ConfigError("--resume continues the run in OUTPUT_DIR and --overwrite removes it: give only one")
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ConfigError(f"OUTPUT_DIR {folder}: {path} is a file, not a folder")
    files = find_run(folder)
    if resume:
        _check_same_run(cfg, folder / CONFIG_FILE)
    elif files and not overwrite:
        names = [path.name for path in files]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ConfigError(
            f"OUTPUT_DIR {folder}: holds another run ({', '.join(names[:5])}{more}); --resume continues it, "
            "--overwrite removes these files first, or name another folder"
        )
    elif files:
        for option, used in (("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS), ("--config-file", config_file)):
            if used and Path(used).resolve() in {path.resolve() for path in files}:
                raise ConfigError(f"--overwrite would remove {used}, which {option} names: copy it to another folder")


def find_run(folder: Path) -> list[Path]:
    """Return the files of a training in `folder`, sorted."""
    return sorted(path for pattern in RUN_FILES for path in folder.glob(pattern) if path.is_file())


def make_output_folder(cfg: CfgNode, *, overwrite: bool) -> None:
    """Make OUTPUT_DIR; with `overwrite` remove the files of a training from it, nothing else. Raises ConfigError."""
    folder = Path(cfg.OUTPUT_DIR)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = find_run(folder) if overwrite else []
        for path in files:
            path.unlink()
    except OSError as error:
        raise ConfigError(f"OUTPUT_DIR {folder}: {error.filename}: {error.strerror}") from error
    if files:
        _logger.warning("--overwrite: removed %d files of another run from %s", len(files), folder)


def _check_same_run(cfg: CfgNode, config_file: Path) -> None:
    if not config_file.is_file():
        return
    before = dict(_leaves(load_config(config_file)))
    now = dict(_leaves(cfg))
    different = [
        f"{key} {before.get(key)} -> {now.get(key)}"
        for key in sorted({*before, *now})
        if key not in IGNORED_KEYS and _plain(key, before.get(key)) != _plain(key, now.get(key))
    ]
    other_model = [text for text in different if text.startswith(MODEL_KEYS) and not text.startswith(HARMLESS_KEYS)]
    if other_model:
        raise ConfigError(
            f"--resume: {config_file} is of a run with another model or other data: {'; '.join(other_model)}. Resume "
            f"it with its own configuration; or start a new run in another folder, from its weights with "
            f"MODEL.WEIGHTS {config_file.parent / 'model_best.pth'}"
        )
    if different:
        _logger.warning(
            "--resume: the run in %s goes on with other settings: %s", config_file.parent, "; ".join(different)
        )


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _plain(key: str, value: Any) -> Any:
    """Return `value` for comparison: lists for tuples, and absolute paths in the names of data sets."""
    if isinstance(value, list | tuple):
        return [_plain(key, item) for item in value]
    if key in ("DATASETS.TRAIN", "DATASETS.TEST") and isinstance(value, str) and SPEC_SEPARATOR in value:
        return [str(Path(part).resolve()) for part in value.rpartition(SPEC_SEPARATOR)[::2]]
    return value
