"""The files that a detector needs, copied into a version, with a URI relative to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from fracture_det.inference.base import CARD_FILE
from fracture_det.inference.checksums import CHECKSUM_FILE
from fracture_det.inference.ensemble import ENSEMBLE_FILE, EnsembleConfig, ensemble_file
from fracture_det.inference.registry import DETECTORS, EXPORTS, TRAINED, scheme_and_target
from fracture_det.inference.type_classifier import copy_classifier
from fracture_det.registry.errors import RegistryError

# What is opened with a weight file, where it lies beside it.
COMPANIONS = ("config.yaml", CHECKSUM_FILE)
# Where the classifier of types of an ensemble goes.
TYPES_FOLDER = "types"


def copy_detector(uri: str, folder: Path) -> str:
    """Copy what the detector `uri` needs into a new `folder`; return its URI with a path relative to folder's parent.

    Of an ensemble all members are copied, each into a folder of its own, and its classifier of types. Raises
    RegistryError for a detector without files, and OSError.
    """
    scheme, target = scheme_and_target(uri)
    path = Path(target)
    if scheme == "ensemble":
        _copy_ensemble(ensemble_file(path), folder)
        return f"{scheme}:{folder.name}"
    if scheme not in DETECTORS or not target or not path.exists():
        raise RegistryError(f"detector {uri!r}: expected shipped, or scheme:path of files that can be copied")
    folder.mkdir(parents=True)
    if path.is_dir() and scheme in TRAINED:
        path = _weights_in(path)
    if path.is_dir():
        for file in path.iterdir():
            if file.is_file() and file.name != CARD_FILE:
                shutil.copyfile(file, folder / file.name)
        return f"{scheme}:{folder.name}"
    others = [path.with_name(name) for name in COMPANIONS]
    others += [path.with_suffix(".bin")] if scheme in EXPORTS else []
    for file in (path, *others):
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    return f"{scheme}:{folder.name}/{path.name}"


def card_of(uri: str) -> Path | None:
    """Return the model card that lies with the detector `uri`, or None."""
    scheme, target = scheme_and_target(uri)
    path = ensemble_file(target) if scheme == "ensemble" else Path(target)
    card = (path if path.is_dir() else path.parent) / CARD_FILE
    return card if card.is_file() else None


def _copy_ensemble(path: Path, folder: Path) -> None:
    config, members = EnsembleConfig.load(path), []
    folder.mkdir(parents=True)
    for number, member in enumerate(config.members, 1):
        scheme, target = scheme_and_target(member)
        members.append(copy_detector(f"{scheme}:{path.parent / target}", folder / f"member_{number}"))
    if config.types is not None:
        copy_classifier(path.parent / config.types, folder / TYPES_FOLDER)
        config = msgspec.structs.replace(config, types=TYPES_FOLDER)
    msgspec.structs.replace(config, members=tuple(members)).save(folder / ENSEMBLE_FILE)


def _weights_in(folder: Path) -> Path:
    """Return the weight file that a training folder is opened by. Raises DetectorError."""
    from fracture_det.inference.detectron2 import find_weights

    return find_weights(folder)
