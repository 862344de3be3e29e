"""What dicom-validator needs to know of the standard, from the package dicom-standard, without the network.

dicom-validator itself downloads PS3.3 as DocBook; dicom-standard 0.1.0 has its tables (edition 2020b) as JSON. The
conditions are read by dicom-validator's own parser from their texts. What that edition does not know is told by tests.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

CONTENT = "(0040,A730)"
# What a content item has for its value depends on its value type. The tables of the package have them all, without the
# "if and only if"; dsrdump, dciodvfy and highdicom know better, so that here none of them is wanted.
VALUES = {
    *("(0040,A300)", "(0040,A168)", "(0008,1199)", "(0070,0022)", "(0070,0023)", "(3006,0024)", "(0040,A130)"),
    *("(0040,A132)", "(0040,A138)", "(0040,A13A)", "(0040,A050)", "(0040,A160)", "(0040,A124)", "(0040,A123)"),
}


@cache
def standard(sop_classes: tuple[str, ...]) -> Any:
    """Return the DicomInfo of dicom-validator for SOP classes. Raises PackageNotFoundError without dicom-standard."""
    from dicom_validator.spec_reader.condition_parser import ConditionParser
    from dicom_validator.validator.dicom_info import DicomInfo

    dictionary = {
        row["tag"]: {"name": row["name"], "vr": row["valueRepresentation"], "vm": row["valueMultiplicity"]}
        for row in _table("attributes")
    }
    parser = ConditionParser(dictionary)
    identifiers = {row["name"]: row["id"] for row in _table("ciods")}
    titles = {row["id"]: row["ciod"] for row in _table("sops")}
    names = {row["id"]: row["name"] for row in _table("modules")}
    of_classes = {identifiers[titles[uid]]: uid for uid in sop_classes}
    iods: dict[str, Any] = {
        uid: {"title": titles[uid], "modules": {}, "group_macros": {}} for uid in of_classes.values()
    }
    used = set()
    for row in _table("ciod_to_modules"):
        if row["ciodId"] in of_classes:
            module: dict[str, Any] = {"ref": row["moduleId"], "use": row["usage"]}
            if row["conditionalStatement"]:
                module["cond"] = parser.parse(row["conditionalStatement"]).result_dict()
            iods[of_classes[row["ciodId"]]]["modules"][names[row["moduleId"]]] = module
            used.add(row["moduleId"])
    return DicomInfo(dictionary, iods, _modules(used, dictionary, parser))


def _modules(used: Iterable[str], dictionary: dict[str, Any], parser: Any) -> dict[str, Any]:
    modules: dict[str, Any] = {identifier: {} for identifier in used}
    for row in sorted(_table("module_to_attributes"), key=lambda row: row["path"].count(":")):
        if row["moduleId"] not in modules or row["type"] not in ("1", "1C", "2", "2C", "3") or "xx" in row["path"]:
            continue
        place = modules[row["moduleId"]]
        *parents, tag = (f"({part[:4]},{part[4:]})".upper() for part in row["path"].split(":")[1:])
        for parent in parents:
            place = place.setdefault(parent, {"name": "", "type": "3"}).setdefault("items", {})
        is_value = row["moduleId"] == "sr-document-content" and tag in VALUES
        attribute = {"name": dictionary.get(tag, {"name": tag})["name"], "type": "3" if is_value else row["type"]}
        if row["type"] in ("1C", "2C", "3") and not is_value:
            condition = parser.parse(html.unescape(re.sub(r"<[^>]+>", " ", row["description"])))
            if condition.type != "U":
                attribute["cond"] = condition.result_dict()
        place[tag] = attribute | {"items": place[tag]["items"]} if "items" in place.get(tag, {}) else attribute
    for attributes in modules.values():
        if CONTENT in attributes:  # an item of the tree has items of the same kind; the tables tell it once
            attributes[CONTENT].setdefault("items", {})[CONTENT] = attributes[CONTENT]
    return modules


@cache
def _table(name: str) -> list[dict[str, Any]]:
    distribution = metadata.distribution("dicom-standard")
    [path] = [file for file in distribution.files or () if Path(file).name == f"{name}.json"]
    content: list[dict[str, Any]] = json.loads(Path(str(distribution.locate_file(path))).read_text("utf-8"))
    return content
