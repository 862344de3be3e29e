"""Ultralytics' data.yaml: names whatever their type in YAML, and splits wherever the folders have gone."""

from __future__ import annotations

import pytest

from fracture_det.data.annotation_formats.class_names import find_class_names, is_no_label, label_folder
from fracture_det.data.annotation_formats.data_yaml import read_data_yaml, split_of_images
from fracture_det.data.annotations import AnnotationError
from fracture_det.data.metadata import MetadataError
from fracture_det.data.splits import read_split

NAMES = "nc: 2\nnames: ['fracture', 'angle']\n"
# Roboflow's, which lies beside train, valid and test.
ROBOFLOW = f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n{NAMES}\nroboflow:\n  version: 1\n"
ULTRALYTICS = (
    "path: ../datasets/hands\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: fracture\n  1: angle\n"
)


def yaml(tmp_path, text, name="data.yaml"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


@pytest.mark.parametrize("text", [ROBOFLOW, ULTRALYTICS, NAMES, "names:\n- fracture\n- angle\n"])
def test_names_are_a_list_or_an_object_by_id(tmp_path, text):
    assert read_data_yaml(yaml(tmp_path, text)).names == ("fracture", "angle")
    assert find_class_names(tmp_path).names == ("fracture", "angle")


def test_splits_are_folders_lists_of_folders_or_nothing(tmp_path):
    content = read_data_yaml(yaml(tmp_path, f"Train: [a, b]\nvalid: c\ntest: null\n{NAMES}"))
    assert content.splits == {"train": ("a", "b"), "val": ("c",)}


def test_names_stay_text_and_ids_count(tmp_path):
    content = read_data_yaml(yaml(tmp_path, "names: {1: yes, 0: no, 2: 2024-01-01, 3: 1_0}\n"))
    assert content.names == ("no", "yes", "2024-01-01", "1_0")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("names: [a, b", "yaml"),
        ("- a", "yaml"),
        ("", "yaml"),
        ("a: &a [*a]\nnames: *a", "names"),
        ("!!python/object/apply:os.system ['ls']", "yaml"),
        ("!!timestamp x", "yaml"),
        ("? {a: b}\n: c", "yaml"),
        ("[" * 9_999, "yaml"),
        ("train: a", "names"),
        ("names: []", "names"),
        ("names: [[a]]", "names"),
        ("names: {0: a, 2: b}", "names"),
        ("names: {a: b}", "names"),
        ("nc: 3\nnames: [a, b]", "names"),
        ("names: [a]\ntrain: {a: b}", "train"),
    ],
)
def test_what_is_no_data_yaml_is_an_error_with_its_field(tmp_path, text, field):
    with pytest.raises(AnnotationError) as caught:
        read_data_yaml(yaml(tmp_path, text))
    assert caught.value.field == field


