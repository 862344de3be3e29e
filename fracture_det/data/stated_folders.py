"""Folders that annotations state, and whether they contradict the folder of an image of the same bare name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from fracture_det.data.annotations import RawAnnotation
from fracture_det.data.inventory import fold

# Folders by which data sets part images from their annotations: YOLO's images/ and labels/, VOC's JPEGImages/ and
# Annotations/. They say nothing of an image.
IMAGE_FOLDERS = frozenset(("images", "jpegimages"))
ANNOTATION_FOLDERS = frozenset(("labels", "annotations"))
LAYOUT_FOLDERS = IMAGE_FOLDERS | ANNOTATION_FOLDERS
# Of two words of one of these, an image lies in one alone.
_ALTERNATIVES = (
    {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2},
    {"left": 0, "l": 0, "right": 1, "r": 1},
    {
        **dict.fromkeys(("fractured", "fracture", "fractures", "fx", "positive", "pos", "abnormal", "broken"), 0),
        **dict.fromkeys(("healthy", "normal", "normals", "negative", "neg", "non_fractured", "not_fractured"), 1),
        **dict.fromkeys(("unfractured", "nonfractured", "no_fracture", "non_fracture", "intact"), 1),
    },
)


@dataclass(frozen=True)
class Statement:
    """What an annotation says of its image's folder. source: where. written: as it stands. folder: its last part."""

    source: str
    written: str
    folder: str


def folder_parts(folder: str) -> list[str]:
    """Return the parts of a folder's path in the form of `fold`, without images/, labels/ and their like."""
    return [
        fold(p) for p in folder.replace("\\", "/").split("/") if p not in ("", ".") and p.lower() not in LAYOUT_FOLDERS
    ]


def statements(path: str, folder: str, content: RawAnnotation | None, *, entry: bool) -> Iterator[Statement]:
    """Yield what an annotation states: by where it lies, in <folder> and in <path>; an export's entry by its path.

    path, folder, entry: as in matching.Item.
    """
    found = [("its path" if entry else "its place", posixpath.dirname(path) if entry else folder)]
    if content is not None and not entry:
        found.append(("<folder>", content.folder or ""))
        found.append(("<path>", posixpath.dirname((content.image_path or "").replace("\\", "/"))))
    for source, written in found:
        parts = folder_parts(written)
        if parts:
            yield Statement(source, written, parts[-1])


class StatedFolders:
    """Says which stated folders mean something: those that are called like folders of images, and their fellows.

    Where every annotation states one and the same folder, and no image lies in it, it is where they were written.
    image_folders: of the images, relative to their root. root: the parts of the root. stated: of all annotations; it is
    called once, when it is needed.
    """

    def __init__(
        self, image_folders: Iterable[str], root: Collection[str], stated: Callable[[], Iterable[Statement]]
    ) -> None:
        self._folders = {tuple(folder_parts(folder)) for folder in image_folders}
        self._root = [fold(part) for part in root]
        self._stated = stated
        self._folders_of: dict[str, set[str]] | None = None

    def contradiction(self, found: Iterable[Statement], image: str) -> str:
        """Return what says that an annotation of the bare name of `image` is of another, or an empty text."""
        parts = folder_parts(posixpath.dirname(image))
        for statement in found:
            if statement.folder in (*parts, *self._root):
                continue
            if any(are_alternatives(statement.folder, part) for part in (*parts, *self._root[-1:])):
                return f"{statement.source} says {statement.written}"
            if self._means_something(statement.source):
                return f"{statement.source} says {statement.written}, where other folders are those of the images"
        return ""

    def contradicts_root(self, found: Iterable[Statement]) -> str:
        """Return what says that an annotation without folders is of another root than that of the images."""
        for statement in found:
            if self._root and are_alternatives(statement.folder, self._root[-1]):
                return f"{statement.source} says {statement.written}, and --images is {self._root[-1]}"
        return ""

    def _means_something(self, source: str) -> bool:
        if self._folders_of is None:
            self._folders_of = {}
            for statement in self._stated():
                self._folders_of.setdefault(statement.source, set()).add(statement.folder)
        stated = self._folders_of.get(source, set())
        names = {part for folder in self._folders for part in folder}
        return bool(stated & names) or (len(stated) > 1 and len(self._folders) > 1)


def are_alternatives(first: str, second: str) -> bool:
    """Return whether two folders are two of a kind: train and val, fractured and healthy, site1 and site2, a and b."""
    first, second = (re.sub(r"[\s-]+", "_", fold(name)) for name in (first, second))
    if first == second:
        return False
    for kinds in _ALTERNATIVES:
        one, other = ({kind for word, kind in kinds.items() if word == name} for name in (first, second))
        if one and other:
            return one != other
    stems = [re.fullmatch(r"(.*?)[_.]?(\d+|[a-z])", name) for name in (first, second)]
    return all(stems) and len({match[1] for match in stems if match}) == 1
