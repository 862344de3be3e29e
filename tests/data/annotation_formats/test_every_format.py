"""tools/prepare_dataset.py on what every tool exports: the truth comes back, and the format need not be said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fracture_det.data.coco import read_coco
from fracture_det.data.prepare import read_problems
from tests.builders import build_dataset, labelimg_xml, write_image
from tests.data.annotation_formats.exporters import EXPORTS, label_studio, labelme
from tools.prepare_dataset import main

IMAGE_SIZE = (96, 80)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    dataset = build_dataset(folder, n_fractured=8, n_healthy=8, seed=5, size=IMAGE_SIZE)
    truth = {
        record.file_name: (record.size, [("fracture", *box) for box in record.boxes.tolist()]) for record in dataset
    }
    return folder, truth


def run(folder, annotations, out, *more):
    options = {"--images": folder / "images", "--annotations": annotations, "--out": out, "--neighbours": 0}
    words = [str(word) for pair in options.items() for word in pair]
    return main([*words, "--workers", "1", *map(str, more)])


def boxes_in(out):
    parts = [read_coco(out / f"{split}.json") for split in ("train", "val", "test")]
    return {record.file_name: record.boxes.tolist() for part in parts for record in part}


def assert_truth(found, truth):
    assert set(found) == set(truth)
    for name, (_, boxes) in truth.items():
        expected = np.array([box[1:] for box in boxes]).reshape(-1, 4)
        np.testing.assert_allclose(np.array(found[name]).reshape(-1, 4), expected, atol=1)


def write_per_image(folder, truth, kind):
    folder.mkdir()
    for name, (size, boxes) in truth.items():
        stem = name.rpartition(".")[0]
        if kind == "labelme":
            (folder / f"{stem}.json").write_text(labelme(name, size, boxes), encoding="utf-8")
        elif kind == "voc":
            objects = [(box[0], box[1:]) for box in boxes]
            (folder / f"{stem}.xml").write_text(labelimg_xml(folder / "images" / name, (*size, 3), objects))
        else:
            height, width = size
            lines = [
                f"0 {(x0 + x1) / 2 / width} {(y0 + y1) / 2 / height} {(x1 - x0) / width} {(y1 - y0) / height}\n"
                for _, x0, y0, x1, y1 in boxes
            ]
            (folder / f"{stem}.txt").write_text("".join(lines))
            (folder / "data.yaml").write_text("names: [fracture]\n")
    return folder


@pytest.mark.parametrize("kind", [*EXPORTS, "labelme", "voc", "yolo"])
def test_every_format_gives_the_same_truth(drawn, tmp_path, kind):
    folder, truth = drawn
    if kind in EXPORTS:
        file, write = EXPORTS[kind]
        annotations = tmp_path / file
        annotations.write_text(write(truth), encoding="utf-8")
    else:
        annotations = write_per_image(tmp_path / "annotations", truth, kind)

    assert run(folder, annotations, tmp_path / "out") == 0

    assert_truth(boxes_in(tmp_path / "out"), truth)
    problems = read_problems(tmp_path / "out" / "problems.csv")
    assert [problem for problem in problems if problem.action == "excluded"] == []


@pytest.mark.parametrize("more", [(), ("--missing-xml-is-healthy",)])
def test_an_unreviewed_task_is_never_healthy(drawn, tmp_path, more):
    folder, truth = drawn
    tasks = json.loads(label_studio(truth))
    names = list(truth)
    tasks[0]["annotations"] = []
    tasks[1]["annotations"][0]["was_cancelled"] = True
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert run(folder, tmp_path / "export.json", tmp_path / "out", *more) == 0
    assert set(truth) - set(boxes_in(tmp_path / "out")) == set(names[:2])
    kinds = {p.file: p.kind for p in read_problems(tmp_path / "out" / "problems.csv") if p.action == "excluded"}
    assert kinds == dict.fromkeys(names[:2], "not_reviewed")


@pytest.mark.parametrize("stored_form", [True, False])
def test_uploads_are_found_by_the_name_they_were_stored_under(drawn, tmp_path, stored_form):
    folder, truth = drawn
    tasks = json.loads(label_studio(truth))
    (tmp_path / "images").mkdir()
    of_name = {}
    for name, task in zip(truth, tasks, strict=True):
        stored = task["data"]["image"].rpartition("/")[2]
        of_name[stored if stored_form else name.replace("_", " ")] = truth[name]
        target = stored if stored_form else name.replace("_", " ")
        (tmp_path / "images" / target).write_bytes((folder / "images" / name).read_bytes())
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert run(tmp_path, tmp_path / "export.json", tmp_path / "out") == 0
    assert_truth(boxes_in(tmp_path / "out"), of_name)


def test_a_yolo_data_set_is_read_from_its_data_yaml_alone(tmp_path):
    # As Roboflow writes it: labels beside images, per split, and paths that lead out of the folder.
    rng = np.random.default_rng(0)
    truth = {}
    for split, n in (("train", 6), ("valid", 3), ("test", 3)):
        for number in range(n):
            name = f"{split}/images/{split}_{number}.png"
            path, label = tmp_path / name, tmp_path / split / "labels" / f"{split}_{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            label.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, rng.integers(0, 255, (96, 80, 3), dtype=np.uint8))
            label.write_text("0 0.5 0.5 0.25 0.25\n" if number % 2 else "")
            truth[name] = ((96, 80), [("fracture", 30, 36, 50, 60)] if number % 2 else [])
    yaml = tmp_path / "data.yaml"
    yaml.write_text("train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['fracture']\n")
    words = ["--images", tmp_path, "--annotations", yaml, "--split-from", yaml, "--out", tmp_path / "out"]
    assert main([*map(str, words), "--neighbours", "0", "--workers", "1"]) == 0
    assert_truth(boxes_in(tmp_path / "out"), truth)
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        part = read_coco(tmp_path / "out" / f"{split}.json")
        assert part.records
        assert all(record.file_name.startswith(f"{folder}/") for record in part)


def test_images_without_regions_in_via_are_healthy_only_when_asked_for(drawn, tmp_path):
    folder, truth = drawn
    file, write = EXPORTS["via"]
    (tmp_path / file).write_text(write(truth).replace('{"review": "normal"}', "{}"))
    fractured = {name for name, (_, boxes) in truth.items() if boxes}
    assert run(folder, tmp_path / file, tmp_path / "out") == 0
    assert set(boxes_in(tmp_path / "out")) == fractured
    assert run(folder, tmp_path / file, tmp_path / "all", "--missing-xml-is-healthy") == 0
    assert_truth(boxes_in(tmp_path / "all"), truth)
