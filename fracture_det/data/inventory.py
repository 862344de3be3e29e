"""Every file under the folders of images and of annotations, and what each of them is."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from fracture_det.data.annotations import AnnotationError
from fracture_det.data.records import EXCLUDED, KEPT, Problem
from fracture_det.structures.image_files import IMAGE_SUFFIXES, FolderContents, is_unicode, link_as_text, list_folder

# Pictures that are not read. A file of an unknown suffix counts as a picture too: an annotation may mean it.
_UNREAD_IMAGES = (
    ".heic .heif .gif .webp .jfif .jpe .jp2 .j2k .jpx .avif .jxl .nii .nrrd .mha .mhd "
    ".raw .img .psd .tga .pgm .ppm .pnm .pbm .svg .ico .cr2 .nef .dng .exr .hdr"
)
UNREAD_IMAGE_SUFFIXES = frozenset(_UNREAD_IMAGES.split())
ANNOTATION_SUFFIXES = frozenset((".xml", ".json", ".txt", ".csv", ".jsonl"))
_NO_IMAGES = (
    ".tsv .yaml .yml .toml .ini .cfg .md .rst .html .htm .pdf .doc .docx .odt .rtf .xls .xlsx .ods .zip .gz "
    ".tar .tgz .7z .rar .py .ipynb .sh .bat .log .names .data .cache .db .sqlite .pkl .pt .pth .lnk .url .bak "
    ".tmp .old .orig"
)
_NO_IMAGE_SUFFIXES = ANNOTATION_SUFFIXES | frozenset(_NO_IMAGES.split())
# Known by their names: they describe a data set, and annotate no image.
_KNOWN = (
    "classes.txt predefined_classes.txt obj.names obj.data data.yaml data.yml train.txt val.txt valid.txt "
    "test.txt trainval.txt labelmap.txt label_map.pbtxt notes.json license license.txt makefile thumbs.db "
    "desktop.ini"
)
_KNOWN_NAMES = frozenset(_KNOWN.split())


NOT_UTF8 = "has a name that is not UTF-8; rename it"


def nfc(text: str) -> str:
    """Return the text in Unicode NFC, in which names are compared."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def fold(text: str) -> str:
    """Return the text in NFC, without case and without blanks at its ends, which exporters cut off or leave."""
    return nfc(nfc(text).casefold()).strip()


def is_known_name(name: str) -> bool:
    """Return whether a file of this name describes a data set, as classes.txt, data.yaml and README do."""
    base = posixpath.basename(name).lower()
    return base in _KNOWN_NAMES or base.startswith(("readme", "changelog"))


def is_hidden(name: str) -> bool:
    """Return whether a part of the relative path begins with a dot."""
    return name.startswith(".") or "/." in name


@dataclass(frozen=True)
class OtherFile:
    """A file that is neither an image to read nor an annotation of the format.

    name: relative to its root. beside_images: the root is that of the images, else that of the annotations.
    """

    name: str
    beside_images: bool


@dataclass(frozen=True)
class FileInventory:
    """Every file under the two roots, each once.

    images: to be read. unread: picture -> why it is not read; named like images, or relative to the annotations.
    annotation_files: of the format's suffix, relative to the annotation root. others: everything else.
    image_folders: names of the folders that hold pictures, and of empty ones, in the form of `fold`.
    problems: files that are listed whatever the annotations say (hidden ones, links).
    n_files: how many files were found, links to nothing included.
    siblings: where the annotations are one file: others of its suffix beside it, which are not among those found.
    """

    image_root: Path | None
    annotation_root: Path
    images: tuple[str, ...]
    annotation_files: tuple[str, ...]
    unread: dict[str, str] = field(default_factory=dict)
    others: tuple[OtherFile, ...] = ()
    image_folders: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    n_files: int = 0
    siblings: tuple[Path, ...] = ()


def take_inventory(
    annotations: Path,
    suffix: str,
    *,
    image_root: Path | None = None,
    images: Sequence[str] = (),
    leave_out: Collection[Path] = (),
) -> FileInventory:
    """List the images under `image_root` (without one: `images`) and the annotations, a folder or a file.

    suffix: of the annotation files. leave_out: real paths of files that are not counted.
    Raises AnnotationError where `annotations` is neither a folder nor a file, and FileNotFoundError where `image_root`
    is not a folder.
    """
    contents = FolderContents(tuple(images), ()) if image_root is None else _list(image_root, leave_out)
    read = [name for name in contents.images if image_root is None or (is_unicode(name) and not is_hidden(name))]
    if annotations.is_dir():
        annotation_root, found = annotations, _list(annotations, leave_out)
        bare_names = {fold(posixpath.splitext(posixpath.basename(name))[0]) for name in read}
        of_format = [name for name in found.others if _is_annotation(name, suffix, bare_names)]
    elif annotations.is_file():
        annotation_root, found, of_format = annotations.parent, FolderContents((), ()), [annotations.name]
    else:
        raise AnnotationError(str(annotations), "annotations", "no such file or folder")
    lister = _Lister(suffix)
    taken = [_entry(annotation_root, name, lister.real) for name in of_format]
    lister.entries.update(taken)
    if image_root is not None:
        lister.add(image_root, contents, beside_images=True)
    lister.add(annotation_root, found, beside_images=False)
    lister.sort_images_of_annotations(read)
    return FileInventory(
        image_root,
        annotation_root,
        tuple(read),
        tuple(of_format),
        lister.unread,
        tuple(lister.others),
        _folder_names([*_empty_folders(contents), *map(posixpath.dirname, (*read, *lister.unread))]),
        tuple(lister.problems),
        len(lister.entries) if image_root is not None else len(lister.entries) + len(read),
        () if annotations.is_dir() else _siblings(annotations, leave_out),
    )


