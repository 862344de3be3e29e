"""Which image an annotation means: by relative path, else by evidence, else by a bare name that is unique.

Names compare in Unicode NFC and suffixes without case. Nothing here reads a file, except through `Content`.
"""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from fracture_det.data.annotations import RawAnnotation
from fracture_det.data.inventory import UNREAD_IMAGE_SUFFIXES, FileInventory, fold, nfc
from fracture_det.data.stated_folders import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    LAYOUT_FOLDERS,
    StatedFolders,
    Statement,
    folder_parts,
    statements,
)
from fracture_det.structures.image_files import IMAGE_SUFFIXES

_PICTURE_SUFFIXES = frozenset(IMAGE_SUFFIXES) | UNREAD_IMAGE_SUFFIXES

# How an annotation found its image, surest first.
SAME_PATH, LAYOUT, UNDERSTOOD, EVIDENCE, BARE_NAME = range(5)


@dataclass(frozen=True)
class Item:
    """One annotation that looks for its image.

    name: for messages: the annotation's file, or the entry of an export. path: what is compared with the images: the
    file's path without suffix, or the entry as written. folder: of its file, relative to the annotation root.
    entry: True for an export, whose paths carry the image's suffix; then `file` is the one that holds it.
    """

    name: str
    path: str
    folder: str
    entry: bool = False
    file: str = ""

    @property
    def told(self) -> str:
        """The name in a sentence: an entry is no file, and is told with the file that holds it."""
        return f"the entry {self.path} of {self.file}" if self.entry else self.name


@dataclass(frozen=True)
class Match:
    """The images that an annotation may mean.

    how: SAME_PATH to BARE_NAME. doubt: why it is not known to be of its one image, or an empty text. remark: how its
    name was understood, where it is not the image's name.
    """

    images: tuple[str, ...]
    how: int
    doubt: str = ""
    remark: str = ""


# Reads what an annotation says about its image; None where it cannot be read.
Content = Callable[[Item], RawAnnotation | None]


