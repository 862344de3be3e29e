"""One truth through the format of every tool comes back as the same boxes; one bad item excludes its image alone."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from fracture_det.data.annotation_formats.detect import detect_format
from fracture_det.data.annotation_formats.labelme import parse_labelme
from fracture_det.data.annotation_formats.registry import ANNOTATION_FORMATS, ExportFormat
from fracture_det.data.annotations import AnnotationError, ParsedExport
from tests.data.annotation_formats.exporters import EXPORTS, TRUTH, labelme


def written(tmp_path, name):
    file, write = EXPORTS[name]
    (tmp_path / file).write_text(write(TRUTH), encoding="utf-8")
    return tmp_path / file, name.split()[0]


@pytest.mark.parametrize("name", EXPORTS)
def test_every_export_gives_the_truth_back(tmp_path, name):
    path, fmt = written(tmp_path, name)
    assert detect_format(path) == fmt
    assert detect_format(tmp_path) == fmt

    export = ANNOTATION_FORMATS[fmt].parse(path)

    assert not export.problems
    annotations = {annotation.image_path.rpartition("/")[2]: annotation for annotation in export.annotations}
    assert set(annotations) == set(TRUTH)
    for image, (size, boxes) in TRUTH.items():
        annotation = annotations[image]
        assert annotation.fault is None
        assert not annotation.relative
        assert annotation.size in (size, None)
        assert [raw.name for raw in annotation.boxes] == [box[0] for box in boxes]
        np.testing.assert_allclose([raw.box for raw in annotation.boxes], [box[1:] for box in boxes], atol=0.01)


def test_labelme_gives_the_truth_back(tmp_path):
    for image, (size, boxes) in TRUTH.items():
        path = (tmp_path / image).with_suffix(".json")
        path.write_text(labelme(image, size, boxes), encoding="utf-8")
        annotation = parse_labelme(path)
        assert (annotation.image_name, annotation.image_path, annotation.folder) == (image, f"images/{image}", "images")
        assert annotation.size == size
        assert annotation.fault is None
        assert [(raw.name, *raw.box) for raw in annotation.boxes] == boxes
    assert detect_format(tmp_path) == "labelme"


@pytest.mark.parametrize("fmt", sorted(set(ANNOTATION_FORMATS) - {"voc", "yolo", "coco"}))
def test_what_is_not_of_a_format_is_an_annotation_error(tmp_path, fmt):
    texts = [
        "",
        "{",
        "[]",
        "{}",
        "null",
        "5",
        '"a"',
        "[[[]]]",
        "<a/>",
        "<annotations/>",
        "\x00",
        "a,b\n1,2\n",
        "[" * 99_999,
    ]
    for text in texts:
        path = tmp_path / "file"
        path.write_text(text)
        with pytest.raises(AnnotationError):
            ANNOTATION_FORMATS[fmt].parse(path)
    with pytest.raises(AnnotationError):
        ANNOTATION_FORMATS["via"].parse(tmp_path / "missing.json")


_VALUES = [
    None,
    "",
    "a",
    "1e400",
    "nan",
    -1,
    0,
    1.5,
    10**400,
    float("nan"),
    float("inf"),
    True,
    [],
    {},
    [None],
    [[1, 2]],
]


def _mutated(value, rng, chance):
    """Return JSON with some of its values replaced, its keys dropped and its items doubled."""
    if rng.random() < chance:
        return rng.choice(_VALUES)
    if isinstance(value, dict):
        return {key: _mutated(item, rng, chance) for key, item in value.items() if rng.random() > chance / 2}
    if isinstance(value, list):
        items = [_mutated(item, rng, chance) for item in value]
        return items + items[:1] if items and rng.random() < chance else items
    return value


@pytest.mark.parametrize("name", [name for name, (file, _) in EXPORTS.items() if file.endswith(".json")] + ["labelme"])
def test_mutated_json_is_read_or_is_an_annotation_error(tmp_path, name):
    rng = random.Random(name)
    if name == "labelme":
        fmt, content = "labelme", json.loads(labelme("hand_b.png", *TRUTH["hand_b.png"]))
    else:
        fmt, content = name.split()[0], json.loads(EXPORTS[name][1](TRUTH))
    n_read = 0
    for _ in range(400):
        path = tmp_path / "mutated.json"
        path.write_text(json.dumps(_mutated(content, rng, rng.choice([0.01, 0.05, 0.2]))))
        try:
            read = ANNOTATION_FORMATS[fmt].parse(path)
        except AnnotationError:
            continue
        n_read += 1
        if isinstance(ANNOTATION_FORMATS[fmt], ExportFormat):
            assert_no_image_is_healed(read)
    assert n_read > 100


def assert_no_image_is_healed(export: ParsedExport) -> None:
    """Mutation may hide all boxes of an image by emptying its list, but never keep it with a part of them."""
    names = [annotation.image_path for annotation in export.annotations]
    assert len(set(names)) == len(names)
    for annotation in export.annotations:
        assert annotation.fault is None or not annotation.boxes


@pytest.mark.parametrize("name", ["cvat", "via csv", "tensorflow-csv"])
def test_mutated_text_is_read_or_is_an_annotation_error(tmp_path, name):
    rng = random.Random(name)
    text = EXPORTS[name][1](TRUTH)
    pieces = ["", "nan", '"', ",", "<", ">", "9" * 400, "-1", "\x00", "é", "{", "\n", "fracture", ";", "&", "1,2"]
    n_read = 0
    for _ in range(400):
        mutated = text
        for _ in range(rng.choice([1, 1, 3, 8])):
            start = rng.randrange(len(mutated))
            mutated = mutated[:start] + rng.choice(pieces) + mutated[start + rng.choice([0, 1, 5]) :]
        path = tmp_path / "mutated"
        path.write_text(mutated)
        try:
            assert_no_image_is_healed(ANNOTATION_FORMATS[name.split()[0]].parse(path))
            n_read += 1
        except AnnotationError:
            pass
    assert n_read > 20
