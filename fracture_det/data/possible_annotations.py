"""Which images without annotation may have one all the same, in a file or an entry that was not used for them."""

from __future__ import annotations

import filecmp
import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fracture_det.data.annotation_formats.image_names import upload_form
from fracture_det.data.annotation_readers import Reader
from fracture_det.data.annotations import RawAnnotation
from fracture_det.data.inventory import UNREAD_IMAGE_SUFFIXES, FileInventory
from fracture_det.data.matching import Matcher
from fracture_det.data.records import EXCLUDED
from fracture_det.data.unused_files import Mentions, UnusedFile, find_possible_annotations, is_mask_name, is_no_picture
from fracture_det.structures.image_files import IMAGE_SUFFIXES


class PossibleAnnotations:
    """Every file and entry of a data set that may annotate an image for which it was not used.

    sure: annotation -> its image, where the relative path says so. used: names of the annotations that are used.
    known_files: real paths of files that are known to be no annotations.
    """

    def __init__(
        self,
        files: FileInventory,
        matcher: Matcher,
        reader: Reader,
        *,
        sure: Mapping[str, str],
        used: Collection[str],
        known_files: Collection[Path],
    ) -> None:
        self._files, self._matcher, self._reader = files, matcher, reader
        self._sure, self._used, self._known_files = sure, used, known_files

    def find(self, file_names: Iterable[str], named: Mapping[str, str]) -> dict[str, str]:
        """Return, for images without annotation, why one that was not used may be theirs: {image: sentence}.

        named: image -> an annotation of another image that names it.
        """
        names = list(file_names)
        if not names:
            return {}
        found = {name: f"{named[name]} names it" for name in names if name in named}
        mentions = Mentions(names, lambda path: self._matcher.named(RawAnnotation("", image_path=path)))
        for item in self._reader.items:
            name = item.path if item.entry else item.name
            for image in mentions.by_name(name, self._of(item.path, self._sure.get(item.name))):
                found.setdefault(image, f"{item.told} may be its annotation, and was not used for it")
        self._compare_uploads(names, found)
        self._compare_masks(names, found)
        files = [file for file in self._unused_files() if file.path.resolve() not in self._known_files]
        by_file, of_any = find_possible_annotations(files, mentions)
        found = by_file | found
        lost = next((problem for problem in self._reader.problems if problem.action == EXCLUDED), None)
        if lost is not None:
            of_any = f"an annotation that {lost.file} should hold may be its own: {lost.detail}"
        return {name: found.get(name) or of_any for name in names if name in found or of_any}

    def _of(self, path: str, partners: str | Iterable[str] | None) -> frozenset[str]:
        """Return the pictures that a file is of by its relative path, else all of its name."""
        of = frozenset([partners] if isinstance(partners, str) else partners or ())
        return of or frozenset(self._matcher.same_stem(path))

    def _unused_files(self) -> Iterator[UnusedFile]:
        """Yield the files that may hold annotations and are not used."""
        files = self._files
        for item in self._reader.items:
            if not item.entry and item.name not in self._used:
                of = self._of(item.path, self._sure.get(item.name))
                yield UnusedFile(item.name, files.annotation_root / item.name, of)
        for other in files.others:
            root = files.image_root if other.beside_images else files.annotation_root
            path = (root or files.annotation_root) / other.name
            if posixpath.splitext(other.name)[1].lower() in IMAGE_SUFFIXES and not other.beside_images:
                for image in self._matcher.partners(other.name, beside_images=False):
                    if not self._is_copy(image, path):
                        yield UnusedFile(f"{other.name}, another picture of its name,", path, frozenset((image,)))
            elif posixpath.splitext(other.name)[1].lower() not in (*IMAGE_SUFFIXES, *UNREAD_IMAGE_SUFFIXES):
                of = self._of(
                    posixpath.splitext(other.name)[0],
                    self._matcher.partners(other.name, beside_images=other.beside_images),
                )
                yield UnusedFile(other.name, path, of)
        for name in files.unread:
            root = files.annotation_root
            if files.image_root is not None and (files.image_root / name).is_file():
                root = files.image_root
            if is_mask_name(name) and not self._matcher.same_stem(posixpath.splitext(name)[0])[1:]:
                yield UnusedFile(name, root / name, by_text=False)
            elif is_no_picture(root / name):
                of = frozenset(self._matcher.partners(name, beside_images=True) - {name})
                yield UnusedFile(name, root / name, of)
        for path in files.siblings:
            yield UnusedFile(f"{path.name}, beside {files.annotation_files[0]},", path, by_name=False)
        for problem in files.problems:
            if problem.kind == "link_not_followed" and problem.action == EXCLUDED:
                yield UnusedFile(problem.file, Path(problem.file), by_text=False)

    def _is_copy(self, image: str, path: Path) -> bool:
        try:
            return filecmp.cmp((self._files.image_root or Path()) / image, path, shallow=False)
        except OSError:
            return False

    def _compare_masks(self, names: Sequence[str], found: dict[str, str]) -> None:
        """Note the images that are, by their names, masks or drawings of others, and these others."""
        for name in names:
            of = [other for other in self._matcher.same_stem(is_mask_name(name)) if other != name]
            if of:
                found.setdefault(name, f"by its name it is a mask or a drawing of {of[0]}")
            for image in set(of).intersection(names):
                found.setdefault(image, f"{name} is, by its name, a mask or a drawing of it")

    def _compare_uploads(self, names: Sequence[str], found: dict[str, str]) -> None:
        """Note the images without annotation whose name an upload may have been stored under (`hand a` as hand_a)."""
        of_form: dict[str, list[str]] = defaultdict(list)
        for name in names:
            of_form[upload_form(name)].append(name)
        for item in self._reader.items:
            if item.entry and self._reader.content(item).other_names:
                for image in of_form.get(upload_form(item.path), ()):
                    found.setdefault(image, f"{item.told} may be its annotation: uploads are stored so")
