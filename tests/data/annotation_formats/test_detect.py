"""The format is known from what files hold; where two fit, the sentence counts them."""

from __future__ import annotations

import json

import pytest

from fracture_det.data.annotation_formats.detect import detect_format
from fracture_det.data.annotation_formats.voc import voc_xml
from fracture_det.data.annotations import AnnotationError
from tests.data.annotation_formats.exporters import TRUTH, createml, labelme

COCO = json.dumps({"images": [], "annotations": [], "categories": []})


def write(folder, **texts):
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_files_are_known_by_what_they_hold(tmp_path):
    write(tmp_path, a_dot_xml=voc_xml("a.png", (9, 9), ()), b_dot_json=COCO, c_dot_txt="0 .5 .5 .1 .1\n")
    assert [detect_format(tmp_path / name) for name in ("a.xml", "b.json", "c.txt")] == ["voc", "coco", "yolo"]


def test_cvats_archives_are_known(tmp_path):
    voc = write(
        tmp_path / "voc",
        Annotations__a_dot_xml=voc_xml("a.png", (9, 9), ()),
        ImageSets__Main__default_dot_txt="a\n",
        labelmap_dot_txt="# label:color_rgb:parts:actions\nfracture:1,2,3::\n",
    )
    yolo = write(
        tmp_path / "yolo",
        obj_train_data__a_dot_txt="0 0.5 0.5 0.1 0.1\n",
        obj_dot_names="fracture\n",
        obj_dot_data="classes = 1\n",
        train_dot_txt="data/obj_train_data/a.png\n",
    )
    coco = write(tmp_path / "coco", annotations__instances_default_dot_json=COCO)
    assert [detect_format(folder) for folder in (voc, yolo, coco)] == ["voc", "yolo", "coco"]
    assert detect_format(yolo / "obj.names") == "yolo"


def test_roboflows_yolo_is_known_and_so_is_its_yaml(tmp_path):
    write(tmp_path, train__labels__a_dot_txt="0 .5 .5 .1 .1\n", README_dot_roboflow_dot_txt="1 2 3 4 5\n")
    write(tmp_path, data_dot_yaml="names: [fracture]\n", images__metadata_dot_csv="file_name,patient\na.png,1\n")
    assert detect_format(tmp_path) == detect_format(tmp_path / "data.yaml") == "yolo"


def test_a_folder_of_empty_labels_is_yolo(tmp_path):
    assert detect_format(write(tmp_path, a_dot_txt="", classes_dot_txt="fracture\n")) == "yolo"


def test_damaged_xml_alone_is_labelimgs_and_dialects_of_yolo_are_yolo(tmp_path):
    assert detect_format(write(tmp_path / "xml", a_dot_xml="<annotation>")) == "voc"
    for number, line in enumerate(
        ["0.0 .5 .5 .1 .1", "0,0.5,0.5,0.1,0.1", "fracture 0,5 0,5 0,1 0,1", "0;.5;.5;.1;1e-1"]
    ):
        assert detect_format(write(tmp_path / str(number), a_dot_txt=line + "\n")) == "yolo"


def test_two_formats_are_counted_and_not_guessed(tmp_path):
    write(tmp_path, **{f"{n}_dot_xml": voc_xml("a.png", (9, 9), ()) for n in range(12)})
    write(tmp_path, **{f"{n}_dot_json": labelme("a.png", (9, 9), []) for n in range(3)})
    with pytest.raises(AnnotationError, match=r"3 \.json of labelme and 12 \.xml of LabelImg .*give --format"):
        detect_format(tmp_path)
    write(tmp_path, x_dot_json=createml(TRUTH))
    with pytest.raises(AnnotationError, match="CreateML"):
        detect_format(tmp_path)


def test_nothing_known_says_what_is_there(tmp_path):
    with pytest.raises(AnnotationError, match="0 files"):
        detect_format(tmp_path)
    write(tmp_path, a_dot_json="{}", b_dot_csv="a,b\n1,2\n", notes_dot_txt="seen by hand\n", c_dot_md="")
    with pytest.raises(AnnotationError, match=r"4 files \(.*1 \.csv"):
        detect_format(tmp_path)
    for name in ("a.json", "notes.txt", "missing"):
        with pytest.raises(AnnotationError):
            detect_format(tmp_path / name)


def test_a_damaged_file_says_how_it_is_damaged(tmp_path):
    write(tmp_path, a_dot_json='{"images": [', b_dot_xml="<annotation>")
    for name, said in (("a.json", "Expecting value"), ("b.xml", "no element found")):
        with pytest.raises(AnnotationError, match=said):
            detect_format(tmp_path / name)
