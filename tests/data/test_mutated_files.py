"""Five thousand broken files: none ends in a traceback, and none makes an image with a readable box healthy."""

from __future__ import annotations

import copy
import json
import math
import random
import re

import pytest

from fracture_det.data.checks import REPAIRS, AnnotationRules
from fracture_det.data.coco import read_coco
from fracture_det.data.formats import build_dataset
from fracture_det.data.image_info import ImageInfo
from fracture_det.data.pairing import open_annotations

NAMES = [f"image{number}.png" for number in range(4)]
INFOS = [ImageInfo(name, (240, 200), 1, "0", None) for name in NAMES]
CLASSES = ("fracture", "line")
STRANGE = [
    None, True, False, 0, 1, -1, 5, 99, 0.5, 1e308, -1e308, 10**30, 10**400, float("inf"), float("-inf"), float("nan"),
    "", "0", "1", "1e999", "nan", "0,5", "1,234", "fracture", "\ud83d", "a" * 300, [], [[]], [1], [[1, 2], 3], {},
    {"id": 1}, {"bbox": [1, 2, 30, 40]}, [1, 2, 30, 40], ["1", "2", "30", "40"],
]  # fmt: skip


def coco_content():
    boxes = [[40, 50, 60, 30], [10, 10, 50, 80], [100, 100, 30, 30], [5, 120, 40, 40]]
    return {
        "images": [
            {"id": number, "file_name": name, "height": 240, "width": 200, "attributes": {"view": "ap"}}
            for number, name in enumerate(NAMES)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": number % 3,  # the last image is healthy
                "category_id": 1 + number % 2,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "segmentation": [[box[0], box[1], box[0] + 9, box[1], box[0], box[1] + 9]] if number % 2 else [],
                "attributes": {"rotation": 0.0},
            }
            for number, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "fracture"}, {"id": 2, "name": "line"}],
    }


