"""What is both trained and validated on: images, groups (patients), identical files and near-copies."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fracture_det.data.duplicates import near_duplicates
from fracture_det.data.image_info import read_image_infos
from fracture_det.structures.hashes import sha256_of
from fracture_det.structures.image_files import is_image_name
from fracture_det.structures.processors import available_cpus

# Of each kind of problem so many are named, and the others counted.
SHOWN = 10
_ADVICE = "tools/prepare_dataset.py divides a data set without such leaks"
_logger = logging.getLogger("detectron2")


def first_of(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def find_overlap(train: Sequence[dict[str, Any]], validation: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for what of the validation images is also trained on; log a warning of those that share a name.

    train, validation: Detectron2's dictionaries, with `file_name` and, where it is known, `group`. Near-copies are
    looked for only where no image of either side has a group of several, since groups contain them already.
    """
    files = [sorted({str(Path(item["file_name"]).resolve()) for item in items}) for items in (train, validation)]
    shared = sorted(set(files[0]) & set(files[1]))
    if shared:
        return [
            f"{len(shared)} of {len(files[1])} validation images are also trained on, so that validation would measure "
            f"memory: {first_of(shared)}; {_ADVICE}"
        ]
    groups = sorted({_group(item) for item in train} & {_group(item) for item in validation} - {""})
    if groups:
        called = first_of([group.rpartition("@")[0] or group for group in groups])
        return [
            f"{len(groups)} groups (one patient, or copies) are both trained and validated on, so that validation "
            f"would measure memory: {called}; {_ADVICE}. If these are different patients, give them different names"
        ]
    copies = _copies(*files, near=not any(_has_group(item) for item in (*train, *validation)))
    if copies:
        return [
            f"{len(copies)} validation images are copies of training images, so that validation would measure memory: "
            f"{first_of(copies)}; {_ADVICE}"
        ]
    names_of = [{Path(path).name for path in paths} for paths in files]
    names = sorted(names_of[0] & names_of[1])
    if names:
        _logger.warning(
            "%d validation images have the file names of training images in other folders: %s; are they copies?",
            len(names),
            first_of(names),
        )
    return []


def _has_group(item: dict[str, Any]) -> bool:
    group = item.get("group")
    return bool(group) and not Path(item["file_name"]).as_posix().endswith(str(group))


def _group(item: dict[str, Any]) -> str:
    """Return the group; one that is called after a file is one of that image folder alone."""
    group = str(item.get("group") or "")
    is_own = Path(item["file_name"]).as_posix().endswith(f"/{group}")
    return f"{group}@{item.get('image_root', '')}" if is_own or is_image_name(group) else group


def _copies(train: Sequence[str], validation: Sequence[str], *, near: bool) -> list[str]:
    """Return `validation image (as training image)` for identical files and, if asked, near-copies."""
    found: dict[str, str] = {}
    sizes: dict[int, list[str]] = defaultdict(list)
    for path in train:
        sizes[Path(path).stat().st_size].append(path)
    for path in validation:
        alike = sizes.get(Path(path).stat().st_size, [])
        if alike:
            digest = sha256_of(path)
            found.update((path, other) for other in alike if sha256_of(other) == digest)
    if near:
        infos = list(read_image_infos("/", [*train, *validation], workers=min(available_cpus(), 8)))
        sides = (set(train), set(validation))
        for first, second, _ in near_duplicates(infos):
            for one, other in ((first, second), (second, first)):
                if one in sides[1] and other in sides[0]:
                    found.setdefault(one, other)
    return [f"{path} (as {other})" for path, other in sorted(found.items())]
