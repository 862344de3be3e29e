"""What files that no reader used say of images without annotation: by their names, their text, and what archives hold.

An image of which any such file may hold the annotation is not known to be healthy.
"""

from __future__ import annotations

import bz2
import gzip
import html
import lzma
import posixpath
import re
import tarfile
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fracture_det.data.annotation_formats.text import decode_text
from fracture_det.data.inventory import ANNOTATION_SUFFIXES, UNREAD_IMAGE_SUFFIXES, fold
from fracture_det.data.matching import bare_name, plain
from fracture_det.structures.image_files import IMAGE_SUFFIXES, file_kind

_OFFICE = frozenset((".xlsx", ".xlsm", ".ods", ".docx", ".odt"))
_ZIPS = _OFFICE | {".zip", ".npz", ".cvat"}
_TARS = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
_SINGLE: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# Archives that Python cannot list.
_CLOSED = frozenset((".7z", ".rar", ".zst", ".tzst", ".lz4", ".lzma", ".z", ".arj", ".cab", ".zipx"))
_PICTURES = frozenset(IMAGE_SUFFIXES) | UNREAD_IMAGE_SUFFIXES - {".svg"}
# Neither annotations of images nor tables of them, although they are no text.
_NO_TEXT = ".pdf .doc .ppt .pptx .pt .pth .onnx .lnk .url .exe .dll .so .pyc .ttf .mp4 .avi .mov"
_INERT = frozenset(_NO_TEXT.split())
_LISTS = frozenset(("train.txt", "val.txt", "valid.txt", "test.txt", "trainval.txt"))
_NO_EVIDENCE = frozenset(("thumbs.db", "desktop.ini", ".ds_store", "license", "license.txt", "makefile"))
_MOST_BYTES = 256 * 2**20

# A shorter name, and a number, may be anything in a text.
_LONG = 3
_NUMBERS = re.compile(r"[-+\d.eE\s]*")
_SURE_CELL = re.compile(
    r"(?=[\"']([^\"'\r\n]{1,255})[\"'])|(?=>([^<>]{1,255})<)|^([^\s,;|\t]{1,255})[,;|\t].", re.MULTILINE
)
# What people and programs add to the name of a copy, in front and behind.
_WORD = (
    r"copy|copies|kopie|copie|copia|cópia|kopia|kopija|backup|back ?up|bak|sicherung|old|orig|original|origin|tmp|temp|"
    r"autosave|autosaved|recovered|conflict|conflicted copy|new|final|fixed|fix|corrected|correction|edited|edit|"
    r"revised|rev|reviewed|review|updated|draft|ver|version|v|r|reader|annot|annotation|annotations|annotated|label|"
    r"labels|labeled|labelled|bbox|bboxes|box|boxes|gt|truth|mask|masks|seg|segmentation|roi|todo|save|saved|export"
)
_BEHIND = re.compile(
    rf"(?:[~#$]+|[\s_.\-]*[(\[{{][^)\]}}]*[)\]}}]|[\s_.\-]+(?:{_WORD})(?:[\s_.\-]*\d{{1,8}})?|[\s_.\-]+\d{{1,3}})$"
)
_IN_FRONT = re.compile(
    rf"^(?:[~#$._]+|(?:{_WORD})(?:[\s_.\-]*\d{{1,3}})?[\s_.\-]+(?:of|von|de|di|da|for)?[\s_.\-]*|\(\d+\)[\s_.\-]*)"
)


@dataclass(frozen=True)
class UnusedFile:
    """A file that may hold annotations and was not used.

    name: for messages. path: where it lies. of: the pictures at its relative path, or of its whole name: by its name it
    is of no other. by_name, by_text: False where the name, or the text, is of no interest.
    """

    name: str
    path: Path
    of: frozenset[str] = frozenset()
    by_name: bool = True
    by_text: bool = True


_MASK = re.compile(
    r"(.+?)[\s_.\-]+(?:masks?|seg|segm|segmentations?|labels?|gt|ground_?truth|annotated|bbox|boxes|overlay)\d*"
)


def is_mask_name(name: str) -> str:
    """Return the bare name of the image of which a picture is, by its name, a mask or a drawing; else an empty text."""
    match = _MASK.fullmatch(fold(posixpath.splitext(posixpath.basename(name))[0]))
    return match[1] if match else ""


def is_archive(name: str) -> bool:
    """Return whether a file is, by its suffix, an archive of other files."""
    suffix = posixpath.splitext(name)[1].lower()
    return suffix in _ZIPS - _OFFICE | _CLOSED | _SINGLE.keys() or name.lower().endswith(_TARS)


