"""The counts of the two real data sets; skipped where they are not beside the repository."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fracture_det.data.anchors import FPN_SIZES, PAPER_SIZES, anchor_fit
from fracture_det.data.checks import AnnotationRules
from fracture_det.data.coco import read_coco
from fracture_det.data.dataset_report import box_sides, letterboxed
from fracture_det.data.formats import build_dataset
from fracture_det.data.grouping import roboflow_source
from fracture_det.data.image_info import ImageInfo
from fracture_det.data.pairing import open_annotations
from fracture_det.data.prepare import read_problems
from tests.paths import FRACATLAS, SCIENCE2022, present
from tools.prepare_dataset import main

pytestmark = pytest.mark.real


def prepare(out, folder, annotations, *more):
    words = ["--images", folder / "images", "--annotations", folder / annotations, "--out", out, "--workers", 2, *more]
    assert main([str(word) for word in words]) == 0
    parts = {split: read_coco(out / f"{split}.json") for split in ("train", "val", "test")}
    return parts, read_problems(out / "problems.csv")


@pytest.fixture(scope="module")
def fracatlas(tmp_path_factory):
    folder = present(FRACATLAS / "images").parent
    anatomies = ["--anatomy-columns", "hand", "leg", "hip", "shoulder", "mixed", "--metadata", folder / "dataset.csv"]
    more = [*anatomies, "--class-map", "fractured=fracture"]
    return folder, *prepare(tmp_path_factory.mktemp("fracatlas"), folder, "annotations", *more)


@pytest.fixture(scope="module")
def science2022(tmp_path_factory):
    folder = present(SCIENCE2022 / "images").parent
    names = ["angle", "fracture", "line", "messed_up_angle"]
    mapped = [f"{name}=fracture" for name in names if name != "fracture"]
    more = ["--format", "yolo", "--yolo-names", *names, "--class-map", *mapped]
    return folder, *prepare(tmp_path_factory.mktemp("science2022"), folder, "labels", *more)


def everything(parts):
    return [record for part in parts.values() for record in part]


def test_fracatlas_problems(fracatlas):
    _, _, problems = fracatlas
    kinds = Counter(problem.kind for problem in problems)
    assert kinds == {
        "truncated_image": 59,
        "exif_orientation": 25,
        "identical_files": 12,
        "near_duplicate": 127,
        "opposite_labels": 5,
    }
    truncated = sorted(problem.file for problem in problems if problem.kind == "truncated_image")
    assert (truncated[0], truncated[-1]) == ("Non_fractured/IMG0004028.jpg", "Non_fractured/IMG0004347.jpg")
    assert {problem.kind for problem in problems if problem.action == "excluded"} == {"truncated_image"}


def test_fracatlas_images_boxes_and_anatomies(fracatlas):
    folder, parts, _ = fracatlas
    assert sum(1 for _ in (folder / "images").rglob("*.jpg")) == 3670
    records = everything(parts)
    assert len(records) == 3670 - 59
    assert sum(record.fractured for record in records) == 656
    assert sum(len(record.boxes) for record in records) == 855
    with (folder / "dataset.csv").open() as file:
        fractured = {row["image_id"]: row["fractured"] == "1" for row in csv.DictReader(file)}
    for record in records:
        assert record.fractured == fractured[Path(record.file_name).name], record.file_name
        assert record.attributes.keys() == {
            "hardware", "multiscan", "fractured", "fracture_count", "frontal", "lateral", "oblique"
        }  # fmt: skip
    assert {record.anatomy for record in records} == {"hand", "leg", "hip", "shoulder", "mixed"}


def test_fracatlas_split_is_whole_by_group_and_even(fracatlas):
    _, parts, problems = fracatlas
    split_of = {record.file_name: split for split, part in parts.items() for record in part}
    groups = [{record.group_id for record in part} for part in parts.values()]
    assert len(set.union(*groups)) == sum(len(found) for found in groups)
    for split, fraction in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert len(parts[split]) == pytest.approx(3611 * fraction, rel=0.03)
        assert sum(record.fractured for record in parts[split]) == pytest.approx(656 * fraction, rel=0.1)
    for problem in problems:
        if problem.kind == "near_duplicate":
            other = problem.detail.removeprefix("looks like ").split(" (")[0]
            if problem.file in split_of and other in split_of:
                assert split_of[problem.file] == split_of[other]


def test_fracatlas_boxes_and_anchors_are_as_the_design_says(fracatlas):
    _, parts, _ = fracatlas
    boxes = letterboxed(everything(parts))
    assert np.median(box_sides(boxes)) == pytest.approx(46, abs=1)
    assert (box_sides(boxes) < 128).mean() == pytest.approx(0.97, abs=0.005)
    paper, default = anchor_fit(boxes, PAPER_SIZES), anchor_fit(boxes, FPN_SIZES)
    assert paper.mean_best_iou == pytest.approx(0.196, abs=0.005)
    assert paper.under_30 == pytest.approx(0.82, abs=0.005)
    assert default.mean_best_iou == pytest.approx(0.684, abs=0.005)


def test_science2022_boxes_and_healthy_images(science2022):
    _, parts, problems = science2022
    records = everything(parts)
    assert len(records) == 961
    assert sum(len(record.boxes) for record in records) == 1227
    assert sum(not record.fractured for record in records) == 43
    assert parts["train"].class_names == ("fracture",)
    assert {problem.kind for problem in problems} == {"dotted_name", "near_duplicate"}


def test_science2022_copies_of_one_source_are_never_split(science2022):
    _, parts, _ = science2022
    sources = [{roboflow_source(record.file_name) for record in part} for part in parts.values()]
    assert None not in set.union(*sources)
    assert len(set.union(*sources)) == sum(len(found) for found in sources)


def test_science2022_names_that_are_not_mapped_are_reported_not_guessed(science2022):
    folder, parts, _ = science2022
    infos = [ImageInfo(record.file_name, record.size, 1, "", None) for record in everything(parts)]
    names = ["angle", "fracture", "line", "messed_up_angle"]
    source = open_annotations(folder / "labels", "yolo", [info.file_name for info in infos], yolo_names=names)
    problems = build_dataset(infos, source, AnnotationRules()).problems
    assert Counter(p.kind for p in problems if p.action == "excluded") == {"unknown_class": 67 + 330 + 156}
