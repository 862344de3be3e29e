"""Types of fracture, from what annotations and tables state to COCO files and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fracture_det.data.annotation_formats.cvat import parse_cvat
from fracture_det.data.annotation_formats.label_studio import parse_label_studio
from fracture_det.data.annotation_formats.labelme import parse_labelme
from fracture_det.data.annotation_formats.via import parse_via
from fracture_det.data.annotation_formats.voc import parse_voc
from fracture_det.data.annotations import RawAnnotation, RawBox
from fracture_det.data.checks import AnnotationRules, build_record
from fracture_det.data.coco import read_coco, write_coco
from fracture_det.data.image_info import ImageInfo
from fracture_det.data.prepare import read_problems
from fracture_det.data.records import Dataset, ImageRecord
from tests.builders import build_dataset
from tools.prepare_dataset import main

FIRST, SECOND = (10.0, 20.0, 30.0, 40.0), (50.0, 20.0, 80.0, 40.0)


def build(*boxes, rules=None, type=""):
    """Return the record of an image of 80 x 100 px, and (kind, detail) of its problems."""
    annotation = RawAnnotation("a.xml", boxes, size=(80, 100), type=type)
    info = ImageInfo("a.png", (80, 100), 1, "0", None)
    record, problems = build_record(1, info, annotation, rules or AnnotationRules())
    return record, [(problem.kind, problem.detail) for problem in problems]


def test_the_attribute_of_a_box_is_its_type_by_any_of_its_names():
    record, problems = build(RawBox("fracture", FIRST, type="Multifragmentary fracture"), RawBox("fracture", SECOND))

    assert (record.types, problems) == (("comminuted", None), [])


@pytest.mark.parametrize(("second", "types"), [("oblique", (None,)), ("spiral", ("spiral",)), ("unknown", ("spiral",))])
def test_of_two_attributes_that_differ_neither_is_taken(tmp_path, second, types):
    pairs = (("type", "spiral"), ("type", second))
    in_voc = "".join(f"<attribute><name>{name}</name><value>{text}</value></attribute>" for name, text in pairs)
    place = "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    voc = f"<annotation><object><name>fracture</name>{place}<attributes>{in_voc}</attributes></object></annotation>"
    in_cvat = "".join(f'<attribute name="{name}">{text}</attribute>' for name, text in pairs)
    box = f'<box label="fracture" xtl="10" ytl="20" xbr="30" ybr="40">{in_cvat}</box>'
    cvat = f'<annotations><image name="a.png" width="100" height="80">{box}</image></annotations>'
    (tmp_path / "a.xml").write_text(cvat)

    for boxes in (parse_voc("a.xml", voc.encode()).boxes, parse_cvat(tmp_path / "a.xml").annotations[0].boxes):
        record, problems = build(*boxes)
        assert record.types == types
        assert [kind for kind, _ in problems] == (["unknown_type"] if types == (None,) else [])


@pytest.mark.parametrize("text", ["", "unknown", "__undefined__", "None"])
def test_what_nobody_chose_is_no_problem(text):
    record, problems = build(RawBox("fracture", FIRST, type=text))

    assert (record.types, problems) == ((None,), [])


def test_an_unknown_type_is_a_problem_that_names_field_and_value():
    record, problems = build(RawBox("fracture", FIRST, type="torsional"))

    assert record.types == (None,)
    ((kind, detail),) = problems
    assert kind == "unknown_type"
    assert "attribute type of box (10, 20, 30, 40): 'torsional'" in detail


def test_a_class_map_may_name_the_type():
    rules = AnnotationRules(class_map={"twisted": "fracture:spiral", "line": "fracture"})
    record, problems = build(RawBox("twisted", FIRST), RawBox("line", SECOND), rules=rules)

    assert (record.types, record.classes.tolist(), problems) == (("spiral", None), [0, 0], [])


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("fracture:torsion", "class map a=fracture:torsion: 'torsion' is none of"),
        ("tumour:spiral", "one of the classes"),
    ],
)
def test_a_class_map_to_what_is_not_there_is_refused(target, match):
    with pytest.raises(ValueError, match=match):
        AnnotationRules(class_map={"a": target})


def test_class_names_are_types_only_where_that_is_asked_for():
    asked, plain = AnnotationRules(types_from_classes=True), AnnotationRules()
    record, _ = build(RawBox("Oblique Fracture", FIRST), RawBox("fracture", SECOND), rules=asked)

    assert record.types == ("oblique", None)
    assert build(RawBox("Oblique Fracture", FIRST), rules=plain)[1][0][0] == "unknown_class"


def test_a_class_and_an_attribute_that_differ_leave_the_type_unknown():
    rules = AnnotationRules(types_from_classes=True)
    record, problems = build(RawBox("spiral", FIRST, type="oblique"), rules=rules)

    assert record.types == (None,)
    assert problems[0][0] == "types_differ"


@pytest.mark.parametrize(("other", "kind"), [("spiral", "spiral"), ("", "spiral"), ("oblique", None)])
def test_a_box_that_is_marked_twice_has_the_type_that_both_allow(other, kind):
    rules = AnnotationRules(repairs=frozenset({"drop-duplicates"}))
    record, _ = build(RawBox("fracture", FIRST, type="spiral"), RawBox("fracture", FIRST, type=other), rules=rules)

    assert record.types == (kind,)


def test_types_stay_with_their_boxes_where_others_are_left_out():
    rules = AnnotationRules(repairs=frozenset({"drop-box"}))
    outside = RawBox("fracture", (200, 20, 230, 40), type="oblique")
    record, _ = build(outside, RawBox("fracture", SECOND, type="spiral"), rules=rules)

    assert (record.types, record.boxes.tolist()) == (("spiral",), [list(SECOND)])


def test_a_record_needs_a_type_or_none_for_each_box():
    with pytest.raises(ValueError, match=r"a\.png: expected a type, or None, for each of 1 boxes"):
        ImageRecord(1, "a.png", 80, 100, "a", boxes=np.array([FIRST]), classes=[0], types=("spiral", "oblique"))


def test_coco_keeps_the_types_of_boxes_and_of_the_radiograph(tmp_path):
    record = ImageRecord(
        1,
        "a.png",
        80,
        100,
        "a",
        boxes=np.array([FIRST, SECOND]),
        classes=np.array([0, 0]),
        types=("spiral", None),
        attributes={"type": "spiral"},
    )
    write_coco(Dataset((record,), ("fracture",)), tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    (read,) = read_coco(tmp_path / "a.json")

    assert [annotation.get("attributes") for annotation in content["annotations"]] == [{"type": "spiral"}, None]
    assert (read.types, read.image_type, read.attributes) == (("spiral", None), "spiral", {"type": "spiral"})


def test_a_stored_unknown_type_is_noted_with_its_value(tmp_path):
    record = ImageRecord(1, "a.png", 80, 100, "a", boxes=np.array([FIRST]), classes=[0], types=("spiral",))
    write_coco(Dataset((record,), ("fracture",)), tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text().replace('{"type": "spiral"}', '{"type": "torsional"}')
    (tmp_path / "a.json").write_text(text)
    dataset = read_coco(tmp_path / "a.json")

    assert dataset.records[0].types == (None,)
    assert any("torsional" in note for note in dataset.notes)


def test_attributes_that_are_no_object_are_not_lost_in_silence(tmp_path):
    record = ImageRecord(1, "a.png", 80, 100, "a", boxes=np.array([FIRST]), classes=[0], types=("spiral",))
    write_coco(Dataset((record,), ("fracture",)), tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text().replace('{"type": "spiral"}', '[{"name": "type", "value": "spiral"}]')
    (tmp_path / "a.json").write_text(text)
    dataset = read_coco(tmp_path / "a.json")

    assert dataset.records[0].types == (None,)
    assert any("'value': 'spiral'" in note for note in dataset.notes)


@pytest.mark.parametrize(
    "written", ['"type": "spiral"', '"attributes": {"Type": "spiral"}', '"attributes": {"TYPE": "x"}']
)
def test_coco_has_it_beside_the_attributes_or_in_one_of_any_case(tmp_path, written):
    record = ImageRecord(1, "a.png", 80, 100, "a", boxes=np.array([FIRST]), classes=[0], types=("spiral",))
    write_coco(Dataset((record,), ("fracture",)), tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text().replace('"attributes": {"type": "spiral"}', written)
    assert written in text
    (tmp_path / "a.json").write_text(text)
    dataset = read_coco(tmp_path / "a.json")

    assert dataset.records[0].types == ((None,) if "x" in written else ("spiral",))
    assert any("'x'" in note for note in dataset.notes) == ("x" in written)


def test_voc_has_it_in_attributes():
    data = (
        "<annotation><object><name>fracture</name><attributes><attribute><name>type</name><value>spiral</value>"
        "</attribute></attributes><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>"
        "</annotation>"
    )
    assert parse_voc("a.xml", data.encode()).boxes[0].type == "spiral"


def test_cvat_has_it_in_an_attribute_of_the_shape():
    data = (
        '<annotations><image id="0" name="a.png" width="100" height="80"><box label="fracture" xtl="1" ytl="2" xbr="3" '
        'ybr="4"><attribute name="side">left</attribute><attribute name="type">spiral</attribute></box></image>'
        "</annotations>"
    )
    assert parse_cvat("a.xml", data.encode()).annotations[0].boxes[0].type == "spiral"


def test_labelme_has_it_in_attributes():
    shape = {"label": "fracture", "shape_type": "rectangle", "points": [[1, 2], [3, 4]]}
    data = json.dumps({"shapes": [{**shape, "attributes": {"type": "spiral"}}], "imagePath": "a.png"})

    assert parse_labelme("a.json", data.encode()).boxes[0].type == "spiral"


def test_label_studio_has_it_in_a_choice_of_the_region_or_of_the_image():
    place = {"x": 1, "y": 2, "width": 30, "height": 40, "rotation": 0}
    size = {"original_width": 100, "original_height": 80}
    results = [
        {**size, "id": "r", "type": "rectanglelabels", "value": {**place, "rectanglelabels": ["fracture"]}},
        {**size, "id": "r", "from_name": "type", "type": "choices", "value": {**place, "choices": ["spiral"]}},
        {"id": "i", "from_name": "type", "type": "choices", "value": {"choices": ["oblique"]}},
    ]
    task = {"id": 1, "data": {"image": "/data/a.png"}, "annotations": [{"result": results}]}
    (annotation,) = parse_label_studio("a.json", json.dumps([task]).encode()).annotations

    assert annotation.fault is None
    assert (annotation.type, [box.type for box in annotation.boxes]) == ("oblique", ["spiral"])


def test_a_type_of_the_image_without_a_box_is_not_healthy():
    result = {"id": "i", "from_name": "type", "type": "choices", "value": {"choices": ["oblique"]}}
    task = {"id": 1, "data": {"image": "/data/a.png"}, "annotations": [{"result": [result]}]}
    (annotation,) = parse_label_studio("a.json", json.dumps([task]).encode()).annotations

    assert annotation.fault is not None


def test_via_has_it_beside_the_class():
    shape = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
    region = {"shape_attributes": shape, "region_attributes": {"label": "fracture", "type": "spiral"}}
    data = json.dumps({"a.png1": {"filename": "a.png", "size": 1, "regions": [region], "file_attributes": {}}})
    (box,) = parse_via("a.json", data.encode()).annotations[0].boxes

    assert (box.name, box.type) == ("fracture", "spiral")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Radiographs whose XML calls every second fractured one's boxes spiral."""
    folder = tmp_path_factory.mktemp("typed")
    dataset = build_dataset(folder, n_fractured=16, n_healthy=8, seed=2, size=(96, 80))
    spiral = [record.file_name for record in dataset if record.fractured][::2]
    for name in spiral:
        xml = (folder / "annotations" / name).with_suffix(".xml")
        xml.write_text(xml.read_text().replace("<name>fracture</name>", "<name>Spiral fracture</name>"))
    return folder, dataset, spiral


