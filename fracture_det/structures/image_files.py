"""Which files are images: by their suffix, in a folder with its subfolders, or by a glob pattern."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")

NamedFile = tuple[str, Path]


class InputError(ValueError):
    """The input names no image; the message says what was looked for."""


@dataclass(frozen=True)
class FoundImages:
    """The images under an input.

    files: (name, path) in order of name; the name is relative to the input, with forward slashes.
    skipped: files whose suffix is not that of an image.
    """

    files: tuple[NamedFile, ...]
    skipped: tuple[Path, ...] = ()


def find_images(source: str | Path, *, leave_out: Path | None = None) -> FoundImages:
    """Return the images that a file, a folder (with its subfolders) or a glob pattern names.

    A single file is taken whatever its suffix. `leave_out` is a folder to skip: the output of an earlier run may lie
    inside the input. Raises InputError when nothing is found.
    """
    path = Path(source)
    if not path.exists() and not any(sign in str(source) for sign in "*?["):
        raise InputError(f"{source}: no such file or folder")
    if path.is_file():
        return FoundImages(((path.name, path),))
    if path.is_dir():
        root, candidates = path, _walk(path)
    else:
        root = _fixed_part(path)
        candidates = [match for match in root.glob(str(path.relative_to(root))) if match.is_file()]
    if leave_out is not None:
        candidates = [path for path in candidates if not path.resolve().is_relative_to(leave_out.resolve())]
    images = [path for path in candidates if _is_image(path)]
    skipped = [path for path in candidates if not _is_image(path)]
    if not images:
        raise InputError(
            f"{source}: no image found ({len(skipped)} other files); looked for {', '.join(IMAGE_SUFFIXES)}"
        )
    files = sorted((path.relative_to(root).as_posix(), path) for path in images)
    return FoundImages(tuple(files), tuple(sorted(skipped)))


@dataclass(frozen=True)
class FolderContents:
    """Every file under a folder: `images` and `others` together are all that were found.

    Names are relative to the folder, with forward slashes, sorted.
    images: of a kind that is read. others: every other file. not_entered: (name, reason) of linked folders that were
    entered under another name before, and of links to nothing. folders: every subfolder, empty ones included.
    """

    images: tuple[str, ...]
    others: tuple[str, ...]
    not_entered: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()


def list_folder(root: str | Path) -> FolderContents:
    """Return every file under `root`; links to folders are followed, each folder once.

    Raises FileNotFoundError when `root` is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: not a folder")
    entered: dict[str, str] = {}
    images, others, not_entered, folders = [], [], [], []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        relative = Path(folder).relative_to(root).as_posix()
        real = os.path.realpath(folder)
        if real in entered:
            not_entered.append((relative, f"links to {entered[real]}, which is entered there"))
            subfolders.clear()
            continue
        entered[real] = relative
        if relative != ".":
            folders.append(relative)
        subfolders.sort()
        for path in sorted(Path(folder) / name for name in names):
            name = path.relative_to(root).as_posix()
            if not path.is_file():
                not_entered.append((name, "a link to nothing"))
            elif _is_image(path):
                images.append(name)
            else:
                others.append(name)
    return FolderContents(
        tuple(sorted(images)), tuple(sorted(others)), tuple(sorted(not_entered)), tuple(sorted(folders))
    )


def list_image_names(root: str | Path) -> list[str]:
    """Return the names of the image files under the folder `root`, relative, with forward slashes, sorted.

    Broken links are left out. Raises FileNotFoundError when `root` is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: not a folder of images")
    images = (path for path in _walk(root) if _is_image(path) and path.is_file())
    return sorted(path.relative_to(root).as_posix() for path in images)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _walk(root: Path) -> list[Path]:
    return [Path(folder) / name for folder, _, names in os.walk(root) for name in names]


def _fixed_part(pattern: Path) -> Path:
    """Return the folder before the first part of a pattern that has a wildcard."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)