def _list(root: Path, leave_out: Collection[Path]) -> FolderContents:
    """Return what a folder contains without some files, given by their real paths."""
    contents = list_folder(root)
    if not leave_out:
        return contents
    bases = {path.name for path in leave_out}
    images, others = (
        tuple(n for n in names if posixpath.basename(n) not in bases or (root / n).resolve() not in leave_out)
        for names in (contents.images, contents.others)
    )
    return replace(contents, images=images, others=others)


class _Lister:
    """Sorts the files of both roots; a file that lies under both is taken once."""

    def __init__(self, suffix: str) -> None:
        self.entries: set[str] = set()
        self.real: dict[tuple[Path, str], str] = {}
        self.unread: dict[str, str] = {}
        self.others: list[OtherFile] = []
        self.problems: list[Problem] = []
        self._suffix = suffix
        self._images_of_annotations: list[str] = []

    def add(self, root: Path, contents: FolderContents, *, beside_images: bool) -> None:
        """Take what `root` contains and was not met before."""
        for place, name in enumerate((*contents.images, *contents.others)):
            if self._is_new(root, name):
                self._sort(name, beside_images=beside_images, is_image=place < len(contents.images))
                if self.unread.get(name, "").endswith("(no suffix)") and (reason := link_as_text(root / name)):
                    self.unread[name] = reason
        for name, reason in contents.not_entered:
            if self._is_new(root, name):
                lost = reason.startswith("a link to nothing")
                self.problems.append(Problem(name, "link_not_followed", reason, EXCLUDED if lost else KEPT))

    def sort_images_of_annotations(self, read: Sequence[str]) -> None:
        """Sort the images that lie under the annotation root alone, given those `read` from the image root."""
        paths = {nfc(posixpath.splitext(name)[0]) for name in (*read, *self.unread)}
        for name in self._images_of_annotations:
            if nfc(posixpath.splitext(name)[0]) in paths:
                self.others.append(OtherFile(name, beside_images=False))
            else:
                self.unread[name] = "lies under --annotations, not under --images"

    def _is_new(self, root: Path, name: str) -> bool:
        entry = _entry(root, name, self.real)
        is_new = entry not in self.entries
        self.entries.add(entry)
        return is_new

    def _sort(self, name: str, *, beside_images: bool, is_image: bool) -> None:
        suffix = posixpath.splitext(name)[1].lower()
        if is_hidden(name):
            lost = suffix in (*IMAGE_SUFFIXES, self._suffix) and not posixpath.basename(name).startswith("._")
            self.problems.append(Problem(name, "hidden_file", "begins with a dot", EXCLUDED if lost else KEPT))
            self.others.append(OtherFile(name, beside_images))
        elif is_image or suffix in IMAGE_SUFFIXES:  # a DICOM file may have no suffix
            if beside_images and not is_unicode(name):
                self.unread[name] = NOT_UTF8
            elif not beside_images:
                self._images_of_annotations.append(name)
        elif suffix in _NO_IMAGE_SUFFIXES or is_known_name(name) or name in self.unread:
            self.others.append(OtherFile(name, beside_images))
        elif beside_images or suffix in UNREAD_IMAGE_SUFFIXES:
            self.unread[name] = f"is of a kind that is not read ({suffix or 'no suffix'})"
        else:
            self.others.append(OtherFile(name, beside_images))


def _siblings(file: Path, leave_out: Collection[Path]) -> tuple[Path, ...]:
    """Return the files of one suffix beside an annotation file, such as val.json beside train.json."""
    names = [name for name in list_folder(file.parent, max_depth=1).others if not is_known_name(name)]
    alike = [file.parent / name for name in names if Path(name).suffix.lower() == file.suffix.lower()]
    return tuple(path for path in alike if path.resolve() not in {file.resolve(), *leave_out})


def _is_annotation(name: str, suffix: str, bare_names: set[str]) -> bool:
    stem, own_suffix = posixpath.splitext(posixpath.basename(name))
    if own_suffix.lower() != suffix or is_hidden(name):
        return False
    # An image may be called train.png; then train.txt annotates it.
    return not is_known_name(name) or (stem != "classes" and fold(stem) in bare_names)


def _entry(root: Path, name: str, real: dict[tuple[Path, str], str]) -> str:
    """Return the file's name under the real path of its folder, by which it is the same from either root."""
    folder, base = posixpath.split(name)
    if (root, folder) not in real:
        real[root, folder] = os.path.realpath(root / folder)
    return f"{real[root, folder]}/{base}"


def _empty_folders(contents: FolderContents) -> list[str]:
    """Return the folders without any file, from which images may have been removed."""
    filled = {posixpath.dirname(name) for name in (*contents.images, *contents.others)}
    filled |= {str(parent) for folder in filled for parent in PurePosixPath(folder).parents}
    return [folder for folder in contents.folders if folder not in filled]


def _folder_names(folders: Iterable[str]) -> frozenset[str]:
    return frozenset(fold(part) for folder in set(folders) for part in folder.split("/") if part not in ("", "."))