def run(drawn, out, *more):
    folders = {"--images": drawn / "images", "--annotations": drawn / "annotations", "--out": out}
    return main([str(word) for pair in folders.items() for word in pair] + ["--workers", "1", *map(str, more)])


def records_in(out: Path):
    return [record for split in ("train", "val", "test") for record in read_coco(out / f"{split}.json")]


def test_prepare_takes_types_from_classes_and_counts_them(drawn, tmp_path):
    folder, dataset, spiral = drawn
    assert run(folder, tmp_path, "--types-from-classes", "--seed", 3) == 0

    for record in records_in(tmp_path):
        assert record.types == (("spiral" if record.file_name in spiral else None),) * len(record.boxes)
    splits = json.loads((tmp_path / "report.json").read_text())["splits"].values()
    n_spiral = sum(len(record.boxes) for record in dataset if record.file_name in spiral)
    assert sum(split["types"].get("spiral", {"boxes": 0})["boxes"] for split in splits) == n_spiral
    assert "## Types of fracture" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "split.json").read_text())["options"]["rules"]["types_from_classes"] is True


def test_prepare_proposes_the_class_map_with_the_types(drawn, tmp_path, capsys):
    run(drawn[0], tmp_path, "--seed", 3)

    assert "--class-map 'Spiral fracture=fracture:spiral'" in capsys.readouterr().out


