"""Which files are images: by their suffix, in a folder with its subfolders, or by a glob pattern."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from fracture_det.structures.image_kinds import DICOM, HEAD_BYTES, IMAGE_FORMATS, JPEG_START, ImageKind, recognise
from fracture_det.structures.wording import counted

DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", *DICOM_SUFFIXES)
# Archives of images name DICOM files by numbers or UIDs: what stands behind the last dot is no suffix.
NO_SUFFIX = re.compile(r"(?:.*/)?(?:[^./]+|[^/]*\.\d+)")
HIDDEN = "hidden: its name, or that of a folder, begins with a dot"
LINK_TO_NOTHING = "a link to nothing"

NamedFile = tuple[str, Path]


class InputError(ValueError):
    """The input names no image; the message says what was looked for and what was found instead."""


@dataclass(frozen=True)
class SkippedFile:
    """A file or a linked folder that is not read.

    name: relative to the input, with forward slashes. reason: why. kind: what its bytes are, where that is known.
    """

    name: str
    reason: str
    kind: ImageKind | None = None


@dataclass(frozen=True)
class FoundImages:
    """Everything under an input: `files` and `skipped` together are all that was found.

    files: (name, path) in order of name; the name is relative to the input, with forward slashes.
    skipped: whatever else there is, in order of name.
    """

    files: tuple[NamedFile, ...]
    skipped: tuple[SkippedFile, ...] = ()


def find_images(source: str | Path, *, leave_out: Path | None = None) -> FoundImages:
    """Return the images that a file, a folder (with its subfolders) or a glob pattern names.

    A single file is taken whatever its suffix. `**` in a pattern means any number of folders, and at its end everything
    in them; brackets that are part of a real name are taken literally. Links to folders are followed, each folder once.
    `leave_out` is a folder to skip: the output of an earlier run may lie inside the input.
    Raises InputError when no image is found.
    """
    path = Path(source)
    if path.is_file():
        return FoundImages(((path.name, path),))
    if path.is_dir():
        root, contents = path, list_folder(path)
    elif glob.has_magic(str(source)):
        root, contents = _list_pattern(path)
    else:
        raise InputError(f"{source}: no such file or folder")
    broken = [name for name, reason in contents.not_entered if reason == LINK_TO_NOTHING and is_image_name(name)]
    files = [(name, root / name) for name in (*contents.images, *broken)]  # a broken link fails later, as a file
    others = [(name, root / name) for name in contents.others]
    if leave_out is not None:
        outside = leave_out.resolve()
        files, others = (
            [(name, file) for name, file in found if not file.resolve().is_relative_to(outside)]
            for found in (files, others)
        )
    unnamed = {name for name, _ in files if not is_unicode(name)}
    files = [(name, file) for name, file in files if name not in unnamed]
    skipped = [SkippedFile(name, "its name is not UTF-8; rename it") for name in unnamed]
    skipped += [skipped_file(name, file) for name, file in others]
    skipped += [SkippedFile(name, reason) for name, reason in contents.not_entered if name not in broken]
    if not files:
        raise InputError(f"{source}: {_nothing(skipped)}; looked for {', '.join(IMAGE_SUFFIXES)}")
    return FoundImages(tuple(sorted(files)), tuple(sorted(skipped, key=lambda file: file.name)))


@dataclass(frozen=True)
class FolderContents:
    """Every file under a folder: `images` and `others` together are all that were found.

    Names are relative to the folder, with forward slashes, sorted.
    images: of a kind that is read, by their suffix, and not hidden; DICOM files without suffix too. others: every other
    file. not_entered: (name, reason) of folders that were entered under another name before or cannot be entered, of
    links to nothing, and of what is neither a file nor a folder. folders: every subfolder that was entered, empty ones
    included.
    """

    images: tuple[str, ...]
    others: tuple[str, ...]
    not_entered: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()


_ROOT = "the folder itself"


def list_folder(root: str | Path, *, max_depth: int | None = None) -> FolderContents:
    """Return every file under `root`; each folder is entered once, through a link only if it has no name under `root`.

    max_depth: how many levels are entered, 1 for the files of `root` alone.
    Raises FileNotFoundError when `root` is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: not a folder")
    entered: dict[str, str] = {}
    images: list[str] = []
    others: list[str] = []
    not_entered: list[tuple[str, str]] = []
    folders, links = [""], list[str]()
    while folders or links:
        if not folders:  # a link is followed after all that have names of their own
            links.sort(reverse=True)
        folder = folders.pop() if folders else links.pop()
        real = os.path.realpath(root / folder)
        if real in entered:
            not_entered.append((folder, f"leads to {entered[real]}, which is entered under that name"))
            continue
        try:
            with os.scandir(root / folder) as scanned:
                entries = list(scanned)
        except OSError as error:
            if not folder:
                raise
            not_entered.append((folder, f"cannot be entered: {error.strerror}"))
            continue
        entered[real] = folder or _ROOT
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if _is_folder(entry):
                if max_depth is None or name.count("/") + 1 < max_depth:
                    (links if entry.is_symlink() else folders).append(name)
            elif Path(entry).is_file():
                is_image = is_image_name(name) or _is_unnamed_dicom(name, root / name)
                (images if is_image else others).append(name)
            else:
                not_entered.append((name, LINK_TO_NOTHING if entry.is_symlink() else "neither a file nor a folder"))
    subfolders = tuple(sorted(folder for folder in entered.values() if folder != _ROOT))
    return FolderContents(tuple(sorted(images)), tuple(sorted(others)), tuple(sorted(not_entered)), subfolders)


