"""The types of fracture that annotations and tables state, such as "spiral": known by name or synonym, or a problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fracture_det.data.records import TYPE_ATTRIBUTE, ImageRecord, Problem
from fracture_det.structures.fracture_types import TYPES_FILE, fracture_types

UNKNOWN_TYPE = "unknown_type"
# What annotation tools write where nobody chose a value.
_NOT_STATED = ("", "__undefined__", "n/a", "nan", "none", "null", "undefined", "unknown")


def written_type(attributes: object) -> str:
    """Return the text of the attribute `type`, in any case, of what an annotation tool marked; empty where it has none.

    Attributes that are no object, such as a list of names and values, are returned as text: no type, and so reported.
    """
    if not isinstance(attributes, Mapping):
        return str(attributes).strip() if attributes else ""
    values = [value for name, value in attributes.items() if str(name).lower() == TYPE_ATTRIBUTE and value is not None]
    return joined_types(map(str, values))


def joined_types(texts: Iterable[str]) -> str:
    """Return the texts of all attributes `type` of one box as one text: of several that differ none is known."""
    return ", ".join(dict.fromkeys(text.strip() for text in texts if states_type(text)))


def states_type(text: str) -> bool:
    """Return whether a text is meant to name a type, rather than that it is not known."""
    return text.strip().lower() not in _NOT_STATED


def known_type(text: str) -> str | None:
    """Return the name of the type that a text means, or None."""
    kind = fracture_types().find(text)
    return None if kind is None else kind.name


def no_type(text: str) -> str:
    """Return the words that say that `text` is no type of the list."""
    return f"{text!r} is none of the types of fracture {', '.join(fracture_types().names)} ({TYPES_FILE})"


def split_target(target: str, class_names: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the class and the type of a target of --class-map, `fracture` or `fracture:spiral`.

    Raises ValueError, in words, where either is unknown.
    """
    if target in class_names:
        return target, None
    name, separator, text = target.rpartition(":")
    if not separator or name not in class_names:
        raise ValueError(f"expected one of the classes {', '.join(class_names)}, or one with a type (fracture:spiral)")
    kind = known_type(text)
    if kind is None:
        raise ValueError(no_type(text))
    return name, kind


def use_type_column(attributes: Mapping[str, dict[str, str]], table: str) -> tuple[dict[str, str], list[Problem]]:
    """Return the type of each image by the column `type` of a table, and the problems with its values.

    attributes: the columns of each image, in which a type gets the name of the list, in place; what is none is taken
    out. A column without a single type means something else, and is left as it is.
    """
    written = {file: of_file.get(TYPE_ATTRIBUTE, "") for file, of_file in attributes.items()}
    stated = {file: text for file, text in written.items() if states_type(text)}
    known = {file: kind for file, text in stated.items() if (kind := known_type(text)) is not None}
    if stated and not known:
        detail = f"column type: {no_type(next(iter(stated.values())))}, nor is any other; it is no type of fracture"
        return {}, [Problem(table, UNKNOWN_TYPE, detail)]
    problems = []
    for file, text in written.items():
        if file in known:
            attributes[file][TYPE_ATTRIBUTE] = known[file]
            continue
        attributes[file].pop(TYPE_ATTRIBUTE, None)
        if file in stated:
            detail = f"column type of {table}: {no_type(text)}; the type of the radiograph counts as unknown"
            problems.append(Problem(file, UNKNOWN_TYPE, detail))
    return known, problems


def count_types(records: Iterable[ImageRecord]) -> dict[str, dict[str, int]]:
    """Return {type: {"boxes": how many, "images": how many of which it is said as a whole}}."""
    counts = {name: {"boxes": 0, "images": 0} for name in fracture_types().names}
    none = {"boxes": 0, "images": 0}
    for record in records:
        for kind in record.types:
            if kind is not None:
                counts.setdefault(kind, dict(none))["boxes"] += 1
        if record.image_type is not None:
            counts[record.image_type]["images"] += 1
    return {name: count for name, count in counts.items() if any(count.values())}
