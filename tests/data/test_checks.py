"""Every kind of problem is found, told with its file, and costs an image or not as documented."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fracture_det.data.annotations import AnnotationError, RawAnnotation, RawBox
from fracture_det.data.checks import REPAIR_OF_FAULT, REPAIRS, AnnotationRules, build_record, check, check_record
from fracture_det.data.formats import build_dataset
from fracture_det.data.image_info import ImageInfo, read_image_infos
from fracture_det.data.pairing import open_annotations
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.image_files import list_image_names
from tests.builders import labelimg_xml, write_image

GOOD = (10, 20, 30, 40)


def read(
    *boxes, size=(80, 100), orientation=1, stated=(80, 100), repairs=(), class_map=None, name="fracture", **fields
):
    """Assemble one image of `size` (height, width) with the given boxes; return the boxes kept, and the problems."""
    annotation = RawAnnotation("a.xml", tuple(RawBox(name, box) for box in boxes), size=stated, **fields)
    info = ImageInfo("a.png", size, orientation, "0", None)
    record, problems = build_record(
        1, info, annotation, AnnotationRules(("fracture",), class_map or {}, frozenset(repairs))
    )
    kept = None if record is None else [tuple(box) for box in record.boxes.tolist()]
    return kept, [(problem.kind, problem.action) for problem in problems]


def test_a_good_box_is_kept_as_written():
    assert read(GOOD) == ([GOOD], [])


def test_no_box_is_a_healthy_image():
    assert read() == ([], [])


@pytest.mark.parametrize(
    ("box", "kind", "repair", "mended"),
    [
        ((90, 20, 50, 40), "box_reversed", "swap", (50, 20, 90, 40)),
        ((50, 40, 90, 20), "box_reversed", "swap", (50, 20, 90, 40)),
        ((-5, 20, 30, 40), "box_outside", "clip", (0, 20, 30, 40)),
        ((10, 20, 101, 81), "box_outside", "clip", (10, 20, 100, 80)),
        ((100, 20, 130, 40), "box_outside", "drop-box", None),
        ((10, 20, 10, 40), "box_no_area", "drop-box", None),
        ((10, 20, 30, 20), "box_no_area", "drop-box", None),
        ((10, float("nan"), 30, 20), "box_not_finite", "drop-box", None),
        ((10, 20, 10.5, 40), "box_tiny", "drop-box", None),
        ((50, 20, 90, 20.5), "box_tiny", "drop-box", None),
        (GOOD, "duplicate_box", "drop-duplicates", None),
        ((10.004, 20, 30, 40), "duplicate_box", "drop-duplicates", None),
    ],
)
def test_a_bad_box_costs_the_image_unless_its_repair_is_asked_for(box, kind, repair, mended):
    assert read(GOOD, box) == (None, [(kind, "excluded")])
    assert read(GOOD, box, repairs=[repair]) == ([GOOD] if mended is None else [GOOD, mended], [(kind, "repaired")])
    other = sorted(set(REPAIRS) - {repair})
    assert read(GOOD, box, repairs=other) == (None, [(kind, "excluded")])


def test_boxes_that_all_lie_between_0_and_1_are_asked_whether_they_are_fractions():
    annotation = RawAnnotation("a.json", (RawBox("fracture", (0.2, 0.2, 0.5, 0.4)), RawBox("fracture", (0, 0, 1, 1))))
    info = ImageInfo("a.png", (80, 100), 1, "0", None)
    record, problems = build_record(1, info, annotation, AnnotationRules())
    assert record is None
    tiny = [problem.detail for problem in problems if problem.kind == "box_tiny"]
    assert len(tiny) == 2
    assert all("were fractions of the image taken for pixels?" in detail for detail in tiny)
    assert read((0, 0, 1, 1), GOOD) == ([(0, 0, 1, 1), GOOD], [])  # beside a box in pixels, one of 1 px
    relative = RawAnnotation("a.txt", (RawBox("fracture", (0.2, 0.2, 0.5, 0.4)),), relative=True)
    assert build_record(1, info, relative, AnnotationRules())[1] == []


def test_boxes_that_nearly_coincide_are_reported_and_kept():
    near = (10, 20, 30, 41)
    assert read(GOOD, near) == ([GOOD, near], [("near_duplicate_box", "kept")])
    assert read(GOOD, (10, 20, 30, 48)) == ([GOOD, (10, 20, 30, 48)], [])
    boxes = (RawBox("angle", GOOD), RawBox("line", GOOD))
    info = ImageInfo("a.png", (80, 100), 1, "0", None)
    annotation = RawAnnotation("a", boxes, size=(80, 100))
    record, problems = build_record(1, info, annotation, AnnotationRules(("angle", "line")))
    assert len(record.boxes) == 2
    assert [problem.kind for problem in problems] == ["near_duplicate_box"]
    one_class = AnnotationRules(("fracture",), {"angle": "fracture", "line": "fracture"})
    record, problems = build_record(1, info, annotation, one_class)
    assert record is None
    assert [problem.kind for problem in problems] == ["duplicate_box"]


@pytest.mark.parametrize("copies", [2, 3, 5])
def test_of_a_box_marked_several_times_one_is_kept_on_request(copies):
    kept, problems = read(*[GOOD] * copies, repairs=["drop-duplicates"])
    assert kept == [GOOD]
    assert problems == [("duplicate_box", "repaired")] * (copies - 1)


def test_a_rotated_box_costs_the_image_unless_the_box_around_its_corners_is_asked_for():
    info = ImageInfo("a.png", (80, 100), 1, "0", None)

    def rotated(degrees, *repairs):
        annotation = RawAnnotation("a", (RawBox("fracture", (40, 30, 60, 40), rotation=degrees),), size=(80, 100))
        record, problems = build_record(1, info, annotation, AnnotationRules(repairs=frozenset(repairs)))
        return None if record is None else record.boxes[0].round(9).tolist(), [(p.kind, p.action) for p in problems]

    assert rotated(45) == (None, [("box_rotated", "excluded")])
    assert rotated(0) == rotated(180) == rotated(-360) == ([40, 30, 60, 40], [])
    assert rotated(90, "rotate") == ([45, 25, 55, 45], [("box_rotated", "repaired")])
    reach = (20 + 10) / 2 / 2**0.5  # half of (w + h) / sqrt 2, about the centre (50, 35)
    for degrees in (45, -45, 135):
        assert rotated(degrees, "rotate")[0] == pytest.approx([50 - reach, 35 - reach, 50 + reach, 35 + reach])


def test_crowd_regions_are_no_boxes_and_alone_no_healthy_image():
    region = RawBox("fracture", (40, 30, 60, 40), crowd=True)
    info = ImageInfo("a.png", (80, 100), 1, "0", None)
    both = RawAnnotation("a", (RawBox("fracture", GOOD), region), size=(80, 100))
    record, problems = build_record(1, info, both, AnnotationRules())
    assert (record.boxes.tolist(), record.crowd_boxes.tolist(), problems) == ([[*GOOD]], [[40, 30, 60, 40]], [])
    alone = RawAnnotation("a", (region,), size=(80, 100))
    record, problems = build_record(1, info, alone, AnnotationRules())
    assert (record, [problem.kind for problem in problems]) == (None, ["only_crowd"])
    record, problems = build_record(1, info, alone, AnnotationRules(), stored=True)
    assert (len(record.boxes), len(record.crowd_boxes), record.fractured, problems) == (0, 1, True, [])


def test_a_fault_excludes_its_image_and_notes_do_not():
    fault = AnnotationError("a.json", "annotations[3]", "bbox: missing")
    assert read(GOOD, fault=fault) == (None, [("unreadable_annotation", "excluded")])
    assert read(fault=fault) == (None, [("unreadable_annotation", "excluded")])
    assert read(GOOD, notes=(("id_as_text", "0"),)) == ([GOOD], [("id_as_text", "kept")])


@pytest.mark.parametrize("kind", REPAIR_OF_FAULT)
def test_some_faults_are_lifted_on_request(kind):
    fault = AnnotationError("a.json", "id", "0", kind=kind)
    assert read(GOOD, fault=fault) == (None, [(kind, "excluded")])
    assert read(GOOD, fault=fault, repairs=[REPAIR_OF_FAULT[kind]]) == ([GOOD], [(kind, "repaired")])


def test_stored_truth_is_checked_by_the_same_rules_without_offering_repairs():
    record = ImageRecord(1, "a.png", 80, 100, "g", boxes=np.array([[30, 20, 10, 40.0]]), classes=np.zeros(1, int))
    (problem,) = check_record(record, ("fracture",))
    assert (problem.file, problem.kind, problem.action) == ("a.png", "box_reversed", "excluded")
    assert problem.detail == "box (30, 20, 10, 40) ends before it begins"


def test_an_image_whose_last_box_is_left_out_does_not_become_healthy():
    kept, problems = read((10, 20, 10, 40), repairs=["drop-box"])
    assert kept is None
    assert problems == [("box_no_area", "repaired"), ("no_box_left", "excluded")]


def test_rounding_of_six_decimals_is_no_finding_but_more_is():
    assert read((-0.009, 0, 100.009, 80)) == ([(0, 0, 100, 80)], [])
    assert read((-0.02, 0, 100, 80))[1] == [("box_outside", "excluded")]


def test_class_names_are_mapped_and_unknown_ones_reported():
    assert read(GOOD, name="angle", class_map={"angle": "fracture"}) == ([GOOD], [])
    assert read(GOOD, name="angle") == (None, [("unknown_class", "excluded")])
    assert read(GOOD, name="Fracture") == (None, [("unknown_class", "excluded")])
    assert read(GOOD, name="angle", repairs=["drop-unknown"])[1][-1] == ("no_box_left", "excluded")


def test_a_class_map_to_a_class_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="angle=break: expected one of the classes fracture"):
        AnnotationRules(("fracture",), {"angle": "break"})
    with pytest.raises(ValueError, match="repair 'magic'"):
        AnnotationRules(repairs=frozenset(["magic"]))


def test_difficult_boxes_are_used_and_reported_unless_dropped():
    annotation = RawAnnotation("a.xml", (RawBox("fracture", GOOD), RawBox("fracture", (50, 20, 90, 40), True)))
    info = ImageInfo("a.png", (80, 100), 1, "0", None)
    record, problems = build_record(1, info, annotation, AnnotationRules())
    assert len(record.boxes) == 2
    assert ("difficult", "kept") in [(p.kind, p.action) for p in problems]
    record, problems = build_record(1, info, annotation, AnnotationRules(repairs=frozenset(["drop-difficult"])))
    assert len(record.boxes) == 1
    assert ("difficult", "repaired") in [(p.kind, p.action) for p in problems]


def test_stated_sizes_that_are_zero_missing_or_wrong():
    assert read(GOOD, stated=(0, 0)) == ([GOOD], [("size_zero", "kept")])
    assert read(GOOD, stated=None) == ([GOOD], [("size_missing", "kept")])
    assert read(GOOD, stated=(160, 200)) == (None, [("size_mismatch", "excluded")])
    assert read(GOOD, stated=(160, 200), repairs=["rescale"]) == ([(5, 10, 15, 20)], [("size_mismatch", "repaired")])
    assert read(stated=(160, 200)) == ([], [("size_mismatch", "kept")])


def test_an_image_turned_by_exif_has_its_boxes_upright_or_is_reported():
    upright = {"size": (100, 80), "orientation": 6}
    assert read(GOOD, stated=(100, 80), **upright) == ([GOOD], [("exif_orientation", "kept")])
    assert read(GOOD, stated=(80, 100), **upright) == (None, [("exif_size_unturned", "excluded")])
    assert read(stated=(80, 100), **upright) == ([], [("exif_size_unturned", "kept")])
    kept, problems = read(GOOD, stated=(80, 100), repairs=["turn"], **upright)
    assert kept == [(40, 10, 60, 30)]  # 90 degrees clockwise: x = 80 - y
    assert problems == [("exif_size_unturned", "repaired")]
    assert read(GOOD, stated=(7, 9), **upright)[1][-1] == ("size_mismatch", "excluded")


def test_names_that_differ_from_the_image_are_reported():
    assert read(GOOD, image_name="b.png")[1] == [("wrong_filename", "kept")]
    assert read(GOOD, image_name="a")[1] == []
    assert read(GOOD, image_path="C:\\scans\\b.png")[1] == [("wrong_path", "kept")]
    assert read(GOOD, image_path="C:\\scans\\a.png")[1] == []


@pytest.fixture
def folder(tmp_path):
    """A folder of images and XML with everything wrong that concerns whole files."""
    rng = np.random.default_rng(0)

    def image(name):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
        return path

    def xml(name, image_path, text=None):
        path = tmp_path / "annotations" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or labelimg_xml(image_path, (40, 50, 3), [("fracture", (1, 2, 9, 9))]), encoding="utf-8")

    for name in ("good", "röntgen", "dotted.name", "truncated", "empty", "text", "broken_xml", "attack"):
        xml(f"{name}.xml", image(f"{name}.png"))
    image("unlabelled.png")
    xml("gone.xml", tmp_path / "images" / "gone.png")
    (tmp_path / "images" / "truncated.png").write_bytes((tmp_path / "images" / "good.png").read_bytes()[:-900])
    (tmp_path / "images" / "empty.png").write_bytes(b"")
    (tmp_path / "images" / "text.png").write_text("not an image")
    xml("broken_xml.xml", None, "<annotation>")
    xml("attack.xml", None, "<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><annotation>&e;</annotation>")
    # One stem in two folders: the XML that says which is used, the one that does not is not.
    for stem in ("clear", "unclear"):
        image(f"left/{stem}.png"), image(f"right/{stem}.png")
    xml("clear.xml", tmp_path / "images" / "left" / "clear.png")
    xml("unclear.xml", tmp_path / "images" / "elsewhere" / "unclear.png")
    # One image with two annotations in other folders, and one with a second beside its own.
    image("twice.png"), image("own.png")
    xml("a/twice.xml", tmp_path / "images" / "twice.png"), xml("b/twice.xml", tmp_path / "images" / "twice.png")
    xml("own.xml", tmp_path / "images" / "own.png"), xml("a/own.xml", tmp_path / "images" / "own.png")
    return tmp_path


def test_files_that_are_wrong_are_reported_one_row_each_and_the_rest_is_read(folder):
    names = list_image_names(folder / "images")
    checked = build_dataset(
        read_image_infos(folder / "images", names),
        open_annotations(folder / "annotations", "voc", names),
        AnnotationRules(),
    )
    found = sorted((problem.file, problem.kind, problem.action) for problem in checked.problems)
    assert found == sorted(
        [
            ("röntgen.png", "non_ascii_name", "kept"),
            ("dotted.name.png", "dotted_name", "kept"),
            ("truncated.png", "truncated_image", "excluded"),
            ("empty.png", "unreadable_image", "excluded"),
            ("text.png", "unreadable_image", "excluded"),
            ("broken_xml.png", "unreadable_annotation", "excluded"),
            ("attack.png", "entity_attack", "excluded"),
            ("unlabelled.png", "unlabelled", "excluded"),
            ("gone.xml", "annotation_without_image", "excluded"),
            ("left/clear.png", "same_stem", "kept"),
            ("right/clear.png", "same_stem", "kept"),
            ("right/clear.png", "unlabelled", "excluded"),
            ("left/unclear.png", "same_stem", "kept"),
            ("right/unclear.png", "same_stem", "kept"),
            ("left/unclear.png", "annotation_ambiguous", "excluded"),
            ("right/unclear.png", "annotation_ambiguous", "excluded"),
            ("unclear.xml", "annotation_ambiguous", "excluded"),
            ("twice.png", "second_annotation", "excluded"),
            ("a/twice.xml", "second_annotation", "excluded"),
            ("b/twice.xml", "second_annotation", "excluded"),
            ("a/own.xml", "second_annotation", "excluded"),
        ]
    )
    used = [record.file_name for record in checked.dataset]
    assert used == ["dotted.name.png", "good.png", "left/clear.png", "own.png", "röntgen.png"]


def test_missing_xml_is_healthy_only_on_request(folder):
    names = list_image_names(folder / "images")
    checked = build_dataset(
        read_image_infos(folder / "images", names),
        open_annotations(folder / "annotations", "voc", names),
        AnnotationRules(),
        missing_is_healthy=True,
    )
    healthy = [record.file_name for record in checked.dataset if not record.fractured]
    assert healthy == ["unlabelled.png"]
    kinds = Counter(problem.kind for problem in checked.problems)
    # clear.xml is of left/clear.png by its <folder>; that it is not of right/clear.png too is not certain.
    assert (kinds["assumed_healthy"], kinds["possibly_annotated"]) == (1, 1)


def test_check_compares_a_data_set_with_its_files(folder):
    def record(number, name, size=(40, 50), box=(1, 2, 9, 9)):
        return ImageRecord(number, name, *size, "g", boxes=np.array([box], float), classes=np.zeros(1, int))

    records = [
        record(1, "good.png"),
        record(2, "nowhere.png"),
        record(3, "empty.png"),
        record(4, "own.png", size=(50, 40)),
        record(5, "twice.png", box=(1, 2, 51, 9)),
        record(6, "röntgen.png", box=(5, 5, 5, 9)),
    ]
    found = check(Dataset(tuple(records), ("fracture",)), folder / "images")
    assert [(problem.file, problem.kind) for problem in found] == [
        ("nowhere.png", "missing_image"),
        ("empty.png", "unreadable_image"),
        ("own.png", "size_mismatch"),
        ("twice.png", "box_outside"),
        ("röntgen.png", "box_no_area"),
    ]
