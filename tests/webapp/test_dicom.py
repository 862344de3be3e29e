"""DICOM on the page and the API: the same result as a PNG, and nothing of the patient kept anywhere."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import expect

from fracture_det.inference.service import PredictionService, assess
from tests.builders import draw_radiograph
from tests.paths import ROOT
from tests.structures.dicoms import PATIENT, dicom, real_file
from tests.webapp.bright import BrightRectangles, dark_plate
from tests.webapp.browser import open_page
from tests.webapp.conftest import LIKELY, POSSIBLE, WEAK, encoded, form_token
from tests.webapp.test_journey import shoot

# The words of the seeded patient that stand nowhere else.
SEEDS = [word.encode() for value in (*PATIENT.values(), "Private^Seedname") for word in value.replace("^", " ").split()]
SEEDS = [word for word in SEEDS if len(word) > 6 and (b"seed" in word.lower() or word[-6:].isdigit())]


@pytest.fixture
def plate() -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded(dark_plate(LIKELY, POSSIBLE, WEAK)))).convert("L"))


@pytest.fixture
def film() -> np.ndarray:
    return draw_radiograph(np.random.default_rng(3), fractured=True)[0][:, :, 0].copy()


class TestThePrediction:
    @pytest.mark.parametrize("syntax", ["explicit", "implicit", "deflated"])
    def test_is_that_of_the_same_picture_as_png(self, post, plate, syntax):
        of_png, of_dicom = post().get_json(), post(dicom(plate, syntax)).get_json()
        assert of_dicom["detections"] == of_png["detections"]
        assert (of_dicom["finding"], of_dicom["image"]) == (of_png["finding"], of_png["image"])

    def test_is_drawn_and_reported(self, client, post, plate):
        links = post(dicom(plate)).get_json()["links"]
        shown = np.asarray(Image.open(io.BytesIO(client.get(links["image"]).data)).convert("L"))
        assert (shown == plate).all()
        assert client.get(links["report_pdf"]).data.startswith(b"%PDF")

    @pytest.mark.parametrize(
        ("kind", "attributes", "note"),
        [
            ("detector", {"ImagerPixelSpacing": [0.2, 0.2]}, "measured at the detector: magnified by geometry"),
            (
                "calibrated",
                {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.22, 0.22]},
                "calibrated in the patient",
            ),
            (
                "scanned",
                {"NominalScannedPixelSpacing": [0.2, 0.2]},
                "measured on the scanned film: magnified by geometry",
            ),
            ("unstated", {"PixelSpacing": [0.2, 0.2]}, "where it was measured is not stated: may be magnified"),
        ],
    )
    def test_says_where_a_millimetre_was_measured(self, client, post, plate, kind, attributes, note):
        body = post(dicom(plate, **attributes)).get_json()
        assert (body["spacing_mm"], body["spacing_kind"]) == ([0.2, 0.2], kind)
        assert body["spacing_note"].startswith(note)
        stored = client.get(body["links"]["self"]).get_json()
        assert (stored["spacing_kind"], stored["spacing_note"]) == (kind, body["spacing_note"])
        assert f"0.2 x 0.2 mm per pixel ({note}" in client.get(body["links"]["report"]).text

    def test_the_form_without_javascript_takes_it(self, client, plate):
        form = {"file": (io.BytesIO(dicom(plate)), "IM0001"), "csrf_token": form_token(client)}
        assert "Fracture likely" in client.post("/", data=form, content_type="multipart/form-data").text
        assert ".dcm" in client.get("/").text


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("MR-SIEMENS-DICOM-WithOverlays.dcm", "It is a DICOM file of magnetic resonance (MR), not a radiograph."),
            (
                "SC_rgb_2frame.dcm",
                "It is a DICOM file of 2 frames, of which one is read; save each as a file of its own.",
            ),
        ],
    )
    def test_other_modalities_and_several_frames_get_a_sentence(self, post, name, sentence):
        answer = post(real_file(name))
        assert (answer.status_code, answer.get_json()["error"]) == (415, f"This file was not analysed. {sentence}")

    def test_missing_rows_and_too_many_pixels(self, post, plate):
        answer = post(dicom(plate, Rows=plate.shape[0] + 9))
        assert (answer.status_code, "damaged or incomplete (truncated:" in answer.get_json()["error"]) == (422, True)
        assert post(dicom(plate, Rows=65_535, Columns=65_535)).status_code == 413


class TestTags:
    @pytest.fixture
    def service(self, settings) -> Iterator[PredictionService]:
        with PredictionService(BrightRectangles(), max_pixels=settings.max_pixels, assess=assess) as running:
            yield running

    def test_another_part_of_the_body_is_refused_unless_it_is_forced(self, client, post, film):
        data = dicom(film, BodyPartExamined="CHEST")
        refused = post(data)
        assert (refused.status_code, refused.get_json()["reason"]) == (422, "other_body_part")
        assert "Its file says that it shows another part of the body than a limb." in refused.get_json()["error"]
        assert client.get("/api/v1/predictions").get_json()["total"] == 0
        assert post(data, query="?force=1").get_json()["suitability"]["reasons"] == ["other_body_part"]
        assert post(dicom(film)).get_json()["suitability"]["reasons"] == []

    def test_a_picture_with_burned_in_writing_is_analysed_told_and_not_kept(self, client, post, film, settings):
        body = post(dicom(film, BurnedInAnnotation="YES")).get_json()
        assert body["links"]["image"] is None
        assert body["suitability"]["ok"] is True
        assert "writing is burned into the picture" in body["suitability"]["notice"]
        assert "writing is burned into the picture" in client.get(body["links"]["page"]).text
        assert not list(settings.data_dir.rglob("*.png"))
        assert post(dicom(film, BurnedInAnnotation="NO")).get_json()["links"]["image"] is not None

    def test_a_secondary_capture_that_does_not_say_is_analysed_kept_and_told(self, client, post, film):
        capture = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"}
        body = post(dicom(film, **capture)).get_json()
        assert body["suitability"]["reasons"] == ["burned_in_unknown"]
        assert "does not say whether writing" in body["suitability"]["notice"]
        assert body["links"]["image"] is not None
        assert post(dicom(film, BurnedInAnnotation="NO", **capture)).get_json()["suitability"]["reasons"] == []
        assert post(dicom(film)).get_json()["suitability"]["reasons"] == []  # of a detector


def test_nothing_of_the_patient_is_kept_or_logged(start_server, tmp_path, plate):
    server = start_server(tmp_path / "instance")
    deep = plate.astype(np.uint16) * 16
    attributes = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    named = "Seeded^Wilhelmina 7730441"
    bodies = [
        dicom(plate, PixelSpacing=[0.2, 0.2]),
        dicom(deep, **attributes),
        dicom(plate, BurnedInAnnotation="YES"),
        dicom(plate, Modality="CT"),
        dicom(plate)[:-500],  # damaged
        dicom(plate, PhotometricInterpretation="SEEDED WILHELMI"),
        dicom(plate, VOILUTFunction="WILHELMINA", WindowCenter=1, WindowWidth=5),
        dicom(plate, Modality="WILHELMINA"),
        dicom(plate, BodyPartExamined="WILHELMINA"),
    ]
    statuses = []
    for data in bodies:
        answer = requests.post(
            f"{server.address}/api/v1/predictions", files={"file": (f"{named}.dcm", data)}, timeout=60
        )
        statuses.append(answer.status_code)
        assert not _seeds_in(answer.content), answer.text
        if answer.ok:
            links = answer.json()["links"]
            for link in filter(None, links.values()):
                assert not _seeds_in(requests.get(f"{server.address}{link}", timeout=60).content)
    assert statuses == [201, 201, 201, 415, 422, 415, 422, 415, 201]
    kept = [path for folder in (server.folder, server.folder.parent) for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".png" for path in kept)
    assert any(b"SQLite format" in path.read_bytes()[:16] for path in kept)
    for path in [*kept, server.log]:
        assert not _seeds_in(path.name.encode()), path
        assert not _seeds_in(path.read_bytes()), path


def _seeds_in(data: bytes) -> list[bytes]:
    lower = data.lower()
    return [seed for seed in (*SEEDS, b"7730441", b"wilhelmi") if seed.lower() in lower]


@pytest.mark.browser
def test_in_chromium_a_film_is_analysed_and_a_slice_is_not(browser, start_server, tmp_path):
    """The film is the example of the page; FRACTURE_SHOTS=docs keeps the picture of docs/dicom.md."""
    server = start_server(tmp_path / "instance", detector="shipped", FRACTURE_SUITABILITY="on")
    example = np.asarray(Image.open(ROOT / "webapp/static/example.jpg").convert("L")).astype(np.uint16)
    attributes = {
        "BitsStored": 12,
        "WindowCenter": 2048,
        "WindowWidth": 4096,
        "PhotometricInterpretation": "MONOCHROME1",
    }
    (tmp_path / "wrist.dcm").write_bytes(dicom(4095 - example * 16, **attributes))
    (tmp_path / "slice.dcm").write_bytes(dicom(example, Modality="CT"))
    with open_page(browser) as (shown, witness):
        shown.goto(server.address)
        jobs = shown.locator(".job")
        for name in ("wrist.dcm", "slice.dcm"):
            shown.set_input_files("#files", str(tmp_path / name))
        expect(jobs.filter(has_text="slice.dcm").locator(".failure").first).to_contain_text("computed tomography (CT)")
        finding = jobs.filter(has_text="wrist.dcm").locator(".finding")
        expect(finding).to_contain_text("Fracture likely", timeout=60_000)
        jobs.first.scroll_into_view_if_needed()
        shown.evaluate("document.querySelector('#results').scrollIntoView()")
        shoot(shown, "dicom")
        assert witness.complaints == []
