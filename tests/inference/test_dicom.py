"""A radiograph is the same radiograph in a PNG and in a DICOM file: for the shipped detector, predict and eval."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest

from fracture_det.cli.predict import main as predict
from fracture_det.data.predictions import read_predictions
from fracture_det.inference.registry import open_detector
from fracture_det.structures.boxes import box_iou
from fracture_det.structures.radiograph import read_radiograph
from tests.paths import FRACATLAS, ROOT, present
from tests.structures.dicoms import dicom, jpeg_2000


def forms(film: np.ndarray) -> dict[str, bytes]:
    """Return DICOM files of a film of 8 bits."""
    deep = film.astype(np.uint16) * 16
    window = {"BitsStored": 12, "WindowCenter": 2040.5, "WindowWidth": 4081}
    inverted = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    signed = (deep.astype(np.int32) - 2048).astype(np.int16)
    return {
        "8 bits": dicom(film),
        "12 bits, white is zero": dicom(4080 - deep, **window, **inverted),
        "12 bits, signed": dicom(signed, "implicit", **window | {"WindowCenter": -7.5}),
        "JPEG 2000": jpeg_2000(deep, "1.2.840.10008.1.2.4.90", **window),
    }


def check(detector, film: np.ndarray) -> int:
    """Compare boxes above .05 of a film as PNG and as DICOM; return how many there are."""
    expected = detector.predict([read_radiograph(cv2.imencode(".png", film)[1].tobytes()).pixels])[0].above(0.05)
    for name, data in forms(film).items():
        found = detector.predict([read_radiograph(data).pixels])[0].above(0.05)
        assert len(found) == len(expected), name
        assert abs(found.boxes - expected.boxes).max(initial=0) <= 1, name
        assert abs(found.scores - expected.scores).max(initial=0) <= 0.01, name
    return len(expected)


def test_the_example_has_the_same_boxes_and_scores():
    film = cv2.imread(str(ROOT / "webapp/static/example.jpg"), cv2.IMREAD_GRAYSCALE)
    assert check(open_detector("shipped"), film) >= 1


@pytest.mark.real
@pytest.mark.slow
def test_films_of_fracatlas_have_the_same_boxes_and_scores():
    detector = open_detector("shipped")
    paths = sorted(present(FRACATLAS / "images/Fractured").glob("*.jpg"))[:240:20]
    found = [check(detector, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) for path in paths]
    assert sum(found) >= len(paths)


def test_predict_says_that_writing_may_be_burned_in(tmp_path, capsys):
    film = cv2.imread(str(ROOT / "webapp/static/example.jpg"), cv2.IMREAD_GRAYSCALE)
    capture = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"}
    (tmp_path / "in").mkdir()
    (tmp_path / "in/burned.dcm").write_bytes(dicom(film, BurnedInAnnotation="YES"))
    (tmp_path / "in/capture.dcm").write_bytes(dicom(film, **capture))
    (tmp_path / "in/chest.dcm").write_bytes(dicom(film, BodyPartExamined="CHEST", BurnedInAnnotation="YES"))
    (tmp_path / "in/clean.dcm").write_bytes(dicom(film, BurnedInAnnotation="NO", **capture))
    (tmp_path / "in/film.dcm").write_bytes(dicom(film))
    words = ["--detector", "shipped", "--input", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert predict(words) == 1  # for the chest
    expected = {
        "burned.dcm": "burned_in",
        "capture.dcm": "burned_in_unknown",
        "chest.dcm": "burned_in",
        "clean.dcm": "",
        "film.dcm": "",
    }
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        assert {row["file_name"]: row["notes"] for row in csv.DictReader(file)} == expected
    read = read_predictions(tmp_path / "out/predictions.jsonl")
    assert {image.file_name: " ".join(image.notes) for image in read.images} == expected
    said = capsys.readouterr().err
    assert "2 files with writing burned into the picture, which may name the patient" in said
    assert "1 file without a word on burned-in writing" in said
    drawn = {
        name: cv2.imread(str(tmp_path / f"out/overlays/{name}.overlay.jpg")) for name in expected if "chest" not in name
    }
    assert abs(drawn["clean.dcm"].astype(int) - drawn["film.dcm"]).max() == 0
    edge = abs(drawn["burned.dcm"].astype(int) - drawn["film.dcm"])
    assert edge[:12].max() > 100, "a sentence on the upper edge"
    assert edge[film.shape[0] // 2 :].max() < 20


def test_predict_takes_a_folder_of_them_and_says_what_it_refuses(tmp_path, capsys):
    film = cv2.imread(str(ROOT / "webapp/static/example.jpg"), cv2.IMREAD_GRAYSCALE)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/film.png"), film)
    (tmp_path / "in/IM0001").write_bytes(dicom(film))
    (tmp_path / "in/chest.dcm").write_bytes(dicom(film, BodyPartExamined="CHEST"))
    (tmp_path / "in/slice.dcm").write_bytes(dicom(film, Modality="CT"))
    words = ["--detector", "shipped", "--input", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert predict(words) == 1  # for the two that are refused
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        rows = {row["file_name"]: row for row in csv.DictReader(file) if row}
    assert "a DICOM file of computed tomography (CT), not a radiograph" in str(rows["slice.dcm"])
    assert "other_body_part" in str(rows["chest.dcm"]) or "another part of the body" in str(rows["chest.dcm"])
    alike = [
        [float(rows[name][side]) for side in ("x0_px", "y0_px", "x1_px", "y1_px")] for name in ("IM0001", "film.png")
    ]
    assert box_iou(alike[:1], alike[1:])[0, 0] > 0.999
    assert "Traceback" not in capsys.readouterr().err
