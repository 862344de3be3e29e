"""Ultralytics' data.yaml: class names, and the folders or lists of images of each split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from fracture_det.data.annotation_formats.fields import read_bytes
from fracture_det.data.annotation_formats.image_names import plain_path, same_name
from fracture_det.data.annotation_formats.text import MISSING, Notes, decode_text, expected, show
from fracture_det.data.annotations import AnnotationError

YAML_SUFFIXES = (".yaml", ".yml")
# Roboflow writes valid.
_SPLIT_OF_KEY = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
# How sure it is that an image belongs to a split: more than the parts of any path.
_EXISTS, _LISTED = 1_000, 1_000_000


@dataclass(frozen=True)
class DataYaml:
    """What a data.yaml says.

    names: class names in order of their ids. splits: split (train, val, test) -> its folders of images and lists
    (.txt) of images, as written. path: of the file. root: the file's `path`, to which the splits are relative.
    notes: what was read with tolerance.
    """

    path: Path
    names: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]]
    root: str = ""
    notes: Notes = ()


def read_data_yaml(path: str | Path, data: bytes | None = None) -> DataYaml:
    """Read the names and splits of a data.yaml (`data`: its bytes, where already read).

    Names are a list, or an object of id and name. Raises AnnotationError for a file without names, with ids that are
    not 0, 1, 2 and so on, with another number of names than its `nc`, or with a split that is neither text nor list.
    """
    file = str(path)
    try:
        text, notes = decode_text(read_bytes(path) if data is None else data)
        loader = yaml.SafeLoader(text)
        loader.yaml_implicit_resolvers = {}  # every scalar is text: a class called `no` or `1` keeps its name
        content = loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise AnnotationError(file, "yaml", " ".join(str(error).split()) or "nested too deeply") from error
    if not isinstance(content, dict):
        raise AnnotationError(file, "yaml", "expected names and splits, as Ultralytics' data.yaml")
    splits: dict[str, tuple[str, ...]] = {}
    keys = {str(key).lower(): key for key in content}
    for key, split in _SPLIT_OF_KEY.items():
        written = content.get(keys.get(key))
        places = [written] if isinstance(written, str) else written
        if not isinstance(places, list | None) or not all(isinstance(place, str) for place in places or ()):
            raise AnnotationError(file, key, f"expected a folder, or a list of them, got {show(written)}")
        kept = tuple(place.strip() for place in places or () if place.strip() not in ("", "null", "~"))
        if kept:
            splits[split] = splits.get(split, ()) + kept
    root = content.get("path")
    return DataYaml(Path(path), _names(file, content), splits, root.strip() if isinstance(root, str) else "", notes)


def _names(file: str, content: Mapping[object, object]) -> tuple[str, ...]:
    written = content.get("names", MISSING)
    if isinstance(written, dict):
        ids = [str(key) for key in written]
        if sorted(ids, key=lambda key: (len(key), key)) != [str(index) for index in range(len(ids))]:
            raise AnnotationError(file, "names", f"expected the ids 0 to {len(ids) - 1}, got {', '.join(ids[:9])}")
        written = [written[key] for key in sorted(written, key=lambda key: int(str(key)))]
    if not isinstance(written, list) or not written or not all(isinstance(name, str) for name in written):
        detail = expected("a list of names", written)
        raise AnnotationError(file, "names", detail)
    stated = str(content.get("nc", "")).strip()
    if stated.isdecimal() and int(stated) != len(written):
        raise AnnotationError(file, "names", f"{len(written)} names, but nc is {stated}")
    return tuple(name.strip() for name in written)


def split_of_images(
    content: DataYaml, file_names: Iterable[str], image_root: str | Path | None = None
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return {file name: split} for images of the splits, and (entry, split) of what names no image.

    file_names: relative to `image_root`. A folder of a split is looked for from the yaml's `path`, from where the yaml
    lies, and without the leading `../` of Roboflow; where the folders have since moved, an image belongs to the split
    whose folder's last parts are the first of its own path. Raises AnnotationError for an image of two splits.
    """
    names = list(file_names)
    splits: dict[str, str] = {}
    unmatched: list[tuple[str, str]] = []
    claimed: dict[str, dict[str, int]] = defaultdict(dict)
    for split, entries in content.splits.items():
        for entry in entries:
            if entry.lower().endswith(".txt"):
                images, missing = _listed(content, entry, names)
                unmatched += [(line, split) for line in missing]
                strengths = dict.fromkeys(images, _LISTED)
            else:
                strengths = _inside(content, entry, names, image_root)
            if not strengths and not entry.lower().endswith(".txt"):
                unmatched.append((entry, split))
            for image, strength in strengths.items():
                claimed[image][split] = max(strength, claimed[image].get(split, 0))
    for image, strength_of in claimed.items():
        best = [split for split, strength in strength_of.items() if strength == max(strength_of.values())]
        if len(best) > 1:
            raise AnnotationError(str(content.path), image, f"it belongs to {' and to '.join(best)}")
        splits[image] = best[0]
    return splits, unmatched


def _bases(content: DataYaml) -> list[Path]:
    """Return the folders to which an entry may be relative."""
    here = content.path.parent
    return [here / content.root, here] if content.root else [here]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for the file system
        return False


def _inside(content: DataYaml, entry: str, names: Sequence[str], image_root: str | Path | None) -> dict[str, int]:
    """Return the images in a folder of a split, each with how sure that is: the more, the surer."""
    written = entry.replace("\\", "/")
    if image_root is not None:
        root = Path(image_root).resolve()
        for base in _bases(content):
            for folder in ((base / written).resolve(), (base / plain_path(written)).resolve()):
                inside = [name for name in names if (root / name).is_relative_to(folder)] if _exists(folder) else []
                if inside:  # of two nested folders, the inner one is the surer
                    return dict.fromkeys(inside, _EXISTS + len(folder.parts))
    parts = tuple(same_name(part) for part in PurePosixPath(plain_path(written)).parts if part != "/")
    strengths = {}
    for name in names:
        folders = tuple(same_name(part) for part in PurePosixPath(name).parts[:-1])
        lengths = [n for n in range(1, len(parts) + 1) if folders[:n] == parts[-n:]]
        if lengths:
            strengths[name] = max(lengths)
    return strengths


def _listed(content: DataYaml, entry: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the images that a list names, and its lines that name none or several."""
    candidates = [base / place for base in _bases(content) for place in (entry, plain_path(entry))]
    file = next((path for path in candidates if _exists(path) and path.is_file()), None)
    if file is None:
        raise AnnotationError(str(content.path), entry, "no such file")
    try:
        text, _ = decode_text(read_bytes(file))
    except ValueError as error:
        raise AnnotationError(str(file), "text", error) from error
    of_name: dict[str, list[str]] = defaultdict(list)
    for name in names:
        of_name[same_name(PurePosixPath(name).name)].append(name)
    images, missing = [], []
    for line in text.splitlines():
        written = same_name(plain_path(line))
        if not written:
            continue
        namesakes = of_name.get(PurePosixPath(written).name, [])
        fits = [name for name in namesakes if f"/{written}".endswith(f"/{same_name(name)}")]
        fits = fits or [name for name in namesakes if f"/{same_name(name)}".endswith(f"/{written}")]
        longest = [name for name in fits if len(name) == max(map(len, fits))]
        if len(longest) == 1:
            images += longest
        else:
            missing.append(line.strip())
    return images, missing
