"""Words beside an image, in its folder, its name or a table, that call it fractured."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

from fracture_det.data.inventory import nfc

_FRACTURED = re.compile(
    r"fract(ured?|ures|uring|ura|uras|urado|urada)|fraktur(en|iert)?|fr[ae]tt?ur[ae]s?|złaman\w*|bruch|brüche|gebrochen|fx|"
    r"broken|positives?|pos|abnormal(ity|ities)?|pathologic(al)?|pathology|diseased?|injur(y|ies|ed)|lesions?"
)
_NEGATED = re.compile(
    r"no|non|not|nicht|kein\w*|ohne|sin|sans|without|un|free|negatives?|neg|healthy|normals?|intact|gesund\w*|"
    r"(un|non|no|not)(fractured?|fractures|broken)"
)
# A folder called after a whole data set says nothing of one image.
_COLLECTION = re.compile(r"(data)?sets?|data|detect\w*|classif\w*|atlas|project|challenge|benchmark|collection")
_LABEL_COLUMNS = re.compile(
    r"labels?|targets?|class(es)?|categor(y|ies)|diagnos[ie]s|findings?|results?|outcome|status|y|gt|truth"
)
_FALSE = ("0", "0.0", "0,0", "false", "no")
_TRUE = ("true", "yes", "y", "ja", "si", "oui", "x")


def is_called_fractured(words: str) -> bool:
    """Return whether words call an image fractured: `Fractured`, `study1_positive`, but not `Non-fractured`."""
    tokens = _tokens(words)
    if any(_NEGATED.fullmatch(token) or _COLLECTION.fullmatch(token) for token in tokens):
        return False
    return any(_FRACTURED.fullmatch(token) for token in tokens)


def fractured_by_name(file_names: Iterable[str], root: str = "") -> dict[str, str]:
    """Return the images of which a folder or the name says that they are fractured: {image: sentence}.

    root: the name of the folder that they all lie in.
    """
    called = {}
    for name in file_names:
        folder, base = posixpath.split(name)
        for part in (root, *folder.split("/")):
            if is_called_fractured(part):
                called[name] = f"it lies in {part}"
        if name not in called and is_called_fractured(posixpath.splitext(base)[0]):
            called[name] = "its name calls it fractured"
    return called


def fractured_by_row(row: Mapping[str, str], columns: Iterable[str]) -> str:
    """Return which column of a table's row says that its image is fractured, or an empty text."""
    for column in columns:
        value = row[column]
        of_label = any(_LABEL_COLUMNS.fullmatch(token) for token in _tokens(column))
        if _tokens(column) and any(_NEGATED.fullmatch(token) for token in _tokens(column)):
            if value.casefold() in _FALSE:  # such as `healthy` 0
                return f"column {column} says {value}"
            continue
        if (of_label and is_called_fractured(value)) or ((of_label or is_called_fractured(column)) and _is_true(value)):
            return f"column {column} says {value}"
    return ""


def _tokens(words: str) -> list[str]:
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", nfc(words))
    return [token for token in re.split(r"[\W_\d]+", words.casefold()) if token]


def _is_true(value: str) -> bool:
    try:
        return float(value.replace(",", ".")) > 0
    except ValueError:
        return value.casefold() in _TRUE