def folders(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return sorted(names)


ROBOFLOW_FILES = ("train/images/a.jpg", "valid/images/b.jpg", "test/images/c.jpg")
ROBOFLOW_SPLITS = {"train/images/a.jpg": "train", "valid/images/b.jpg": "val", "test/images/c.jpg": "test"}


@pytest.mark.parametrize("with_root", [True, False])
def test_roboflows_folders_are_found_though_its_paths_lead_elsewhere(tmp_path, with_root):
    names = folders(tmp_path / "hands", *ROBOFLOW_FILES)
    path = yaml(tmp_path / "hands", ROBOFLOW)
    root = tmp_path / "hands" if with_root else None
    assert read_split(path, names, image_root=root) == (ROBOFLOW_SPLITS, {}, [])


def test_folders_that_were_moved_are_known_by_their_last_parts(tmp_path):
    names = folders(tmp_path / "elsewhere", "train/a.jpg", "train/left/b.jpg", "val/c.jpg", "other/train/d.jpg")
    splits, unmatched = split_of_images(read_data_yaml(yaml(tmp_path, ULTRALYTICS)), names, tmp_path / "elsewhere")
    assert splits == {"train/a.jpg": "train", "train/left/b.jpg": "train", "val/c.jpg": "val"}
    assert unmatched == []


def test_lists_of_images_name_them_by_their_path(tmp_path):
    names = folders(tmp_path, "images/train/a.jpg", "images/val/a.jpg", "images/val/b.jpg")
    # As CVAT writes it, and with absolute paths of another machine.
    (tmp_path / "train.txt").write_text("images/train/a.jpg\n\n", encoding="utf-8")
    (tmp_path / "val.txt").write_text("/content/hands/images/val/a.jpg\nimages\\val\\b.jpg\n./gone.jpg\n")
    path = yaml(tmp_path, f"path: ./\ntrain: train.txt\nval: val.txt\n{NAMES}")
    assignment, _, problems = read_split(path, names, image_root=tmp_path)
    assert assignment == {"images/train/a.jpg": "train", "images/val/a.jpg": "val", "images/val/b.jpg": "val"}
    assert [(problem.file, problem.kind) for problem in problems] == [("./gone.jpg", "split_without_image")]


def test_a_split_that_cannot_be_taken_is_an_error(tmp_path):
    names = folders(tmp_path, "images/a.jpg")
    for text, said in (
        (f"train: images\nval: images\n{NAMES}", "train and to val"),
        (f"train: train/images\nval: valid/images\n{NAMES}", "train and to val"),  # both end in images
        (f"train: elsewhere\n{NAMES}", "none of the images"),
        (NAMES, "no split"),
        (f"train: train.txt\n{NAMES}", "no such file"),
    ):
        with pytest.raises(MetadataError, match=said):
            read_split(yaml(tmp_path, text), names, image_root=tmp_path)


def test_of_two_nested_folders_the_inner_one_counts(tmp_path):
    names = folders(tmp_path, "images/a.jpg", "images/val/b.jpg")
    content = read_data_yaml(yaml(tmp_path, f"train: images\nval: images/val\n{NAMES}"))
    assert split_of_images(content, names, tmp_path)[0] == {"images/a.jpg": "train", "images/val/b.jpg": "val"}


@pytest.mark.parametrize("file", ["classes.txt", "obj.names", "_darknet.labels", "hands.names"])
def test_names_are_one_per_line_and_lines_count(tmp_path, file):
    (tmp_path / file).write_bytes(b"\xef\xbb\xbffracture\r\n\r\nangle \r\n\r\n")
    assert find_class_names(tmp_path).names == ("fracture", "1", "angle")
    assert find_class_names(tmp_path / file).names == ("fracture", "1", "angle")


def test_names_of_the_parent_count_after_those_of_the_folder(tmp_path):
    (tmp_path / "labels").mkdir()
    assert find_class_names(tmp_path / "labels") is None
    (tmp_path / "classes.txt").write_text("outer\n")
    assert find_class_names(tmp_path / "labels").names == ("outer",)
    (tmp_path / "labels" / "obj.names").write_text("inner\n")
    assert find_class_names(tmp_path / "labels").names == ("inner",)
    yaml(tmp_path / "labels", "names: [other]")
    with pytest.raises(AnnotationError, match="--yolo-names"):
        find_class_names(tmp_path / "labels")


def test_a_file_of_names_stands_for_the_labels_beside_it(tmp_path):
    (tmp_path / "datasets" / "hands").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    path = yaml(tmp_path / "configs", ULTRALYTICS)
    assert label_folder(path).resolve() == tmp_path / "datasets" / "hands"
    assert label_folder(yaml(tmp_path, ULTRALYTICS)) == tmp_path  # its path leads nowhere
    assert label_folder(tmp_path / "datasets") == tmp_path / "datasets"


def test_another_yaml_is_passed_over_and_a_broken_data_yaml_is_not(tmp_path):
    yaml(tmp_path, "lr: 1\n", "training.yaml")
    assert find_class_names(tmp_path) is None
    yaml(tmp_path, "names: [a")
    with pytest.raises(AnnotationError):
        find_class_names(tmp_path)


def test_lists_beside_labels_are_no_labels():
    assert all(map(is_no_label, ["train.txt", "classes.txt", "README.roboflow.txt", "a/valid.txt"]))
    assert not is_no_label("hand_train.txt")
