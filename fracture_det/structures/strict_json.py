"""JSON into typed objects, with errors that name the field and the value."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
# What msgspec calls a kind of value -> what an error message calls it.
KINDS = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "null": "null",
    "object": "an object",
    "str": "a text",
}
_TYPES = {"array": list, "bool": bool, "float": float, "int": int, "null": type(None), "object": dict, "str": str}


def parse_json(text: str | bytes) -> Any:
    """Return what JSON `text` holds. Raises ValueError for text that is not JSON, NaN and Infinity included."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(f"not JSON: {error}") from error


def convert_json(content: Any, kind: type[T]) -> T:
    """Return the content of a JSON text as a `kind`, such as a msgspec.Struct or a dataclass.

    Raises ValueError with "field: what was expected, got value" for the first field that is missing, of another kind,
    unknown to a Struct with `forbid_unknown_fields`, or refused by the type itself.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error), content)) from error


def _explain(message: str, content: Any) -> str:
    """Return msgspec's message, such as "Expected `str`, got `int` - at `$.name`", with field first and value last."""
    message, _, path = message.partition(" - at `$")
    wanted = re.fullmatch(r"Expected (.*?)(?:, got `?([\w.]+)`?)?", message)
    field, value = _locate(path, content, wanted[2] if wanted else None)
    if wanted is not None:
        expected = re.sub(r"`([^`]+)`", lambda kinds: in_words(kinds[1]), wanted[1])
        return f"{field or 'the file'}: expected {expected}, got {value!r}"
    if odd := re.fullmatch(r"Object (?:missing required|contains unknown) field `(.*)`", message):
        name = f"{field}.{odd[1]}" if field else odd[1]
        return f"{name}: unknown, got {value[odd[1]]!r}" if odd[1] in value else f"{name}: missing"
    return f"{field}: {message}" if field else message


def in_words(kinds: str) -> str:
    """Return what an error message calls msgspec's name of a type, such as "int | null"."""
    return " or ".join(KINDS.get(kind, kind) for kind in kinds.split(" | "))


def _locate(path: str, content: Any, got: str | None) -> tuple[str, Any]:
    """Return the name and the value of a field from msgspec's `path`; of a mapping's values it does not say which."""
    field = ""
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", path):
        if index == "...":
            keys = [key for key, value in content.items() if type(value) is _TYPES.get(got or "")]
            if not keys:
                break
            name, index = keys[0], ""
        field += f"[{index}]" if index else f".{name}"
        content = content[int(index) if index else name]
    return field.removeprefix("."), content
