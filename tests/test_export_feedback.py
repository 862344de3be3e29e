"""tools/export_feedback.py: what readers say on the page becomes annotations that tools/prepare_dataset.py reads."""

import csv
import io

import pytest

from fracture_det.data.coco import read_coco
from fracture_det.inference.service import PredictionService
from tests.webapp.bright import BrightRectangles, dark_plate
from tests.webapp.conftest import LIKELY, POSSIBLE, encoded
from tools import export_feedback, prepare_dataset
from webapp import create_app
from webapp.settings import Settings

PLATES = [(LIKELY, POSSIBLE), (LIKELY,), (LIKELY,), (POSSIBLE,), ()]
SAID = [
    {
        "boxes": [{"number": 1, "verdict": "right", "type": "spiral"}, {"number": 2, "verdict": "wrong"}],
        "missed": [[5, 60, 25, 90]],
        "missed_types": ["oblique"],
    },
    {"no_fracture": True},
    {"comment": "nobody judged the box"},
    {"boxes": [{"number": 1, "verdict": "right"}]},
    {"comment": "there is nothing to judge"},
]


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """A store with five results that have feedback and one without; their identifiers in order."""
    monkeypatch.setenv("FRACTURE_DATA_DIR", str(tmp_path / "instance"))
    with PredictionService(BrightRectangles()) as service:
        app = create_app(Settings.from_environ(), predictor=service)
        client = app.test_client()
        made = []
        for plate in [*PLATES, (LIKELY,)]:
            data = {"file": (io.BytesIO(encoded(dark_plate(*plate))), "a.png")}
            made.append(client.post("/api/v1/predictions", data=data).json)
        for document, said in zip(made, SAID, strict=False):
            assert client.put(document["links"]["feedback"], json=said).status_code == 200
        app.extensions["fracture"].store.close()
    return [document["id"] for document in made]


def test_it_is_a_data_set_with_the_readers_truth(judged, tmp_path, capsys):
    out = tmp_path / "feedback"
    assert export_feedback.main(["--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"left out: {judged[2]}: box 1 was not judged" in said
    assert f"left out: {judged[4]}: there is only a comment" in said
    assert said.endswith(": 3 radiographs, 2 left out\n")
    truth = {record.file_name.removesuffix(".png"): record.boxes.tolist() for record in read_coco(out / "coco.json")}
    assert truth == {
        judged[0]: [[20, 30, 60, 50], [5, 60, 25, 90]],
        judged[1]: [],
        judged[3]: [[90, 60, 120, 100]],
    }
    with (out / "metadata.csv").open(encoding="utf-8") as file:
        rows = {row["file_name"]: row for row in csv.DictReader(file)}
    assert rows[f"{judged[0]}.png"]["author"] == "local"
    assert rows[f"{judged[0]}.png"]["weights"] == "0" * 64


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_prepare_dataset_reads_both_forms(judged, tmp_path, form):
    out = tmp_path / "feedback"
    export_feedback.main(["--out", str(out)])
    annotations = out / ("annotations" if form == "voc" else "coco.json")
    arguments = ["--images", str(out / "images"), "--annotations", str(annotations), "--format", form]
    arguments += ["--fractions", "1", "0", "0", "--metadata", str(out / "metadata.csv"), "--strict"]
    assert prepare_dataset.main([*arguments, "--out", str(tmp_path / "splits")]) == 0
    train = read_coco(tmp_path / "splits" / "train.json")
    assert sorted(len(record.boxes) for record in train) == [0, 1, 2]
    assert ("spiral", "oblique") in [record.types for record in train]


def test_a_store_without_feedback_and_a_folder_that_exists_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FRACTURE_DATA_DIR", str(tmp_path / "instance"))
    assert export_feedback.main(["--out", str(tmp_path / "feedback")]) == 1
    assert "0 radiographs" in capsys.readouterr().out
    assert export_feedback.main(["--out", str(tmp_path / "feedback")]) == 1
    assert "File exists" in capsys.readouterr().err