class Matcher:
    """The pictures of a data set, read or not, by every name under which an annotation may know them."""

    def __init__(self, inventory: FileInventory, items: Sequence[Item], content: Content) -> None:
        self._files, self._content = inventory, content
        self._by_name: dict[str, list[str]] = defaultdict(list)  # path with suffix
        self._by_path: dict[str, list[str]] = defaultdict(list)  # path without suffix
        self._by_stem: dict[str, list[str]] = defaultdict(list)  # bare name, without case
        self._by_fold: dict[str, list[str]] = {}
        for name in (*inventory.images, *inventory.unread):
            stem, suffix = posixpath.splitext(nfc(name))
            self._by_name[stem + suffix.lower()].append(name)
            self._by_path[stem].append(name)
            self._by_stem[fold(posixpath.basename(stem))].append(name)
        self._encoded = [name for name in (*inventory.images, *inventory.unread) if plain(name, decode=True) != name]
        self._n_items = Counter(self._known_bare_name(item) for item in items)
        self._item_folders = {part for folders in {_own_folders(item) for item in items} for part in folders}
        folders = {posixpath.dirname(name) for name in (*inventory.images, *inventory.unread)}
        root = () if inventory.image_root is None else inventory.image_root.absolute().parts
        self._stated = StatedFolders(folders, root, lambda: (s for item in items for s in self._statements(item)))
        self._layout = self._layout_folders()
        self._layout_of: dict[tuple[Path, str], list[str]] = {}

    def match(self, item: Item) -> Match:
        """Return the image, or images, that an annotation means."""
        match = self._by_relative_path(item, item.path)
        if match is not None and len(match.images) == 1 and not item.entry and "/" not in item.path:
            # Without folders on either side, the relative path is a bare name.
            content = self._content(item) if "/" not in match.images[0] else None
            against = self._stated.contradicts_root(statements("", "", content, entry=False))
            doubt = f"has the bare name of {match.images[0]}, but {against}" if against else ""
            return replace(match, doubt=doubt)
        if match is not None:
            return match if len(match.images) == 1 else self._decide_by_content(item, match)
        if bare_name(item.path) not in self._by_stem and (item.entry or not self.same_stem(item.path)):
            return self._understood(item)
        return self._by_evidence(item)

    def partners(self, name: str, *, beside_images: bool) -> set[str]:
        """Return the pictures at the relative path of a file, with and without its suffix."""
        path = posixpath.splitext(name)[0]
        root = self._files.image_root if beside_images else self._files.annotation_root
        return {picture for form in self._forms(path, root) for picture in self._at(form)}

    def same_stem(self, path: str) -> list[str]:
        """Return the pictures of a bare name, in any folder; 0.png.xml may be of 0.png.png as well as of 0.png."""
        names = dict.fromkeys((bare_name(path), fold(posixpath.basename(path))))
        return [picture for name in names for picture in self._by_stem.get(name, ())]

    def stems(self) -> Iterable[list[str]]:
        """Return the pictures of each bare name."""
        return self._by_stem.values()

    def named(self, annotation: RawAnnotation, *, with_folder: bool = False) -> set[str]:
        """Return the pictures that <filename>, in <folder>, or the end of <path> names.

        with_folder: only where the folder is named too; otherwise a name that one picture alone has is enough.
        """
        found: set[str] = set()
        if annotation.image_name is not None:
            base = posixpath.basename(plain(annotation.image_name))
            pictures = [p for p in self._by_stem.get(bare_name(base), []) if _same_name(posixpath.basename(p), base)]
            inside = [p for p in pictures if annotation.folder and self._lies_in(p, annotation.folder)]
            found.update(inside or (pictures if len(pictures) == 1 and not with_folder else ()))
        if annotation.image_path is not None:
            found.update(self._at_end_of(plain(annotation.image_path), with_folder=with_folder))
        return found

    def _at(self, path: str) -> list[str]:
        """Return the pictures whose relative path is `path`, with or without its suffix."""
        stem, suffix = posixpath.splitext(nfc(path))
        return sorted({*self._by_path.get(nfc(path), ()), *self._by_name.get(stem + suffix.lower(), ())})

    def _entry_at(self, path: str) -> list[str]:
        """Return the pictures of an export's entry: with its suffix, else without, else of another suffix."""
        stem, suffix = posixpath.splitext(nfc(path))
        if stem + suffix.lower() in self._by_name:
            return self._by_name[stem + suffix.lower()]
        if nfc(path) in self._by_path:
            return self._by_path[nfc(path)]
        return self._by_path.get(stem, []) if suffix.lower() in _PICTURE_SUFFIXES else []

    def _known_bare_name(self, item: Item) -> str:
        name = bare_name(item.path)
        return name if name in self._by_stem else bare_name(plain(item.path, decode=True))

    def _by_relative_path(self, item: Item, path: str) -> Match | None:
        if item.entry:
            # A file inside a folder of images (Roboflow's train/_annotations.coco.json) names them from there.
            for form in self._entry_forms(item, path):
                pictures = self._entry_at(form)
                if pictures:
                    remark = _suffix_remark(form, pictures)
                    return Match(tuple(pictures), UNDERSTOOD if remark else SAME_PATH, remark=remark)
            return None
        same = self._at(path)
        by_layout = {p for form in self._forms(path, self._files.annotation_root)[1:] for p in self._at(form)}
        pictures = sorted({*same, *by_layout})
        if not pictures:
            return None
        return Match(tuple(pictures), SAME_PATH if same else LAYOUT)

    def _entry_forms(self, item: Item, path: str) -> list[str]:
        folder = item.folder
        if self._files.image_root is not None:
            absolute = (self._files.annotation_root / folder).absolute()
            root = self._files.image_root.absolute()
            folder = absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else folder
        path = posixpath.normpath(path)
        return [path] if folder in ("", ".") else [f"{folder}/{path}", path]

    def _decide_by_content(self, item: Item, match: Match) -> Match:
        if not item.entry:
            content = self._content(item)
            named = self.named(content) & set(match.images) if content is not None else set()
            if len(named) == 1:
                return Match(tuple(named), EVIDENCE)
        return Match(match.images, match.how, f"fits {_some(match.images)}, and does not say which")

    def _understood(self, item: Item) -> Match:
        """Try again, where the name as written fits nothing at all, with %20 decoded and without case."""
        decoded = plain(item.path, decode=True)
        if decoded != item.path and bare_name(decoded) in self._by_stem:
            again = replace(item, path=decoded)
            match = self._by_relative_path(again, decoded) or self._by_evidence(again)
            return replace(match, how=max(UNDERSTOOD, match.how), remark=f"{item.path!r} read as {decoded!r}")
        paths = {nfc(item.path), nfc(decoded)}
        encoded = [
            name
            for name in self._encoded
            if paths & {nfc(plain(form, decode=True)) for form in (name, posixpath.splitext(name)[0])}
        ]
        if encoded:
            doubt = f"fits {_some(encoded)}" if len(encoded) > 1 else ""
            return Match(tuple(encoded), UNDERSTOOD, doubt, f"{item.path!r} read as {encoded[0]!r}")
        return Match((), BARE_NAME, "no image of this name")

    def _by_evidence(self, item: Item) -> Match:
        pictures = self._by_stem[bare_name(item.path)] if item.entry else self.same_stem(item.path)
        without_case = self._without_case(item)
        if without_case:
            doubt = f"fits {_some(without_case)} but for upper and lower case" if len(without_case) > 1 else ""
            return Match(tuple(without_case), UNDERSTOOD, doubt, f"{item.path!r} read as {without_case[0]!r}")
        content = RawAnnotation(item.name, image_path=item.path) if item.entry else self._content(item)
        named = set() if content is None else self.named(content, with_folder=True) & set(pictures)
        against = {picture: self._speaks_against(item, picture, content) for picture in pictures}
        if len(named) == 1:
            (picture,) = named
            if against[picture] is None:
                return Match((picture,), EVIDENCE)
        possible = tuple(picture for picture in pictures if against[picture] is None)
        if not possible:
            other = pictures[0]
            return Match((), BARE_NAME, f"no image of this name in its folder; {other} is another: {against[other]}")
        if len(pictures) == 1 and self._n_items[bare_name(item.path)] == 1:
            stated = self._stated.contradiction(self._statements(item, content), pictures[0])
            doubt = f"has the bare name of {pictures[0]}, but {stated}" if stated else ""
            return Match(possible, BARE_NAME, doubt or self._mirrored_elsewhere(item, pictures[0]))
        return Match(possible, BARE_NAME, self._doubt(item, pictures, possible))

    def _doubt(self, item: Item, pictures: Sequence[str], possible: Sequence[str]) -> str:
        if len(pictures) > 1:
            return f"fits {_some(pictures)} by its bare name, and does not say which"
        n_items = self._n_items[bare_name(item.path)]
        return f"one of {n_items} annotations of this bare name; not known to be of {possible[0]}"

    def _without_case(self, item: Item) -> list[str]:
        if not self._by_fold:
            folded: dict[str, list[str]] = defaultdict(list)
            for path, names in self._by_path.items():
                folded[fold(path)] += names
            for name, names in self._by_name.items():
                folded[fold(name)] += names
            self._by_fold = dict(folded)
        path = fold(item.path)
        found = self._by_fold.get(path, [])
        if not found and item.entry:
            found = self._by_fold.get(posixpath.splitext(path)[0], [])
        return sorted(set(found))

    def _speaks_against(self, item: Item, picture: str, content: RawAnnotation | None) -> str | None:
        """Return what says that an annotation of this bare name means another image, or None."""
        of_picture = folder_parts(posixpath.dirname(picture))
        own = _own_folders(item)
        if not _in_order([part for part in own if part in self._files.image_folders], of_picture):
            if item.entry and posixpath.dirname(item.path):
                return f"{item.told} names the folder {posixpath.dirname(item.path)}"
            what = item.file if item.entry else "the annotation"
            return f"{what} lies in {item.folder or posixpath.dirname(item.path)}"
        if content is None or item.entry:
            return None
        for tag, written in (("folder", content.folder), ("path", _parent(content.image_path))):
            parts = [part for part in folder_parts(plain(written or "")) if part in self._files.image_folders]
            if not _in_order(parts, of_picture):
                return f"<{tag}> says {written}"
        others = self.named(content)
        return f"it names {_some(sorted(others))}" if others and picture not in others else None

    def _statements(self, item: Item, content: RawAnnotation | None = None) -> Iterator[Statement]:
        if content is None and not item.entry:
            content = self._content(item)
        return statements(item.path, item.folder, content, entry=item.entry)

    def _mirrored_elsewhere(self, item: Item, picture: str) -> str:
        """Return a doubt where the annotations have the picture's folder too, and this one does not lie in it.

        Or where this one lies in a folder of images above the picture's.
        """
        own = [part for part in _own_folders(item) if part in self._files.image_folders]
        if own and own[-1:] != folder_parts(posixpath.dirname(picture))[-1:]:
            return f"has the bare name of {picture}, and {'is of the folder' if item.entry else 'lies in'} {own[-1]}"
        parts = [part for part in folder_parts(posixpath.dirname(picture)) if part in self._item_folders]
        if _in_order(parts, _own_folders(item)):
            return ""
        return f"has the bare name of {picture}, and does not lie in the annotations' folder {'/'.join(parts)}"

    def _at_end_of(self, path: str, *, with_folder: bool) -> list[str]:
        """Return the image whose relative path is the longest end of `path` that fits any."""
        parts = [part for part in nfc(path).split("/") if part]
        for start in range(len(parts)):
            stem, suffix = posixpath.splitext("/".join(parts[start:]))
            pictures = self._by_name.get(stem + suffix.lower(), [])
            if pictures and start == len(parts) - 1:  # a bare name
                if with_folder:
                    return [p for p in pictures if start and self._lies_in(p, parts[start - 1])]
                return pictures if len(self._by_stem[fold(posixpath.basename(stem))]) == 1 else []
            if pictures:
                return pictures
        return []

    def _lies_in(self, picture: str, folder: str) -> bool:
        parent = posixpath.basename(posixpath.dirname(picture))
        if not parent and self._files.image_root is not None:
            parent = self._files.image_root.absolute().name
        return fold(parent) == fold(posixpath.basename(plain(folder)))

    def _layout_folders(self) -> dict[str, list[str]]:
        """Return, by path with images/ and labels/ made alike, the image folders below an images/."""
        folders: dict[str, list[str]] = defaultdict(list)
        root = self._files.image_root
        if root is not None:
            for folder in sorted({posixpath.dirname(name) for name in (*self._files.images, *self._files.unread)}):
                parts = _absolute_parts(root, folder)
                if IMAGE_FOLDERS.intersection(parts):
                    folders[_alike(parts)].append(folder)
        return folders

    def _forms(self, path: str, root: Path | None) -> list[str]:
        """Return a relative path, and what it becomes where labels/ stands for images/."""
        if root is None or not self._layout:
            return [path]
        folder, base = posixpath.split(path)
        if (root, folder) not in self._layout_of:
            parts = _absolute_parts(root, folder)
            found = self._layout.get(_alike(parts), []) if ANNOTATION_FOLDERS.intersection(parts) else []
            self._layout_of[root, folder] = found
        return [path, *(posixpath.join(images, base) for images in self._layout_of[root, folder])]


