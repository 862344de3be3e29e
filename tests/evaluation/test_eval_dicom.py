"""prepare and eval on folders of DICOM objects: the figures are those of the same films as PNG."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fracture_det.cli.eval import main as evaluate
from fracture_det.cli.prepare import main as prepare
from fracture_det.data.coco import read_coco
from fracture_det.data.predictions import read_predictions
from fracture_det.inference.registry import DETECTORS
from tests.builders import draw_radiograph, labelimg_xml
from tests.paths import FRACATLAS, present
from tests.structures.dicoms import dicom, jpeg_2000

# What may differ: when it was, and the hashes of the files.
OF_THE_RUN = ("about", "timing", "notes")
FORMS = ("8 bits", "12 bits, white is zero", "JPEG 2000")


def dx_object(film: np.ndarray, number: int) -> bytes:
    """Return a film (H, W) uint8 as the DX object of a patient of its own, in one of three forms."""
    identity = {
        "BodyPartExamined": None,  # PNG have none
        "PatientID": f"SEED-77304{number:03}",
        "SOPInstanceUID": f"1.2.826.0.1.77304.3.{number}",
        "StudyInstanceUID": f"1.2.826.0.1.77304.{number}",
        "SeriesInstanceUID": f"1.2.826.0.1.77304.{number}.5",
    }
    deep = film.astype(np.uint16) * 16
    window = {"BitsStored": 12, "WindowCenter": 2040.5, "WindowWidth": 4081}
    form = FORMS[number % len(FORMS)]
    if form == "8 bits":
        return dicom(film, **identity)
    if form == "JPEG 2000":
        return jpeg_2000(deep, "1.2.840.10008.1.2.4.90", **window, **identity)
    return dicom(4080 - deep, PhotometricInterpretation="MONOCHROME1", **window, **identity)


def write_twice(folder: Path, films: list[tuple[str, np.ndarray, str]]) -> None:
    """Write films, (name, pixels, text of the annotation), into folder/png and folder/dicom, each with annotations."""
    for kind in ("png", "dicom"):
        (folder / kind / "images").mkdir(parents=True)
        (folder / kind / "annotations").mkdir()
        for number, (name, film, xml) in enumerate(films):
            path = folder / kind / "images" / f"{name}.{'dcm' if kind == 'dicom' else 'png'}"
            content = dx_object(film, number) if kind == "dicom" else cv2.imencode(".png", film)[1].tobytes()
            path.write_bytes(content)
            (folder / kind / "annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")


def report_of(folder: Path, detector: str, *more: str) -> dict:
    """Return the report of `eval` on what `prepare` makes of a folder, all of it in one split."""
    where = [f"--images={folder / 'images'}", f"--out={folder / 'set'}"]
    words = [*where, f"--annotations={folder / 'annotations'}", "--class-map", "fractured=fracture", "--workers=1"]
    assert prepare([*words, "--fractions", "0", "0", "1", "--allow-empty-split", "--neighbours=0", *more]) == 0
    given = [f"--detector={detector}", f"--data={folder / 'set/test.json'}", f"--images={folder / 'images'}"]
    assert evaluate([*given, f"--out={folder / 'report'}", "--bootstrap=0", "--operating-score=0.3"]) == 0
    return json.loads((folder / "report/report.json").read_text().replace(".dcm", ".png"))


def check(folder: Path, films: list[tuple[str, np.ndarray, str]], detector: str) -> dict:
    """Evaluate films as PNG and as DICOM; return the report after comparing the two."""
    write_twice(folder, films)
    of_png, of_dicom = report_of(folder / "png", detector), report_of(folder / "dicom", detector, "--format", "dicom")
    for kind in ("png", "dicom"):
        assert len(read_coco(folder / kind / "set/test.json")) == len(films)
    predicted = [read_predictions(folder / kind / "report/predictions.jsonl").images for kind in ("png", "dicom")]
    by_name = [{Path(image.file_name).stem: image for image in images} for images in predicted]
    for name, image in by_name[0].items():
        other = by_name[1][name]
        assert image.size == other.size
        assert len(image.detections) == len(other.detections)
        assert abs(image.detections.boxes - other.detections.boxes).max(initial=0) <= 1
        assert abs(image.detections.scores - other.detections.scores).max(initial=0) <= 0.01
    assert {name for name in of_png if of_png[name] != of_dicom[name]} <= set(OF_THE_RUN)
    assert of_dicom["coco"]["AP50"]["value"] > 0
    assert not of_dicom["failures"]
    texts = [path.read_bytes() for path in (folder / "dicom/report").rglob("*") if path.is_file()]
    assert not [text for text in texts if b"SEED-77304" in text or b"1.2.826.0.1.77304" in text]
    return of_dicom


def test_drawn_films(tmp_path, monkeypatch):
    monkeypatch.setitem(DETECTORS, "bright", "tests.inference.toys:open_bright")
    rng, films = np.random.default_rng(4), []
    for number in range(12):
        pixels, boxes = draw_radiograph(rng, fractured=number % 3 != 0, size=(96, 80))
        for x0, y0, x1, y1 in (np.asarray(box).astype(int) for box in boxes if number % 2):
            pixels[y0:y1, x0:x1] = 255  # which the detector finds
        xml = labelimg_xml(Path(f"film{number}.png"), pixels.shape, [("fracture", box) for box in boxes])
        films.append((f"film{number}", pixels[:, :, 0].copy(), xml))
    report = check(tmp_path, films, "bright:0.3")
    assert report["counts"]["images_predicted"] == 12


@pytest.mark.real
@pytest.mark.slow
def test_films_of_fracatlas_by_the_shipped_detector(tmp_path):
    films = []
    for kind in ("Fractured", "Non_fractured"):
        for path in sorted(present(FRACATLAS / "images" / kind).glob("*.jpg"))[:180:30]:
            film = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            films.append((path.stem, film, (FRACATLAS / f"annotations/{path.stem}.xml").read_text("utf-8")))
    report = check(tmp_path, films, "shipped")
    assert report["counts"]["images_predicted"] == 12