def is_no_picture(path: Path) -> bool:
    """Return whether a file is, by its suffix and by its first bytes, no picture."""
    try:
        return posixpath.splitext(path.name)[1].lower() not in _PICTURES and file_kind(path) is None
    except OSError:
        return True


def copy_forms(name: str) -> set[str]:
    """Return the bare names, in the form of `fold`, of which a file's name may be that of a copy.

    `hand_a (1).xml`, `Copy of hand_a.xml`, `hand_a - Copy (2).xml.bak` and `~hand_a.xml` have hand_a among them.
    """
    base = fold(plain(posixpath.basename(name), decode=True))
    forms: set[str] = set()
    todo = [base]
    while todo:
        form = todo.pop().strip()
        if form and form not in forms:
            forms.add(form)
            shorter = (posixpath.splitext(form)[0], _BEHIND.sub("", form), _IN_FRONT.sub("", form))
            todo += [text for text in shorter if text != form]
    return forms


def _loose_forms(name: str) -> set[str]:
    """Return the forms in which two names are equal that differ in their dashes and blanks, or in leading zeros."""
    parts = re.findall(r"[^\W\d_]+|\d+", name)
    if not parts:
        return {name}
    return {"".join(parts), "-".join(part.lstrip("0") or "0" if part.isdecimal() else part for part in parts)}


class Mentions:
    """The images without annotation by every name under which a file may mention them.

    images: relative to the image folder. meant: which images of the data set a path with folders names, if any.
    """

    def __init__(self, images: Iterable[str], meant: Callable[[str], set[str]]) -> None:
        self._meant = meant
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_loose: dict[str, list[str]] = defaultdict(list)
        for image in images:
            stem = posixpath.splitext(posixpath.basename(image))[0]
            for form in {fold(stem), fold(plain(stem, decode=True))}:
                self._by_stem[form].append(image)
                for loose in _loose_forms(form):
                    self._by_loose[loose].append(image)
        self._has_short = any(len(stem) < _LONG or stem.isdecimal() for stem in self._by_stem)

    def by_name(self, name: str, of: Collection[str] = ()) -> Iterator[str]:
        """Yield the images of which the file may be the annotation, or a copy of it, by its name."""
        loose = {loose for form in copy_forms(name) for loose in _loose_forms(form)}
        images = {image: None for form in sorted(loose & self._by_loose.keys()) for image in self._by_loose[form]}
        yield from (image for image in images if not of or image in of)

    def in_text(self, text: str) -> Iterator[str]:
        """Yield the images that a text names: as a quoted text, an element, a cell of a table, or as a word.

        A number is the name of an image only in quotes, between tags or in the first cell of a line.
        """
        if "\\u" in text:  # JSON's way to write what is not ASCII
            text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)
        if "&" in text:
            text = html.unescape(text)
        cells = set(re.split(r"[\r\n\t\x00,;|\"'<>=\[\]{}]+", text))
        for cell in cells:
            if _NUMBERS.fullmatch(cell):
                continue
            for word in {cell.strip(), *(word.strip(".:()!?") for word in cell.split())}:
                yield from self._of(word, short=False)
        if self._has_short:
            for match in _SURE_CELL.finditer(text):
                yield from self._of(match[match.lastindex or 0].strip(), short=True)

    def _of(self, written: str, *, short: bool) -> Iterator[str]:
        """Yield the images that a piece of text names. short: also those whose names are numbers or a letter or two."""
        path = plain(written, decode=True)
        stem = bare_name(path)
        if posixpath.splitext(stem)[1] in ANNOTATION_SUFFIXES:
            stem = posixpath.splitext(stem)[0]
        images = self._by_stem.get(stem)
        has_suffix = posixpath.splitext(path)[1].lower() in _PICTURES
        if not images or not (short or has_suffix or (len(stem) >= _LONG and not stem.isdecimal())):
            return
        meant = self._meant(path) if "/" in path else set()
        yield from (image for image in images if not meant or image in meant)


def find_possible_annotations(files: Sequence[UnusedFile], mentions: Mentions) -> tuple[dict[str, str], str]:
    """Return why files may hold the annotations of images, {image: sentence}, and a sentence of those of any image.

    The last is empty where no file may hold annotations without naming their images.
    """
    found: dict[str, str] = {}
    of_any = ""
    for file in files:
        named = list(mentions.by_name(str(file.path), file.of)) if file.by_name else []
        for image in named:
            found.setdefault(image, f"{file.name} may be its annotation or a copy of it, and was not used for it")
        if not file.by_text:
            continue
        images, doubt = _look_into(file, mentions)
        own = bare_name(file.path.stem)
        for image, place in images:
            # What names an image of the file's own name means that in its own folder.
            if not file.of or image in file.of or bare_name(image) != own:
                found.setdefault(image, f"{place} names it, and was not used for it")
        if not (named or file.of):  # else it is a file of one image
            of_any = of_any or doubt
    return found, of_any


