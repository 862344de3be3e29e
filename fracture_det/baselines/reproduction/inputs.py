"""What a reproduction is given, checked before anything of it runs, and what a folder holds one of."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from fracture_det.baselines.reproduction.study import ReproductionError, ReproductionOptions
from fracture_det.structures.hashes import sha256_of

PLAN_FILE = "plan.json"
# Folders that trainings are in; from the first one on, a folder belongs to its plan.
TRAININGS = ("timing", "runs")
SPLITS = ("train.json", "val.json", "test.json")


def is_prepared(data: Path) -> bool:
    """Return whether the folder `data` holds the splits of `fracture-det prepare`, or some of them."""
    return any((data / name).is_file() for name in SPLITS)


def check_inputs(options: ReproductionOptions) -> None:
    """Raise ReproductionError for files and folders that are missing, and for options that would have no effect."""
    if len(options.overrides) % 2:
        raise ReproductionError(f"overrides come as KEY VALUE pairs, got {shlex.join(options.overrides)}")
    try:
        prepare = shlex.split(options.prepare)
    except ValueError as error:
        raise ReproductionError(f"--prepare: {error}: {options.prepare!r}") from error
    for text in options.other_tests:
        file, _, folder = text.rpartition("@")
        if not Path(file).is_file():
            raise ReproductionError(f"--other-test {text}: {file}: no such file")
        _check_folder(f"--other-test {text}", Path(folder))
    if options.data is None:
        _refuse_idle(options, "--quick draws its own radiographs", images=True, prepare=bool(prepare))
        return
    data = options.data
    _check_folder("--data", data)
    if not is_prepared(data):
        for name in ("images", "annotations"):
            if not (data / name).is_dir():
                raise ReproductionError(f"--data {data}: expected {', '.join(SPLITS)}, or the folder {name}/")
        _refuse_idle(options, f"--data {data} is not prepared, its images/ are taken", images=True)
        return
    if missing := [name for name in SPLITS if not (data / name).is_file()]:
        raise ReproductionError(f"--data {data}: {', '.join(missing)} is missing")
    if options.images is None:
        raise ReproductionError(f"--images: name the folder of the images of {data}")
    _check_folder("--images", options.images)
    _refuse_idle(options, f"--data {data} is prepared already", prepare=bool(prepare))


def _check_folder(option: str, folder: Path) -> None:
    if not folder.is_dir():
        raise ReproductionError(f"{option}: {folder}: {'a file, not a' if folder.exists() else 'no such'} folder")


def _refuse_idle(options: ReproductionOptions, why: str, *, images: bool = False, prepare: bool = False) -> None:
    if images and options.images is not None:
        raise ReproductionError(f"--images {options.images} would have no effect: {why}")
    if prepare:
        raise ReproductionError(f"--prepare {options.prepare!r} would have no effect: {why}")


def check_same_plan(options: ReproductionOptions) -> None:
    """Write what a reproduction is of; raise ReproductionError where `out` holds trainings of something else."""
    path = options.out / PLAN_FILE
    mine = {
        "data": "synthetic radiographs" if options.quick else str(Path(str(options.data)).resolve()),
        "splits": _splits(options),
        "prepare": options.prepare,
        "form": options.chosen_form,
        "budget": str(options.budget),
        "changes": shlex.join(options.overrides),
    }
    if any((options.out / name).is_dir() for name in TRAININGS):
        before = _read(path)
        if other := [
            f"{key} {before[key]!r}, not {value!r}" for key, value in mine.items() if before.get(key, value) != value
        ]:
            raise ReproductionError(f"{options.out}: holds a reproduction of {'; '.join(other)}: name another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(mine, indent=1) + "\n", encoding="utf-8")


def _splits(options: ReproductionOptions) -> str:
    """Return the first digits of the SHA-256 of each split that was prepared elsewhere; "" of others."""
    if options.data is None or not is_prepared(options.data):
        return ""
    return " ".join(sha256_of(options.data / name)[:12] for name in SPLITS)


def _read(path: Path) -> dict[str, str]:
    """Return what the file says, {} without one. Raises ReproductionError when it is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ReproductionError(f"{path}: broken ({error}); name another --out") from error
    if not isinstance(content, dict):
        raise ReproductionError(f"{path}: expected an object, got {content!r}; name another --out")
    return content
