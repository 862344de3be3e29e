"""The types of fracture in the tables of predict."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from fracture_det.inference.prediction_folder import Shard, join_shards, predict_to_folder
from fracture_det.inference.registry import DETECTORS
from fracture_det.structures.detections import Detections
from fracture_det.structures.image_files import find_images
from tests.inference.toys import BrightDetector
from tools.predict import main

TYPES = ("transverse", "spiral", "oblique")


class TypedDetector(BrightDetector):
    """Says of a wide box that it is of a spiral fracture, else that it is of a transverse one; never of oblique."""

    def __init__(self):
        super().__init__(type_names=TYPES, operating_score=0.5)

    def _find(self, image):
        found = super()._find(image)
        if not len(found):
            return found
        wide = found.boxes[0, 2] - found.boxes[0, 0] > 20
        first = [0.18, 0.8, 0.02] if wide else [0.8, 0.18, 0.02]
        return Detections(found.boxes, found.scores, found.classes, np.array([first, [1, 0, 0]]))


def open_typed(target):
    return TypedDetector()


@pytest.fixture
def radiographs(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, width in (("wide", 30), ("wider", 35), ("narrow", 10), ("nothing", 0)):
        pixels = np.zeros((60, 60), np.uint8)
        pixels[10:30, 10 : 10 + width] = 250
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_the_types_of_the_image_and_the_command_counts_them(radiographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DETECTORS, "typed", f"{__name__}:open_typed")
    out = tmp_path / "out"
    assert main(["--detector", "typed:", "--input", str(radiographs), "--out", str(out), "--force"]) == 0
    assert "Most probable type of fracture: 2 spiral, 1 transverse (column types in predictions.csv)" in (
        capsys.readouterr().out
    )
    rows = {row["file_name"]: row for row in table(out / "predictions.csv")}
    # By score: (.8 * .8 + .1 * 0) / .9 = .711 spiral, (.8 * .18 + .1 * 1) / .9 = .271 transverse, .018 oblique.
    assert rows["wide.png"]["types"] == "spiral 0.71; transverse 0.27"
    assert (rows["nothing.png"]["status"], rows["nothing.png"]["types"]) == ("none", "")
    header = json.loads((out / "predictions.jsonl").read_text().splitlines()[0])
    assert header["type_names"] == list(TYPES)


def test_no_types_are_told_of_a_picture_without_a_box_from_the_score_on(radiographs, tmp_path):
    files = find_images(radiographs).files
    done = predict_to_folder(TypedDetector(), files, tmp_path / "out", score=0.9, overlays=False, progress=False)
    assert done.types == {}
    assert {row["types"] for row in table(tmp_path / "out" / "predictions.csv")} == {""}


def test_a_detector_without_types_has_no_such_column(radiographs, tmp_path):
    files = find_images(radiographs).files
    done = predict_to_folder(BrightDetector(), files, tmp_path / "out", overlays=False, progress=False)
    assert done.types == {}
    assert "types" not in table(tmp_path / "out" / "predictions.csv")[0]


def test_shards_are_joined_and_parquet_has_the_column(radiographs, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    files = find_images(radiographs).files
    options = {"overlays": False, "progress": False}
    predict_to_folder(TypedDetector(), files, tmp_path / "whole", parquet=True, **options)
    for index in (1, 2):
        shard = Shard(index, 2)
        predict_to_folder(TypedDetector(), files, shard.folder(tmp_path / "parts"), shard=shard, **options)
    assert join_shards(tmp_path / "parts", parquet=True).types == {"spiral": 2, "transverse": 1}
    whole, parts = (pq.read_table(tmp_path / name / "predictions.parquet").to_pylist() for name in ("whole", "parts"))
    assert sorted(map(str, whole)) == sorted(map(str, parts))
    assert {row["types"] for row in whole if row["file_name"] == "narrow.png"} == {"transverse 0.82; spiral 0.16"}