def bare_name(path: str) -> str:
    """Return the last part of a path without an image's suffix and without case."""
    base = posixpath.basename(path).strip()
    stem, suffix = posixpath.splitext(base)
    return fold(stem if suffix.lower() in _PICTURE_SUFFIXES else base)


def plain(path: str, *, decode: bool = False) -> str:
    """Return a path with forward slashes and, if asked, with %20 and its like decoded."""
    path = path.replace("\\", "/")
    return unquote(path, errors="strict") if decode and _decodable(path) else path


def _decodable(path: str) -> bool:
    try:
        unquote(path, errors="strict")
    except UnicodeDecodeError:
        return False
    return True


def _same_name(name: str, written: str) -> bool:
    """Return whether a file's name is the written one, which may lack the suffix."""
    stem, suffix = posixpath.splitext(nfc(name))
    written_stem, written_suffix = posixpath.splitext(nfc(written))
    return (stem, suffix.lower()) == (written_stem, written_suffix.lower()) or stem == nfc(written)


def _suffix_remark(path: str, pictures: Sequence[str]) -> str:
    suffix = posixpath.splitext(path)[1].lower()
    if len(pictures) != 1 or posixpath.splitext(pictures[0])[1].lower() == suffix:
        return ""
    return f"{path!r} has no suffix" if suffix not in _PICTURE_SUFFIXES else f"{path!r} has the suffix {suffix}"


def _parent(path: str | None) -> str:
    return posixpath.dirname(plain(path or ""))


def _absolute_parts(root: Path, folder: str) -> list[str]:
    return [fold(part) for part in (*root.absolute().parts, *folder.split("/")) if part]


def _alike(parts: Sequence[str]) -> str:
    return "/".join("*" if part in LAYOUT_FOLDERS else part for part in parts)


def _own_folders(item: Item) -> tuple[str, ...]:
    folders = folder_parts(item.folder)
    return (*folders, *folder_parts(posixpath.dirname(item.path))) if item.entry else tuple(folders)


def _in_order(parts: Sequence[str], whole: Sequence[str]) -> bool:
    """Return whether `parts` occur in `whole` in their order."""
    rest = iter(whole)
    return all(part in rest for part in parts)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