def places(content, path=()):
    """Yield the path of every value in a JSON content."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutate_content(content, dice):
    """Change one to three values: deleted, replaced, repeated, renamed, nested or written as text."""
    content = copy.deepcopy(content)
    for _ in range(dice.randint(1, 3)):
        # Chosen by depth first, so that the three lists themselves are not seldom.
        paths = list(places(content))
        depth = dice.choice(sorted({len(path) for path in paths}))
        *parents, key = dice.choice([path for path in paths if len(path) == depth])
        holder = content
        for parent in parents:
            holder = holder[parent]
        how = dice.choice(["delete", "replace", "replace", "repeat", "nest", "text", "rename"])
        if how == "delete":
            del holder[key]
        elif how == "replace":
            holder[key] = copy.deepcopy(dice.choice(STRANGE))
        elif how == "nest":
            holder[key] = [holder[key]]
        elif how == "text":
            holder[key] = str(holder[key])
        elif isinstance(holder, list):
            holder.insert(dice.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        else:
            holder[f"{key}_"] = holder.pop(key)
    return content


def mutate_bytes(data, dice):
    """Change one to four bytes: flipped, removed, inserted, cut off, or the encoding of all of them."""
    data = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(data)) if data else 0
        how = dice.choice(["flip", "flip", "remove", "insert", "digit", "cut"])
        if how == "insert" or not data:
            data[place:place] = dice.choice(
                [b"\0", b" ", b"\n", b"-", b"9", b",", b".", b"e", b"\xff", b"<", b"\xef\xbb\xbf"]
            )
        elif how == "flip":
            data[place] ^= 1 << dice.randrange(8)
        elif how == "digit":
            data[place] = dice.choice(b"0123456789")
        elif how == "remove":
            del data[place : place + dice.randint(1, 6)]
        elif dice.random() < 0.2:
            del data[place:]
    if dice.random() < 0.1:
        return bytes(data).decode("utf-8", "replace").encode(dice.choice(["utf-16", "utf-16-le", "utf-8-sig"]))
    return bytes(data)


def mutate_words(text, dice):
    """Change one to three words or numbers of a text."""
    for _ in range(dice.choice([1, 1, 2, 3])):
        words = list(re.finditer(r"[\w.]+", text))
        word = dice.choice(words)
        new = dice.choice([
            "", "inf", "nan", "-5", "1e999", "0", "9" * 400, "0,5", "1,234", "object", "bndbox", "xmin", "polygon",
            "a b", "٣", "part", "2", "0.5", "70", "fracture", word[0] * 2, word[0].upper(), f" {word[0]} ",
            f"-{word[0]}",
        ])  # fmt: skip
        everywhere = dice.random() < 0.5  # opening and closing tags alike
        text = text.replace(word[0], new) if everywhere else text[: word.start()] + new + text[word.end() :]
        if not re.search(r"[\w.]", text):
            break
    return text


def records_of(folder, path, fmt, dice):
    """Read mutated annotations through the door of prepare; return the records and the problems."""
    repairs = frozenset(dice.sample(sorted(REPAIRS), 2)) - {"drop-orphans"} if dice.random() < 0.3 else frozenset()
    rules = AnnotationRules(CLASSES, repairs=repairs)
    try:
        source = open_annotations(path, fmt, NAMES, yolo_names=CLASSES if fmt == "yolo" else None)
    except ValueError as error:
        named(error, folder)
        return []
    checked = build_dataset(INFOS, source, rules, missing_is_healthy=False)
    for record in checked.dataset:
        corners = record.boxes.tolist()
        assert all(0 <= x0 < x1 <= 200 and 0 <= y0 < y1 <= 240 for x0, y0, x1, y1 in corners)
    assert all(problem.file and problem.detail for problem in checked.problems)
    return checked.dataset.records


def named(error, path):
    assert str(path) in str(error)


def boxes_of(items):
    """Yield every object of nested lists that holds four finite numbers as `bbox`."""
    if isinstance(items, dict):
        box = items.get("bbox")
        if isinstance(box, list) and len(box) == 4 and all(is_number(value) for value in box):
            yield items
    for item in items if isinstance(items, list) else ():
        yield from boxes_of(item)


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 and math.isfinite(value)


@pytest.mark.parametrize("seed", range(20))
def test_mutated_coco(tmp_path, seed):
    dice = random.Random(seed)
    path = tmp_path / "a.json"
    opened = 0
    for number in range(100):
        content = mutate_content(coco_content(), dice)
        data = json.dumps(content, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
        if number % 4 == 3:
            data = mutate_bytes(data, dice)
        path.write_bytes(data)
        records = records_of(tmp_path, path, "coco", dice)
        try:
            stored = read_coco(path).records
        except ValueError as error:
            named(error, path)
            stored = ()
        opened += bool(records)
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            continue
        for record in (*records, *stored):
            if not record.fractured:
                assert not possible_boxes(content, record.file_name), (record.file_name, data)
    assert opened > 30


def possible_boxes(content, file_name):
    """Return the readable boxes of a COCO content that are of the image, or of none."""
    images = [image for image in content["images"] if isinstance(image, dict)]
    own = {str(image.get("id")) for image in images if image.get("file_name") == file_name}
    others = {str(image.get("id")) for image in images} - own
    return [box for box in boxes_of(content["annotations"]) if str(box.get("image_id")) not in others]


VOC = """<annotation>
\t<folder>images</folder>
\t<filename>image0.png</filename>
\t<size><width>200</width><height>240</height><depth>3</depth></size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>fracture</name>
\t\t<difficult>0</difficult>
\t\t<bndbox><xmin>40</xmin><ymin>50</ymin><xmax>100</xmax><ymax>80</ymax></bndbox>
\t</object>
\t<object>
\t\t<name>line</name>
\t\t<bndbox><xmin>10</xmin><ymin>100</ymin><xmax>60</xmax><ymax>140</ymax></bndbox>
\t</object>
</annotation>
"""
CORNERS = re.compile(
    r"<xmin>\s*\d+\s*</xmin>\s*<ymin>\s*\d+\s*</ymin>\s*<xmax>\s*\d+\s*</xmax>\s*<ymax>\s*\d+\s*</ymax>"
)
YOLO = "0 0.35 0.27 0.30 0.125\n1 0.2 0.5 0.1 0.2\n0 0.2 0.2 0.5 0.25 0.4 0.3\n"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("fmt", "suffix", "text"), [("voc", ".xml", VOC), ("yolo", ".txt", YOLO)])
def test_mutated_files_of_one_image(tmp_path, fmt, suffix, text, seed):
    dice = random.Random(seed)
    path = (tmp_path / "image0.png").with_suffix(suffix)
    used = 0
    for number in range(150):
        if number % 2:
            data = mutate_bytes(text.encode(), dice)
        else:
            data = mutate_words(text, dice).encode(dice.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
        path.write_bytes(data)
        for record in records_of(tmp_path, tmp_path, fmt, dice):
            used += 1
            readable = CORNERS if fmt == "voc" else re.compile(r"\d \S*\d")
            assert record.fractured or not readable.search(data.decode("utf-8", "replace")), data
    assert used > 5
