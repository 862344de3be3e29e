"""Types of fracture in the API, on the pages and in the reports."""

import io

import pytest

from fracture_det.inference.base import DetectorInfo
from fracture_det.inference.service import DetectorFailed, PredictionService
from tests.webapp.bright import BrightRectangles, TypedRectangles, dark_plate
from tests.webapp.conftest import LIKELY, POSSIBLE, WEAK, encoded
from tests.webapp.test_suitability import text_of
from webapp import create_app, open_service
from webapp.settings import Settings

# LIKELY is 40 x 20 px and POSSIBLE 30 x 40: .9 of their sides' shares, and .1 spiral.
OF_LIKELY = [("transverse", 0.6), ("longitudinal", 0.3), ("spiral", 0.1)]
OF_POSSIBLE = [("longitudinal", 0.5143), ("transverse", 0.3857), ("spiral", 0.1)]


@pytest.fixture
def facts():
    """What a test has the detector state otherwise."""
    return {}


@pytest.fixture
def service(settings, facts):
    with PredictionService(TypedRectangles(**facts), max_pixels=settings.max_pixels) as running:
        yield running


def shares(types):
    return [(kind["name"], kind["probability"]) for kind in types]


def test_a_radiograph_and_each_of_its_boxes_have_types_the_most_probable_first(client, post):
    body = post(query="?score=0").json
    boxes = body["detections"]
    assert [shares(box["types"]) for box in boxes] == [OF_LIKELY, OF_POSSIBLE, []]  # the third is weak
    # (.902 x .6 + .314 x .3857 + .149 x .45) / 1.365: by score; the weak box has 10 x 10 px
    assert shares(body["types"]) == [("transverse", 0.5344), ("longitudinal", 0.3656), ("spiral", 0.1)]
    assert body["types"][0]["title"] == "Transverse"
    assert body["type"] == {
        "name": "transverse",
        "uncertain": False,
        "title": "Type of fracture: transverse 53 %, longitudinal 37 %",
        "notice": "The type that this detector names was right for 71 % of validation radiographs. "
        "It is only a hint: look for yourself.",
        "confidence": 0.5,
        "accuracy": 0.71,
    }
    assert client.get(body["links"]["self"] + "?score=0").json == body


@pytest.mark.parametrize("plate", [(), (WEAK,)])
def test_a_radiograph_without_a_finding_has_no_type(post, plate):
    body = post(encoded(dark_plate(*plate)), query="?score=0").json
    assert (body["finding"]["level"], body["types"], body["type"]) == ("none seen", [], None)
    assert all(box["types"] == [] for box in body["detections"])


@pytest.mark.parametrize("facts", [{"type_confidence": 0.61}])
def test_below_the_detectors_confidence_no_type_is_named_and_all_are_listed(client, post):
    body = post(encoded(dark_plate(LIKELY))).json
    assert shares(body["types"]) == OF_LIKELY
    said = body["type"]
    assert (said["name"], said["uncertain"], said["title"]) == (None, True, "Type uncertain")
    assert said["notice"].startswith("No type reaches 61 %, from which on this detector names one.")
    report = client.get(body["links"]["report"]).text
    assert "Type uncertain." in report
    assert "at about a right angle" not in report


@pytest.mark.parametrize("facts", [{"type_confidence": 0.6}])
def test_at_the_confidence_a_type_is_named(post):
    assert post(encoded(dark_plate(LIKELY))).json["type"]["name"] == "transverse"


@pytest.mark.parametrize("facts", [{"type_confidence": None, "type_accuracy": None}])
def test_what_was_not_measured_is_said_to_be_so(post):
    said = post(encoded(dark_plate(LIKELY))).json["type"]
    assert (said["name"], said["confidence"], said["accuracy"]) == ("transverse", None, None)
    assert said["notice"].startswith("How often the named type is right is not measured for this detector.")