def _is_unnamed_dicom(name: str, path: Path) -> bool:
    """Say whether a file without suffix is a DICOM file by its bytes, and no directory of them."""
    if is_hidden(name) or not NO_SUFFIX.fullmatch(name):
        return False
    try:
        return file_kind(path) == DICOM
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def list_image_names(root: str | Path) -> list[str]:
    """Return the names of the image files under the folder `root`; see `list_folder`.

    Raises FileNotFoundError when `root` is not a folder.
    """
    return list(list_folder(root).images)


def is_image_name(name: str) -> bool:
    """Say whether a relative name ends like that of an image that is read, and no part of it is hidden."""
    return not is_hidden(name) and name.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(name: str) -> bool:
    """Say whether a part of a relative name begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def file_kind(path: Path) -> ImageKind | None:
    """Return what the first bytes of a file are, or None where that is not known. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(1_024)
        if head.startswith(JPEG_START):  # which may begin with a long preview
            head += file.read(HEAD_BYTES)
    return recognise(head)


def is_unicode(name: str) -> bool:
    """Say whether a file's name is text: bytes that are not UTF-8 can stand in no table or JSON of ours."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def escaped(name: str) -> str:
    r"""Return a text in which the bytes of a file's name that are not UTF-8 are written as `\xff`."""
    return name if is_unicode(name) else name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def printable(name: str) -> str:
    """Return a file's name in one line, without what a terminal would obey or cannot show."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)


def skipped_file(name: str, path: Path) -> SkippedFile:
    """Return why a file of `FolderContents.others` is not read: hidden, or what its first bytes are."""
    if is_hidden(name):
        return SkippedFile(name, HIDDEN)
    try:
        kind = file_kind(path)
    except OSError as error:
        return SkippedFile(name, f"cannot be opened: {error.strerror}")
    if kind is None:
        reason = "empty" if path.stat().st_size == 0 else link_as_text(path) or "not an image"
        return SkippedFile(name, reason)
    if kind.format_name in IMAGE_FORMATS:
        suffix = (DICOM_SUFFIXES if kind == DICOM else IMAGE_SUFFIXES)[0]
        return SkippedFile(name, f"{kind.name}, but its name does not end as one ({suffix} ...); rename it", kind)
    return SkippedFile(name, f"{kind.name}, which is not read", kind)


def link_as_text(path: Path) -> str:
    """Return why a file without suffix that holds only a path is not read: it was a link; else an empty text.

    Where links cannot be made, a copy of one is a small text file.
    """
    try:
        if path.suffix or not 0 < path.stat().st_size < 512:
            return ""
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    if "/" not in text or "\n" in text:
        return ""
    return f"holds only the path {printable(text)}: a link that was copied as text, not followed"


def _nothing(skipped: list[SkippedFile]) -> str:
    """Return what was found instead: "no image that can be read; 5 DICOM files (.dcm) are not read"."""
    if not skipped:
        return "no file found"
    kinds = Counter((file.kind.noun, Path(file.name).suffix) for file in skipped if file.kind is not None)
    parts = [f"{counted(count, noun)} ({suffix or 'no suffix'})" for (noun, suffix), count in kinds.most_common(5)]
    rest = len(skipped) - sum(count for _, count in kinds.most_common(5))
    parts += [counted(rest, "other file")] if rest else []
    return f"no image that can be read; {', '.join(parts)} {'is' if len(skipped) == 1 else 'are'} not read"


def _list_pattern(pattern: Path) -> tuple[Path, FolderContents]:
    """Return the folder before the first part of a pattern that has a wildcard, and what matches under it."""
    root, parts = _split_pattern(pattern)
    if not root.is_dir():
        raise InputError(f"{pattern}: no such file or folder ({root})")
    contents = list_folder(root, max_depth=None if "**" in parts else len(parts))
    matching = _matching(contents, parts)
    if not (matching.images or matching.others):  # perhaps the brackets belong to a name
        matching = _matching(contents, [part.replace("[", "[[]") for part in parts])
    return root, matching


def _split_pattern(pattern: Path) -> tuple[Path, list[str]]:
    root, parts = Path(), list(pattern.parts)
    while len(parts) > 1 and (not glob.has_magic(parts[0]) or (root / parts[0]).is_dir()):
        root /= parts.pop(0)
    return root, parts


def _matching(contents: FolderContents, parts: list[str]) -> FolderContents:
    images, others = (
        tuple(name for name in names if _matches(name.split("/"), parts))
        for names in (contents.images, contents.others)
    )
    links = tuple(
        (name, reason)
        for name, reason in contents.not_entered
        if "**" in parts or _matches(name.split("/"), parts[: name.count("/") + 1])
    )
    return FolderContents(images, others, links)


def _matches(name: list[str], parts: list[str]) -> bool:
    if not parts:
        return not name
    if parts[0] == "**":
        return any(_matches(name[skipped:], parts[1:]) for skipped in range(len(name) + 1)) or len(parts) == 1
    return bool(name) and fnmatchcase(name[0], parts[0]) and _matches(name[1:], parts[1:])