def test_prepare_takes_the_type_of_a_radiograph_from_the_table(drawn, tmp_path):
    folder, dataset, _ = drawn
    fractured = [record.file_name for record in dataset if record.fractured]
    table = tmp_path / "types.csv"
    rows = [f"{fractured[0]},Comminuted fracture", f"{fractured[1]},torsional", f"{fractured[2]},"]
    table.write_text("\n".join(["file_name,type", *rows]) + "\n")
    out = tmp_path / "out"
    assert run(folder, out, "--types-from-classes", "--metadata", table, "--seed", 3) == 0

    kinds = {record.file_name: record.attributes.get("type") for record in records_in(out)}
    assert [kinds[name] for name in fractured[:3]] == ["comminuted", None, None]
    (problem,) = [problem for problem in read_problems(out / "problems.csv") if problem.kind == "unknown_type"]
    assert problem.file == fractured[1]
    assert "column type of types.csv: 'torsional'" in problem.detail


def test_a_type_column_of_another_meaning_stays_as_it_is(drawn, tmp_path):
    folder, dataset, _ = drawn
    table = tmp_path / "views.csv"
    table.write_text("file_name,type\n" + "".join(f"{record.file_name},AP\n" for record in dataset))
    out = tmp_path / "out"
    assert run(folder, out, "--types-from-classes", "--metadata", table, "--seed", 3) == 0

    assert {record.attributes["type"] for record in records_in(out)} == {"AP"}
    assert {record.image_type for record in records_in(out)} == {None}
    (problem,) = [problem for problem in read_problems(out / "problems.csv") if problem.kind == "unknown_type"]
    assert problem.file == "views.csv"


def test_a_radiograph_of_a_type_without_a_box_is_not_healthy_in_silence(drawn, tmp_path):
    folder, dataset, _ = drawn
    healthy = next(record.file_name for record in dataset if not record.fractured)
    table = tmp_path / "types.csv"
    table.write_text(f"file_name,type\n{healthy},spiral\n")
    out = tmp_path / "out"
    assert run(folder, out, "--types-from-classes", "--metadata", table, "--seed", 3) == 0

    problems = {problem.file: problem.detail for problem in read_problems(out / "problems.csv")}
    assert "column type says spiral" in problems[healthy]