def test_pages_and_reports_say_it_with_the_definitions(client, post):
    links = post(encoded(dark_plate(LIKELY))).json["links"]
    title, definition = (
        "Type of fracture: transverse 60 %, longitudinal 30 %",
        "at about a right angle to its long axis.",
    )
    texts = {name: client.get(links[name]).text for name in ("page", "report")}
    texts |= {"pdf": text_of(client.get(links["report_pdf"]).data), "history": client.get("/history").text}
    for name, text in texts.items():
        assert title in text, name
        assert name == "history" or definition in text, name
        assert ("was right for 71 %" in text) == (name != "history"), name
    assert '<details class="types">' in texts["page"]  # folded at first


def test_both_reports_tell_the_types_that_a_reader_stated(client, post):
    links = post(encoded(dark_plate(LIKELY))).json["links"]
    said = {"boxes": [{"number": 1, "verdict": "right", "type": "spiral"}], "missed": [[1, 1, 9, 9], [9, 9, 20, 20]]}
    assert client.put(links["feedback"], json=said | {"missed_types": ["avulsion", None]}).status_code == 200
    for text in (client.get(links["report"]).text, text_of(client.get(links["report_pdf"]).data).replace("\\", "")):
        assert "right, spiral" in text
        assert "2 missed fractures (avulsion, type unknown)" in text


def test_without_types_nothing_is_said_of_them(settings):
    with PredictionService(BrightRectangles()) as service:
        app = create_app(settings, predictor=service)
        client = app.test_client()
        data = {"file": (io.BytesIO(encoded(dark_plate(LIKELY))), "a.png")}
        links = client.post("/api/v1/predictions", data=data).json["links"]
        assert "Type of fracture:" not in client.get(links["page"]).text + client.get("/history").text
        assert "Type of fracture" not in client.get(links["report"]).text
        assert "Type of fracture" not in text_of(client.get(links["report_pdf"]).data)
        assert client.get("/api/v1/model").json["type_names"] == []
        app.extensions["fracture"].store.close()


def test_a_type_that_has_left_the_list_keeps_its_name(client, post):
    links = post(encoded(dark_plate(LIKELY))).json["links"]
    with client.application.extensions["fracture"].store._database.writing() as session:
        from webapp.store.models import PredictionRow

        session.query(PredictionRow).one().type_names = ["spiral", "torn", "longitudinal"]
    said = client.get(links["self"]).json
    assert (said["types"][0]["name"], said["types"][0]["title"]) == ("torn", "Torn")
    assert "Torn" in client.get(links["page"]).text
    # and a reader may still agree with it
    given = {"boxes": [{"number": 1, "verdict": "right", "type": "torn"}]}
    assert client.put(links["feedback"], json=given).status_code == 200


def test_the_model_lists_what_it_tells_and_what_readers_may_state(client):
    said = client.get("/api/v1/model").json
    assert said["type_names"] == ["spiral", "transverse", "longitudinal"]
    assert (said["type_confidence"], said["type_accuracy"]) == (0.5, 0.71)
    known = {kind["name"]: kind["definition"] for kind in said["types"]}
    assert known["spiral"] == "The fracture line winds around the bone, from a twist."


def test_a_detector_whose_types_are_not_those_it_states_has_failed():
    detector = TypedRectangles()
    detector.info = BrightRectangles().info
    with PredictionService(detector) as service, pytest.raises(DetectorFailed, match="returned 3 types of its 0"):
        service.predict(encoded(dark_plate(LIKELY, POSSIBLE)))


@pytest.mark.parametrize("name", ["type_confidence", "type_accuracy"])
def test_a_share_outside_0_to_1_is_refused(name):
    with pytest.raises(ValueError, match=rf"DetectorInfo\.{name} of net: expected 0\.\.1, got 1\.5"):
        DetectorInfo("net", ("fracture",), **{name: 1.5})


def test_a_list_of_types_that_cannot_be_read_stops_the_server_with_a_sentence(tmp_path, monkeypatch):
    from fracture_det.inference.base import DetectorError
    from fracture_det.structures.fracture_types import fracture_types

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "fracture_types.yaml").write_text("types: [{name: spiral}]")
    monkeypatch.chdir(tmp_path)
    fracture_types.cache_clear()
    try:
        with pytest.raises(
            DetectorError, match=r"types of fracture cannot be read: .*fracture_types\.yaml.*definition"
        ):
            open_service(Settings(data_dir=tmp_path / "instance"))
    finally:
        fracture_types.cache_clear()
