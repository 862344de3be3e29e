"""Match annotations to images, in every format, and account for every file that was found."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fracture_det.data.annotation_formats.class_names import ClassNames, find_class_names, label_folder
from fracture_det.data.annotation_formats.registry import ANNOTATION_FORMATS, ExportFormat, PerImageFormat
from fracture_det.data.annotation_formats.yolo import CLASSES_FILE
from fracture_det.data.annotation_readers import ExportReader, FileReader, Reader
from fracture_det.data.annotations import AnnotationError, RawAnnotation
from fracture_det.data.inventory import (
    ANNOTATION_SUFFIXES,
    NOT_UTF8,
    FileInventory,
    OtherFile,
    fold,
    is_known_name,
    take_inventory,
)
from fracture_det.data.matching import BARE_NAME, LAYOUT, SAME_PATH, UNDERSTOOD, Item, Match, Matcher, plain
from fracture_det.data.possible_annotations import PossibleAnnotations
from fracture_det.data.records import EXCLUDED, KEPT, Problem
from fracture_det.data.unused_files import is_archive
from fracture_det.structures.image_files import IMAGE_SUFFIXES, escaped
from fracture_det.structures.wording import counted

FORMATS = tuple(ANNOTATION_FORMATS)
_EXAMPLES = 3


@dataclass(frozen=True)
class FileCounts:
    """What became of the files that were found; the parts add up to `found`.

    found: files under --images and --annotations, each once. images, annotations: used. excluded_images,
    excluded_annotations: listed instead, such as an annotation of an excluded image, or of none. other: all other
    files, such as those of a kind that is not read.
    """

    found: int
    images: int
    annotations: int
    excluded_images: int
    excluded_annotations: int
    other: int

    @property
    def listed(self) -> int:
        """How many files are named in problems.csv instead of being used."""
        return self.excluded_images + self.excluded_annotations + self.other

    def __str__(self) -> str:
        return (
            f"{counted(self.found, 'file')} found = {counted(self.images, 'image')} used + "
            f"{counted(self.annotations, 'annotation file')} used + {self.listed:,} listed in problems.csv "
            f"({counted(self.excluded_images, 'image')}, {counted(self.excluded_annotations, 'annotation file')}, "
            f"{counted(self.other, 'other file')})"
        )


def open_annotations(
    path: str | Path,
    fmt: str,
    file_names: Sequence[str] = (),
    *,
    images: str | Path | None = None,
    yolo_names: Sequence[str] | None = None,
    class_names: Sequence[str] = (),
    known_files: Iterable[Path] = (),
    leave_out: Collection[Path] = (),
) -> AnnotationSource:
    """Open the annotations at `path`, a folder or a file, for the images under the folder `images`.

    file_names: the images, where no folder is given; other files beside them are then unknown.
    yolo_names: class names in order of their ids; default: classes.txt, obj.names or data.yaml at `path` or above.
    class_names: names of classes that are known, by which VIA's class attribute is told from others.
    known_files: tables that name images and are no annotations, wherever they lie. leave_out: real paths of files that
    are not counted, such as those of an earlier run.
    Raises AnnotationError when nothing can be read at all, FileNotFoundError when `images` is not a folder, ValueError
    for an unknown format.
    """
    if fmt not in ANNOTATION_FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {fmt!r}")
    path, kind = Path(path), ANNOTATION_FORMATS[fmt]
    root = None if images is None else Path(images)
    if isinstance(kind, PerImageFormat):
        names: ClassNames | None = ClassNames((), {})
        if kind.needs_class_names:
            names = ClassNames(tuple(yolo_names), {}) if yolo_names else find_class_names(path)
            path = label_folder(path)
        if not path.is_dir():
            raise AnnotationError(str(path), "annotations", "not a folder")
        if names is None:
            raise AnnotationError(str(path), CLASSES_FILE, "missing; give the names with --yolo-names")
        inventory = take_inventory(path, kind.suffix, image_root=root, images=file_names, leave_out=leave_out)
        return AnnotationSource(inventory, FileReader(inventory, kind, names.names), fmt, known_files, names)
    inventory = take_inventory(path, kind.suffix, image_root=root, images=file_names, leave_out=leave_out)
    if not inventory.annotation_files:
        raise AnnotationError(str(path), "annotations", _nothing_found(inventory, kind.suffix))
    return AnnotationSource(inventory, ExportReader(inventory, kind, class_names), fmt, known_files)


class AnnotationSource:
    """The annotations of one data set, each with the image that it belongs to.

    images: names of the images to read. problems: what was found while matching files to images. notes: sentences
    about how they were matched. excluded_images: those that cannot be used, whatever their annotation says.
    """

    def __init__(
        self,
        inventory: FileInventory,
        reader: Reader,
        fmt: str,
        known_files: Iterable[Path] = (),
        class_names: ClassNames | None = None,
    ) -> None:
        self._known_files = {path.resolve() for path in known_files}
        self.images = inventory.images
        self.problems: list[Problem] = [*inventory.problems, *reader.problems]
        self.notes: list[str] = []
        self.excluded_images: set[str] = set()
        self.n_items = len(reader.items)
        self._files, self._reader, self._fmt = inventory, reader, fmt
        self._kind = ANNOTATION_FORMATS[fmt]
        self._matcher = Matcher(inventory, reader.items, self._content)
        self._item_of: dict[str, Item] = {}
        self._sure: dict[str, str] = {}  # annotation -> its image, where the relative path says so
        self._named: dict[str, str] = {}  # image -> an annotation of another image that names it
        self._unused: list[Item] = []
        self._resolve(*self._match_all())
        self._note_class_names(class_names)
        self._list_others()
        self._report_stems()

    def has(self, file_name: str) -> bool:
        """Return whether the image has an annotation; if not, it is unlabelled, unless it is excluded."""
        return file_name in self._item_of

    def annotation_name(self, file_name: str) -> str:
        """Return the name of the image's annotation for messages, or an empty text."""
        item = self._item_of.get(file_name)
        return "" if item is None or item.entry else item.name

    def read(self, file_name: str) -> tuple[RawAnnotation, str]:
        """Return the annotation of an image and the SHA-256 of its file; raises AnnotationError."""
        item = self._item_of[file_name]
        annotation, digest = self._reader.read(item)
        self._note_named(item, annotation, file_name)
        return _as_on_disk(annotation, file_name, item), digest

    def possible_annotations(self, file_names: Iterable[str]) -> dict[str, str]:
        """Return, for images without annotation, why one that was not used may be theirs: {image: sentence}.

        To be asked after every annotation has been read, for what these say of other images.
        """
        used = {item.name for item in self._item_of.values()}
        possible = PossibleAnnotations(
            self._files, self._matcher, self._reader, sure=self._sure, used=used, known_files=self._known_files
        )
        return possible.find(file_names, self._named)

    def count_files(self, used_images: Iterable[str], used: Iterable[str]) -> FileCounts:
        """Return what became of the files. used_images: in a split. used: those and images left out of the split."""
        images, with_record = set(used_images), set(used)
        if isinstance(self._kind, ExportFormat):
            annotations = len(self._files.annotation_files) - self._reader.n_unread_files
        else:
            annotations = sum(name in self._item_of for name in with_record)
        excluded = len(self._files.annotation_files) - annotations
        other = self._files.n_files - len(self.images) - annotations - excluded
        return FileCounts(
            self._files.n_files, len(images), annotations, len(self.images) - len(images), excluded, other
        )

    def nothing_found(self) -> str:
        """Return a sentence that says which annotations are there instead of those of the format."""
        return f"{self._files.annotation_root}: {_nothing_found(self._files, self._kind.suffix)}"

    def examples(self) -> str:
        """Return the first names of both sides, for a message."""
        images = ", ".join(self.images[:_EXAMPLES]) or "none"
        items = ", ".join(item.told for item in self._reader.items[:_EXAMPLES]) or "none"
        return f"images: {images}; annotations: {items}"

    def _content(self, item: Item) -> RawAnnotation | None:
        try:
            return self._reader.content(item)
        except AnnotationError:
            return None

    def _match_all(self) -> tuple[dict[str, list[tuple[Item, Match]]], dict[str, list[Item]]]:
        """Return the annotations that mean one image, and those that may mean it, by image."""
        claims: dict[str, list[tuple[Item, Match]]] = defaultdict(list)
        doubts: dict[str, list[Item]] = defaultdict(list)
        for item in self._reader.items:
            match = self._matcher.match(item)
            if len(match.images) != 1 or match.doubt:
                self._leave_out(item, match, doubts)
                continue
            image = match.images[0]
            if match.how <= UNDERSTOOD:
                self._sure[item.name] = image
            if image in self._files.unread:
                detail = f"its image {image} {self._files.unread[image]}"
                self._not_used(item, "image_not_read", detail)
            else:
                claims[image].append((item, match))
        return claims, doubts

    def _leave_out(self, item: Item, match: Match, doubts: dict[str, list[Item]]) -> None:
        if match.images:
            several = len(match.images) == 1 and match.doubt.startswith("one of ")
            kind = "second_annotation" if several else "annotation_ambiguous"
            self._not_used(item, kind, match.doubt)
            for image in match.images:
                doubts[image].append(item)
        else:
            self._not_used(item, "annotation_without_image", match.doubt)

    def _not_used(self, item: Item, kind: str, detail: str) -> None:
        self.problems.append(Problem(item.name, kind, detail, EXCLUDED))
        self._unused.append(item)
        content = self._content(item)
        if content is not None:
            self._note_named(item, content, None)

    def _note_named(self, item: Item, annotation: RawAnnotation, image: str | None) -> None:
        if annotation.image_name is None and annotation.image_path is None:
            return
        if image is not None and annotation.image_path is None and annotation.image_name == posixpath.basename(image):
            return
        named = self._matcher.named(annotation)
        if image not in named:
            for other in named:
                self._named.setdefault(other, item.told)

    def _resolve(self, claims: dict[str, list[tuple[Item, Match]]], doubts: dict[str, list[Item]]) -> None:
        bare = []
        for image in sorted({*claims, *doubts} - set(self._files.unread)):
            claimed, others = claims.get(image, []), doubts.get(image, [])
            surest = min((match.how for _, match in claimed), default=None)
            best = [(item, match) for item, match in claimed if match.how == surest]
            if not claimed or len(best) > 1 or (len(claimed) > 1 and surest not in (SAME_PATH, LAYOUT)):
                self._exclude(image, [item for item, _ in claimed], others)
                continue
            item, match = best[0]
            losers = [other for other, _ in claimed if other is not item]
            for loser in losers:
                self._not_used(loser, "second_annotation", f"{image} has {item.told}; this one is not used")
            if self._has_no_box(item) and any(not self._has_no_box(other) for other in (*losers, *others)):
                self._item_of[image] = item
                detail = f"{item.told} has no box, but {_names((*losers, *others))} may be of this image and has"
                self._exclude_image(image, "second_annotation", detail)
                continue
            self._item_of[image] = item
            if match.remark:
                self.problems.append(Problem(image, "name_understood", match.remark))
            elif match.how == BARE_NAME:
                bare.append((image, item))
        self._report_bare_names(bare)

    def _exclude(self, image: str, claimed: Sequence[Item], others: Sequence[Item]) -> None:
        for item in claimed:
            self._not_used(item, "second_annotation", f"one of several annotations of {image}")
        if claimed:
            detail = f"annotated by {_names((*claimed, *others))}; which one holds is not known"
            self._exclude_image(image, "second_annotation", detail)
        else:
            detail = f"{_names(others)} may be of this image, and does not say so"
            self._exclude_image(image, "second_annotation" if len(others) > 1 else "annotation_ambiguous", detail)

    def _exclude_image(self, image: str, kind: str, detail: str) -> None:
        self.excluded_images.add(image)
        self.problems.append(Problem(image, kind, detail, EXCLUDED))

    def _has_no_box(self, item: Item) -> bool:
        """Return whether an annotation can be read and has no box."""
        content = self._content(item)
        return content is not None and content.fault is None and not content.boxes

    def _report_bare_names(self, bare: Sequence[tuple[str, Item]]) -> None:
        """Report matches by bare name; one sentence where one of the two sides has no folders by design."""
        flat_items = [item.folder in ("", ".") and "/" not in item.path for item in self._reader.items]
        flat_images = ["/" not in image for image in self.images]
        if bare and ((all(flat_items) and not any(flat_images)) or (all(flat_images) and not any(flat_items))):
            where = "annotations" if all(flat_items) else "images"
            reason = f"unique on both sides: the {where} lie in one folder"
            matched = counted(len(bare), "annotation was", "annotations were")
            self.notes.append(f"{matched} matched by {'its' if len(bare) == 1 else 'their'} bare name, {reason}.")
            return
        for image, item in bare:
            detail = f"{item.told} is the only annotation of this bare name, and this the only image; no path says so"
            self.problems.append(Problem(image, "matched_by_stem", detail))

    def _report_stems(self) -> None:
        for images in self._matcher.stems():
            for image in images if len(images) > 1 else ():
                if image not in self._files.unread:
                    others = [other for other in images[: _EXAMPLES + 1] if other != image][:_EXAMPLES]
                    more = f" and {len(images) - 1 - len(others)} more" if len(images) - 1 > len(others) else ""
                    self.problems.append(Problem(image, "same_stem", f"as {', '.join(others)}{more}"))

    def _note_class_names(self, class_names: ClassNames | None) -> None:
        """Note which files the class names were read from, and what was odd in their writing."""
        self._class_files = {path.resolve() for path in class_names.files} if class_names else set()
        for path, notes in class_names.files.items() if class_names else ():
            name = path.resolve()
            root = self._files.annotation_root.resolve()
            shown = name.relative_to(root).as_posix() if name.is_relative_to(root) else str(path)
            self.problems += [Problem(shown, kind, detail) for kind, detail in notes]

    def _list_others(self) -> None:
        """List every file that is neither an image to read nor an annotation of the format."""
        for picture, reason in self._files.unread.items():
            kind = "name_not_utf8" if reason == NOT_UTF8 else "kind_not_read"
            self.problems.append(Problem(picture, kind, reason, EXCLUDED))
        hidden = {problem.file for problem in self._files.problems}
        for other in self._files.others:
            if escaped(other.name) not in hidden:
                self.problems.append(self._of_other(other))

    def _what_it_is(self, name: str, suffix: str) -> str:
        if is_archive(name):
            return "an archive, which is not unpacked"
        if suffix in ANNOTATION_SUFFIXES and not is_known_name(name):
            where = "not under --annotations" if suffix == self._kind.suffix else f"not read as {self._fmt}"
            return f"{where}; bears the name of no image"
        return "neither an image nor an annotation"

    def _of_other(self, other: OtherFile) -> Problem:
        suffix = posixpath.splitext(other.name)[1].lower()
        root = self._files.image_root if other.beside_images else self._files.annotation_root
        if root is not None and (root / other.name).resolve() in self._class_files:
            return Problem(other.name, "other_file", "read for the class names")
        if suffix in IMAGE_SUFFIXES:
            return Problem(other.name, "other_file", "an image under --annotations; the one under --images is used")
        pictures = self._matcher.same_stem(posixpath.splitext(other.name)[0]) if suffix in ANNOTATION_SUFFIXES else []
        if is_known_name(other.name) or not pictures:
            return Problem(other.name, "other_file", self._what_it_is(other.name, suffix))
        partners = self._matcher.partners(other.name, beside_images=other.beside_images) or set(pictures)
        action = KEPT if any(picture in self._item_of for picture in partners) else EXCLUDED
        where = "not under --annotations" if suffix == self._kind.suffix else f"not read as {self._fmt}"
        return Problem(other.name, "other_annotation", f"{where}; bears the name of {pictures[0]}", action)


def _as_on_disk(annotation: RawAnnotation, image: str, item: Item) -> RawAnnotation:
    """Return the annotation without the names that were compared here and are known to be the image's."""
    base = posixpath.basename(image)
    name, path = annotation.image_name, annotation.image_path
    if name is not None and (item.entry or fold(name) == fold(base)):
        name = None
    if path is not None and (item.entry or fold(posixpath.basename(plain(path))) == fold(base)):
        path = None
    return replace(annotation, image_name=name, image_path=path)


def _nothing_found(inventory: FileInventory, suffix: str) -> str:
    counts = Counter(posixpath.splitext(other.name)[1].lower() for other in inventory.others)
    kinds = [f"{n:,} {kind}" for kind, n in sorted(counts.items()) if kind in ANNOTATION_SUFFIXES]
    formats = [name for name, kind in ANNOTATION_FORMATS.items() if counts[kind.suffix]]
    instead = f"; there are {', '.join(kinds)} files (--format {' or '.join(formats)}?)" if formats else ""
    return f"no {suffix} file in this folder or below{instead}"


def _names(items: Sequence[Item]) -> str:
    names = [item.told for item in items]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
