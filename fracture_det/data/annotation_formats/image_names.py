"""How exporters name an image: file names, paths of another machine, URLs, names of uploads."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import parse_qs, unquote, urlsplit

from fracture_det.data.annotations import AnnotationError, RawAnnotation

_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")
_LABEL_STUDIO_UPLOAD = re.compile(r"(^|/)data/upload/(\d+/)?")


def plain_path(written: str) -> str:
    """Return a path with forward slashes, without leading `./` and `../`."""
    path = written.strip().replace("\\", "/")
    while path.startswith(("./", "../")):
        path = path.partition("/")[2]
    return path


def referred_path(reference: str) -> tuple[str, tuple[str, ...]]:
    """Return the path that a reference of Label Studio means, and further names that the file may have.

    Understood are uploads, whose stored name begins with eight hexadecimal digits and a dash, `/data/local-files/?d=`,
    s3, gs, azure-blob and http addresses, the `fileuri` of a proxy, and plain paths. An empty path means that the
    reference names no file, such as an image that is itself in the export.
    """
    reference = reference.strip()
    if reference.startswith("data:"):
        return "", ()
    try:
        parts = urlsplit(reference)
        query = parse_qs(parts.query)
    except ValueError:  # such as http://[
        return plain_path(reference), ()
    if "local-files" in parts.path and query.get("d"):
        return plain_path(query["d"][0]), ()
    if query.get("fileuri"):
        try:
            return referred_path(base64.b64decode(query["fileuri"][0], validate=True).decode())
        except (binascii.Error, UnicodeDecodeError, RecursionError):
            return "", ()
    is_address = len(parts.scheme) > 1  # one letter is a drive
    upload = _LABEL_STUDIO_UPLOAD.search(parts.path)
    if not is_address and upload is None:
        return plain_path(reference), ()
    path = unquote(parts.path)
    stored = path[upload.end() :] if upload else path.lstrip("/")
    name = stored.rpartition("/")[2]
    if upload and _UPLOAD.match(name):
        return _UPLOAD.sub("", name, count=1), (name,)
    return stored, ()


class ImageNames:
    """The images of a data set, by the names under which an export may know them.

    file_names: relative to the image folder, with forward slashes.
    """

    def __init__(self, file_names: Iterable[str]) -> None:
        self._paths = {same_name(name) for name in file_names}
        self._of_upload: dict[str, set[str]] = defaultdict(set)
        for path in self._paths:
            self._of_upload[upload_form(path)].add(path.rpartition("/")[2])
        self._bare = {path.rpartition("/")[2] for path in self._paths}

    def path_of(self, annotation: RawAnnotation) -> str:
        """Return by which of its names to look for the image of an export's annotation; its own one by default.

        The stored name of an upload is surer than the name that it had. Label Studio stores `hand a.png` as
        hand_a.png: an upload that fits no image as it is named fits the one image whose name would be stored so.
        """
        path = annotation.image_path or ""
        names = (*annotation.other_names, path) if annotation.other_names else ()
        for name in names:
            if same_name(name) in self._paths:
                return name
        for name in names:
            bare = same_name(name).rpartition("/")[2]
            if bare in self._bare:
                return path if bare == same_name(path).rpartition("/")[2] else name
        uploads = self._of_upload.get(upload_form(path), set()) if names else set()
        return next(iter(uploads)) if len(uploads) == 1 else path


def upload_form(path: str) -> str:
    """Return the bare name as Django, and so Label Studio, stores an upload of it."""
    return re.sub(r"[^-\w.]", "", same_name(path).rpartition("/")[2].strip().replace(" ", "_"))


def same_name(name: str) -> str:
    """Return the key under which two spellings of one name are equal: Unicode's composed form."""
    return unicodedata.normalize("NFC", name)


def one_per_image(annotations: Iterable[RawAnnotation]) -> tuple[RawAnnotation, ...]:
    """Return annotations of which no two have one image_path; those that had are told apart or have a fault.

    Where every namesake has a name of its own beside (an upload's stored name, a subset), it goes by that, and the
    shared name gets an annotation with a fault: an image of that name may be either, and is not healthy.
    """
    of_name: dict[str, list[RawAnnotation]] = defaultdict(list)
    for annotation in annotations:
        of_name[same_name(annotation.image_path or "")].append(annotation)
    result: list[RawAnnotation] = []
    for name, namesakes in of_name.items():
        if len(namesakes) == 1:
            result += namesakes
            continue
        places = ", ".join(annotation.file.rpartition("#")[2] for annotation in namesakes[:4])
        fault = AnnotationError(namesakes[0].file, "image", f"{name} is annotated {len(namesakes)} times: {places}")
        counts = Counter(other for annotation in namesakes for other in set(annotation.other_names))
        own_names = [[other for other in item.other_names if counts[other] == 1] for item in namesakes]
        if all(own_names):
            for item, (path, *others) in zip(namesakes, own_names, strict=True):
                result.append(replace(item, image_path=path, other_names=tuple(others)))
            result.append(RawAnnotation(namesakes[0].file, image_path=name, fault=fault))
        else:
            other_names = tuple(dict.fromkeys(other for item in namesakes for other in item.other_names))
            result.append(RawAnnotation(namesakes[0].file, image_path=name, other_names=other_names, fault=fault))
    return tuple(result)