def _look_into(file: UnusedFile, mentions: Mentions) -> tuple[list[tuple[str, str]], str]:
    """Return the (image, place) that a file names, and why it may hold annotations of any image, or an empty text."""
    name, suffix = str(file.path).lower(), file.path.suffix.lower()
    base = posixpath.basename(name)
    if (
        ".git" in file.path.parts
        or suffix in _PICTURES
        or base in _NO_EVIDENCE
        or base in _LISTS
        or base.startswith("._")
    ):
        return [], ""
    if suffix == ".txt" and "imagesets" in name.split("/") and _is_list(file.path):  # VOC's lists of the splits
        return [], ""
    if suffix in _CLOSED:
        return [], f"{file.name} is an archive that cannot be looked into, and may hold its annotation"
    try:
        if suffix in _ZIPS and zipfile.is_zipfile(file.path):
            return _look_into_archive(file, _zip_members(file.path), mentions)
        if name.endswith(_TARS):
            return _look_into_archive(file, _tar_members(file.path), mentions)
        if suffix in _SINGLE:
            with _SINGLE[suffix](file.path, mode="rb") as stream:
                return _look_into_data(file.name, posixpath.splitext(name)[0], _read(stream), mentions)
        with file.path.open("rb") as plain_stream:
            return _look_into_data(file.name, name, _read(plain_stream), mentions)
    except _TooLarge:
        return [], f"{file.name} is too large to be looked into, and may hold its annotation"
    except (OSError, EOFError, RuntimeError, ValueError, NotImplementedError, *_DAMAGE) as error:
        return [], f"{file.name} cannot be looked into ({error}), and may hold its annotation"


def _is_list(path: Path) -> bool:
    """Return whether each line of a file is one word, as in lists of the images of a split."""
    try:
        return all(len(line.split()) < 2 for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return False


_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)


class _TooLarge(Exception):
    """A file of more bytes than are looked into."""


def _read(stream: IO[bytes]) -> bytes:
    data = stream.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise _TooLarge
    return data


def _zip_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                needed = posixpath.splitext(member.filename)[1].lower() not in _PICTURES
                if needed and member.flag_bits & 1:
                    raise ValueError(f"{member.filename} in it is encrypted")
                if needed and member.file_size > _MOST_BYTES:
                    raise _TooLarge
                yield member.filename, archive.read(member) if needed else b""


def _tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            if not member.isdir():
                needed = posixpath.splitext(member.name)[1].lower() not in _PICTURES
                if needed and member.size > _MOST_BYTES:
                    raise _TooLarge
                stream = archive.extractfile(member) if needed and member.isfile() else None
                yield member.name, stream.read() if stream else b""


def _look_into_archive(
    file: UnusedFile, members: Iterator[tuple[str, bytes]], mentions: Mentions
) -> tuple[list[tuple[str, str]], str]:
    found, of_any = [], ""
    office = file.path.suffix.lower() in _OFFICE
    for name, data in members:
        suffix = posixpath.splitext(name)[1].lower()
        if suffix in _PICTURES:
            continue
        place = f"{name} in {file.name}"
        if suffix in _ZIPS | _CLOSED | _SINGLE.keys() or name.lower().endswith(_TARS):
            of_any = of_any or f"{place} is an archive in an archive, and may hold its annotation"
            continue
        found += [(image, place) for image in mentions.by_name(name)] if not office else []
        images, doubt = _look_into_data(place, name, data, mentions)
        found += images
        of_any = of_any or ("" if office else doubt)
    return found, of_any


def _look_into_data(place: str, name: str, data: bytes, mentions: Mentions) -> tuple[list[tuple[str, str]], str]:
    text = _text(data)
    is_text = text is not None
    if text is None:  # names may stand in it all the same, in letters of one byte or of two
        text = "\0".join(data.decode(code, "ignore") for code in ("latin-1", "utf-16-le"))
        text = re.sub(r"[\x00-\x1f\x7f-\x9f]+", "\n", text)
    images = [(image, place) for image in mentions.in_text(text)]
    if images or is_text or posixpath.splitext(name)[1].lower() in _INERT | _PICTURES:
        return images, ""
    return [], f"{place} cannot be read as text, and may hold its annotation"


def _text(data: bytes) -> str | None:
    """Return the text of a file, or None for what is no text."""
    try:
        text = decode_text(data)[0]
    except ValueError:
        text = data.decode("cp1252", "replace")
    odd = (
        unicodedata.category(sign) in ("Cc", "Cn", "Co") or sign == "\ufffd" for sign in set(text) - set("\t\n\r\f\x85")
    )
    return None if any(odd) else text
