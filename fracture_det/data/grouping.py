"""Groups that are never split: the images of a patient, copies of one picture, and neighbouring numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

# <name>_jpg.rf.<32 hex digits>.jpg: Roboflow's export of one of several augmented copies of the image <name>.
_ROBOFLOW = re.compile(r"^(?P<name>.+?)(?:[_-](?:jpe?g|png|bmp|tiff?))?\.rf\.[0-9a-f]{16,}$", re.IGNORECASE)
_NUMBERED = re.compile(r"^(?P<prefix>.*?)(?P<number>\d+)$")


def roboflow_source(file_name: str) -> str | None:
    """Return the name of the source image of a Roboflow copy such as `101_jpg.rf.<hash>.jpg`, else None."""
    match = _ROBOFLOW.match(PurePosixPath(file_name).stem)
    return match["name"] if match else None


def neighbour_block(file_name: str, size: int) -> str | None:
    """Return the block of `size` consecutive numbers that a name such as IMG0000123.jpg falls into, else None.

    The folder does not count: one patient's views may lie in a fractured and a healthy folder.
    """
    match = _NUMBERED.match(PurePosixPath(file_name).stem)
    if match is None or size < 1:
        return None
    return f"{match['prefix']}#{int(match['number']) // size}"


def group_files(
    file_names: Iterable[str],
    *,
    patients: Mapping[str, str] | None = None,
    copies: Iterable[Sequence[str]] = (),
    neighbours: int = 0,
) -> dict[str, str]:
    """Return {file name: group id}, the group id being the first file name (or patient) of the group.

    Files are united when they have one patient, when they are listed together in `copies`, when they are Roboflow
    copies of one source name, or, without `patients`, when their numbers fall into one block of `neighbours`
    (0: no blocks).
    """
    names = sorted(file_names)
    parents: dict[str, str] = {name: name for name in names}
    keys: dict[str, str] = {}
    for name in names:
        source = roboflow_source(name)
        own = [f"source:{source}"] if source is not None else []
        if patients is not None and name in patients:
            own.append(f"patient:{patients[name]}")
        if patients is None and source is None and neighbours > 0:
            block = neighbour_block(name, neighbours)
            own += [f"block:{block}"] if block is not None else []
        for key in own:
            _unite(parents, name, keys.setdefault(key, name))
    for cluster in copies:
        known = [name for name in cluster if name in parents]
        for name in known[1:]:
            _unite(parents, known[0], name)
    groups = {name: _root(parents, name) for name in names}
    if patients is not None:
        label = {root: patients[root] for root in set(groups.values()) if root in patients}
        groups = {name: label.get(root, root) for name, root in groups.items()}
    return groups


def _root(parents: dict[str, str], name: str) -> str:
    while parents[name] != name:
        parents[name] = parents[parents[name]]
        name = parents[name]
    return name


def _unite(parents: dict[str, str], first: str, second: str) -> None:
    lower, upper = sorted((_root(parents, first), _root(parents, second)))
    parents[upper] = lower
