"""Kinds of fracture, such as "spiral": their names, definitions and codes, as configs/fracture_types.yaml lists them.

A kind is what a fracture looks like, whichever bone it is in; what is nowhere stated is unknown, which is no kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from fracture_det.resources import find_config
from fracture_det.structures.strict_json import convert_json

TYPES_FILE = "configs/fracture_types.yaml"


class FractureTypeError(ValueError):
    """A list of fracture types is wrong; the message names the file, the field and the value."""


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A code of a terminology. scheme: as DICOM writes it, such as SCT for SNOMED CT. value: the code itself.

    meaning: its text there. relation: `equivalent`, `broader` where the concept there is more general, or `narrower`.
    """

    scheme: str
    value: str
    meaning: str
    relation: Literal["equivalent", "broader", "narrower"] = "equivalent"


class FractureType(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of fracture.

    name: what files and answers call it, lower case. definition: one sentence for readers.
    synonyms: what other data sets call it. codes: of it in terminologies, the preferred first.
    """

    name: str
    definition: str
    synonyms: tuple[str, ...] = ()
    codes: tuple[Code, ...] = ()

    @property
    def title(self) -> str:
        """The name as the first word of a line."""
        return self.name[:1].upper() + self.name[1:]


@dataclass(frozen=True)
class FractureTypes:
    """The kinds of one file, in its order. Raises FractureTypeError where two have one name or synonym."""

    types: tuple[FractureType, ...]

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for kind in self.types:
            for text in {_key(kind.name), *map(_key, kind.synonyms)}:
                if not text or seen.setdefault(text, kind.name) != kind.name:
                    raise FractureTypeError(f"{text!r} stands for both {seen[text]!r} and {kind.name!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(kind.name for kind in self.types)

    def find(self, text: str) -> FractureType | None:
        """Return the kind that `text` names, by name or synonym, whatever its case and hyphens."""
        wanted = _key(text)
        return next((kind for kind in self.types if wanted in {_key(kind.name), *map(_key, kind.synonyms)}), None)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """The content of a file."""

    types: list[FractureType]


@lru_cache(maxsize=8)
def fracture_types(file: str | Path = TYPES_FILE) -> FractureTypes:
    """Return the kinds of a file, read once; without one, those that come with the package.

    Raises FractureTypeError naming file, field and value.
    """
    path = find_config(file)
    try:
        content = convert_json(msgspec.yaml.decode(path.read_bytes()), _File)
        return FractureTypes(tuple(content.types))
    except (OSError, ValueError) as error:
        raise FractureTypeError(f"{path}: {error}") from error


def _key(text: str) -> str:
    """Return what is compared of a name: words in lower case, without "fracture" or "fractures"."""
    words = text.lower().replace("-", " ").replace("_", " ").split()
    return " ".join(word for word in words if word not in ("fracture", "fractures", "fx"))
