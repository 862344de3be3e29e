"""Several sources as one data set: nothing of one is taken for the other's, and a report tells them apart."""

import csv
import json

import numpy as np
import pytest

from fracture_det.cli import eval as eval_tool
from fracture_det.cli import pool as tool
from fracture_det.data.coco import read_coco, write_coco
from fracture_det.data.pooling import PoolingError, Source, pool
from fracture_det.data.prediction_writer import write_predictions
from fracture_det.data.predictions import ImagePrediction, Predictions
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import read_radiograph
from tests.builders import build_dataset


@pytest.fixture
def folders(tmp_path):
    """Two sources whose files have the same names; the second one has no validation images."""
    for name, seed, splits in (("near", 1, ("train", "val", "test")), ("far", 2, ("train", "test"))):
        dataset = build_dataset(tmp_path / name, n_fractured=2, n_healthy=2, seed=seed, size=(60, 50))
        for split in splits:
            write_coco(dataset, tmp_path / name / f"{split}.json")
    return tmp_path


def sources(folders, names=("near", "far")):
    return [Source(name, folders / name, folders / name / "images") for name in names]


def test_each_image_keeps_its_boxes_its_file_and_says_where_it_is_from(folders):
    out = folders / "pooled"
    assert pool(sources(folders), out) == {
        "train": {"near": 4, "far": 4},
        "val": {"near": 4},
        "test": {"near": 4, "far": 4},
    }
    pooled = read_coco(out / "test.json")
    assert [record.image_id for record in pooled] == list(range(1, 9))
    assert len({record.group_id for record in pooled}) == 4
    for name in ("near", "far"):
        for record in read_coco(folders / name / "test.json"):
            (found,) = (each for each in pooled if each.file_name == f"{name}/{record.file_name}")
            assert found.attributes == {"source": name}
            assert found.group_id == f"{name}/{record.group_id}"
            assert np.array_equal(found.boxes, record.boxes)
            read = read_radiograph(out / "images" / found.file_name).pixels
            assert np.array_equal(read, read_radiograph(folders / name / "images" / record.file_name).pixels)


def test_pooling_again_replaces_what_was_there(folders):
    out = folders / "pooled"
    pool(sources(folders), out)
    assert pool(sources(folders, ["far"]), out) == {"train": {"far": 4}, "test": {"far": 4}}
    assert not (out / "val.json").exists()
    assert {record.attributes["source"] for record in read_coco(out / "test.json")} == {"far"}


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "-x"])
def test_a_name_is_a_word(folders, name):
    with pytest.raises(PoolingError, match="expected letters, digits and"):
        Source(name, folders / "near", folders / "near" / "images")


def test_what_does_not_fit_together_is_refused(folders, capsys):
    out = folders / "pooled"
    near = ["--source", "near", str(folders / "near"), str(folders / "near" / "images")]

    def refusal(*arguments):
        assert tool.main([*near, *arguments, "--out", str(out)]) == 2
        assert not list(out.glob("*.json"))
        return capsys.readouterr().err

    images = str(folders / "far" / "images")
    assert "source near: named twice" in refusal(*near)
    assert f"source far: {folders / 'gone'}: no such folder" in refusal(
        "--source", "far", str(folders / "gone"), images
    )
    assert "has none of train.json, val.json, test.json" in refusal("--source", "far", images, images)
    file = folders / "far" / "test.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = "break"
    file.write_text(json.dumps(content))
    assert "its classes are ['break'], those of near ['fracture']" in refusal(
        "--source", "far", str(folders / "far"), images
    )
    file.write_text("{")
    assert str(file) in refusal("--source", "far", str(folders / "far"), images)


def test_pooled_data_are_not_pooled_again(folders, capsys):
    out = folders / "pooled"
    pool(sources(folders), out)
    arguments = ["--source", "both", str(out), str(out / "images"), "--out", str(folders / "twice")]
    assert tool.main(arguments) == 2
    assert "has the attribute 'source' already" in capsys.readouterr().err


def test_a_folder_of_images_that_is_no_link_is_left_alone(folders):
    kept = folders / "pooled" / "images" / "near" / "mine.png"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"x")
    with pytest.raises(PoolingError, match="not a link; give another --out"):
        pool(sources(folders), folders / "pooled")
    assert kept.read_bytes() == b"x"


def test_a_report_has_a_row_for_each_source(folders, capsys):
    out = folders / "pooled"
    given = [word for name in ("near", "far") for word in ("--source", name, folders / name, folders / name / "images")]
    assert tool.main([*map(str, given), "--out", str(out)]) == 0
    assert "test.json: 8 images (4 of near, 4 of far)" in capsys.readouterr().out
    images = []
    for record in read_coco(out / "test.json"):  # everything of one source is found, nothing of the other
        count = len(record.boxes) if record.attributes["source"] == "near" else 0
        found = Detections(record.boxes[:count], np.full(count, 0.9), record.classes[:count])
        images.append(ImagePrediction(record.file_name, record.size, found))
    file = folders / "predictions.jsonl"
    write_predictions(file, Predictions("toy", ("fracture",), tuple(images), 0.5))
    arguments = ["--predictions", file, "--data", out / "test.json", "--out", folders / "report", "--bootstrap", "20"]
    assert eval_tool.main([str(word) for word in arguments]) == 0
    with (folders / "report" / "strata.csv").open(encoding="utf-8") as table:
        rows = {row["value"]: row for row in csv.DictReader(table) if row["column"] == "source"}
    assert float(rows["near"]["recall"]) == 1
    assert float(rows["far"]["recall"]) == 0
