"""What the API does with results after the upload: keys, feedback, history, deletion, reports, metrics, description."""

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.score_maps import ScoreMap
from fracture_det.inference.service import PredictionService
from tests.webapp.bright import BrightRectangles, dark_plate
from tests.webapp.conftest import LIKELY, POSSIBLE, ClosingClient, changed, encoded, form_token
from webapp import create_app

PLATE = encoded(dark_plate(LIKELY))


def upload(client, data=PLATE, **headers):
    return client.post("/api/v1/predictions", data={"file": (io.BytesIO(data), "a.png")}, headers=headers)


class TestKeys:
    def test_the_same_upload_with_the_same_key_is_analysed_once(self, client):
        first, again = (upload(client, **{"Idempotency-Key": "abc"}) for _ in range(2))
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json == first.json
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        assert client.get("/api/v1/predictions").json["total"] == 1

    def test_another_image_with_the_same_key_is_refused(self, client):
        upload(client, **{"Idempotency-Key": "abc"})
        answer = upload(client, encoded(dark_plate(POSSIBLE)), **{"Idempotency-Key": "abc"})
        assert answer.status_code == 422
        assert "Its Idempotency-Key was already used for another image" in answer.json["error"]

    def test_a_failed_upload_does_not_use_its_key_up(self, client):
        assert upload(client, b"broken", **{"Idempotency-Key": "abc"}).status_code == 415
        assert upload(client, **{"Idempotency-Key": "abc"}).status_code == 201

    def test_two_at_the_same_time_are_one(self, settings):
        detector = BrightRectangles(delay_s=0.5)
        with PredictionService(detector) as service:
            app = create_app(settings, predictor=service)
            ids = []

            def send():
                answer = upload(app.test_client(), **{"Idempotency-Key": "k"})
                if answer.status_code == 503:
                    assert answer.headers["Retry-After"] == "3"
                    while answer.status_code == 503:
                        time.sleep(0.05)  # slower than the rate that is allowed
                        answer = upload(app.test_client(), **{"Idempotency-Key": "k"})
                ids.append(answer.json["id"])

            both = [threading.Thread(target=send) for _ in range(2)]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
            app.extensions["fracture"].store.close()
        assert len(set(ids)) == 1
        assert sum(detector.batches) == 1


SAID = {
    "boxes": [
        {"number": 1, "verdict": "right", "type": "spiral", "moved_to": [20.5, 30, 61, 50]},
        {"number": 2, "verdict": "wrong", "type": None, "moved_to": None},
    ],
    "missed": [[1.5, 2, 30, 40], [50, 50, 60, 60]],
    "missed_types": [None, "greenstick"],
    "no_fracture": False,
    "unreadable": False,
    "reason": "",
    "seconds": 12.5,
    "comment": "Look at the scaphoid.",
}


class TestFeedback:
    @pytest.fixture
    def links(self, client):
        return upload(client, encoded(dark_plate(LIKELY, POSSIBLE))).json["links"]

    def test_it_is_kept_with_its_author_and_replaced(self, client, links):
        answer = client.put(links["feedback"], json=SAID)
        assert answer.status_code == 200
        said = answer.json
        assert {name: said[name] for name in SAID} == SAID
        assert said["author"] == "local"
        assert client.get(links["self"]).json["feedback"] == said
        client.put(links["feedback"], json={"no_fracture": True})
        assert client.get(links["self"]).json["feedback"]["missed"] == []

    @pytest.mark.parametrize(
        ("given", "status", "sentence"),
        [
            ({"boxes": [{"number": 3, "verdict": "right"}]}, 422, "There is no box 3; this result has 2."),
            (
                {"boxes": [{"number": 1, "verdict": "maybe"}]},
                400,
                "boxes.0.verdict: Input should be 'right' or 'wrong'.",
            ),
            ({"boxes": [{"number": 1, "verdict": "right"}] * 2}, 400, "each box has at most one verdict."),
            (
                {"boxes": [{"number": 1, "verdict": "right", "type": "broken"}]},
                422,
                "boxes.0.type: there is no type 'broken'; expected one of transverse, oblique, spiral",
            ),
            (
                {"missed": [[1, 1, 5, 5]], "missed_types": ["Spiral"]},
                422,
                "missed_types.0: there is no type 'Spiral'; expected one of transverse",
            ),
            ({"boxes": [{"number": 1, "verdict": "wrong", "type": "spiral"}]}, 400, "boxes.0: type: only a right box"),
            ({"missed": [[1, 1, 5, 5]], "missed_types": [None, None]}, 400, "missed_types: expected 1, one for each"),
            ({"missed": [[1, 1, 5, 5]], "missed_types": [""]}, 400, "missed_types.0: String should have at least 1"),
            ({"no_fracture": True, "missed": [[1, 1, 5, 5]]}, 400, "'no fracture' contradicts"),
            ({"unreadable": True, "no_fracture": True}, 400, "'unreadable' contradicts 'no fracture', a verdict"),
            ({"unreadable": True, "boxes": [{"number": 1, "verdict": "wrong"}]}, 400, "'unreadable' contradicts"),
            ({"reason": "motion"}, 400, "reason: only of a radiograph that is not readable."),
            ({"seconds": 3600.5}, 400, "seconds: Input should be less than or equal to 3600."),
            ({"seconds": -1}, 400, "seconds: Input should be greater than or equal to 0."),
            ({"seconds": "9"}, 400, "seconds: must be a number."),
            (
                {"boxes": [{"number": 1, "verdict": "wrong", "moved_to": [1, 1, 5, 5]}]},
                400,
                "boxes.0: moved_to: only a right box has one",
            ),
            (
                {"boxes": [{"number": 1, "verdict": "right", "moved_to": [1, 1, 161, 5]}]},
                422,
                "A moved box must lie inside the 160 x 120 px",
            ),
            ({"missed": [[5, 5, 1, 9]]}, 422, "A missed fracture must lie inside the 160 x 120 px"),
            ({"missed": [[-1, 5, 9, 9]]}, 422, "A missed fracture must lie inside"),
            ({"missed": [[1, 5, 161, 9]]}, 422, "A missed fracture must lie inside"),
            ({"boxes": [{"number": "1", "verdict": "right"}]}, 400, "boxes.0.number: must be a number."),
            ({"no_fracture": 0}, 400, "no_fracture: Input should be a valid boolean."),
            ({"missed": [["1", 1, 5, 5]]}, 400, "missed.0.0: Input should be a valid number."),
            ({"comment": "a\0b"}, 400, "comment: String should match pattern"),
            ({"coment": "typo"}, 400, "coment: Extra inputs are not permitted."),
            ({"comment": "x" * 2001}, 400, "comment: String should have at most 2000 characters."),
        ],
    )
    def test_what_does_not_fit_is_refused_with_its_field(self, client, links, given, status, sentence):
        answer = client.put(links["feedback"], json=given)
        assert answer.status_code == status
        assert answer.json["error"].startswith(sentence)
        assert client.get(links["self"]).json["feedback"] is None

    @pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000])
    def test_what_is_not_such_a_document_is_refused(self, client, links, body):
        answer = client.put(links["feedback"], data=body, content_type="application/json")
        assert answer.status_code == 400
        assert answer.json["ok"] is False


class TestHistory:
    @pytest.fixture
    def three(self, client):
        plates = [encoded(dark_plate(*boxes)) for boxes in ((LIKELY,), (POSSIBLE,), ())]
        return [upload(client, plate).json["id"] for plate in plates]

    def test_it_has_pages_and_filters(self, client, three):
        def ask(query):
            return client.get(f"/api/v1/predictions{query}").json

        assert [result["id"] for result in ask("")["results"]] == three[::-1]
        assert {name: ask("?per_page=2&page=2")[name] for name in ("page", "pages", "per_page", "total")} == {
            "page": 2, "pages": 2, "per_page": 2, "total": 3,
        }  # fmt: skip
        assert [result["id"] for result in ask("?finding=possible")["results"]] == [three[1]]
        assert [result["id"] for result in ask(f"?q={three[2][:12]}")["results"]] == [three[2]]
        assert ask("?since=2020-01-01&until=2020-12-31")["total"] == 0
        assert ask("?since=2020-01-01")["total"] == 3

    @pytest.mark.parametrize(
        ("query", "sentence"),
        [
            ("page=0", "page: Input should be greater than or equal to 1."),
            ("per_page=1000", "per_page: Input should be less than or equal to 100."),
            ("finding=broken", "finding: Input should be 'likely', 'possible' or 'none seen'."),
            ("since=yesterday", "since: String should match pattern"),
            ("until=2026-02-30", "until: there is no day 2026-02-30."),
            ("until=9999-12-31", "until: there is no day 9999-12-31."),
            ("q=%00", "q: String should match pattern"),
        ],
    )
    def test_what_cannot_be_asked_is_named(self, client, query, sentence):
        for path in ("/api/v1/predictions", "/history"):
            answer = client.get(f"{path}?{query}")
            assert answer.status_code == 400
        assert client.get(f"/api/v1/predictions?{query}").json["error"].startswith(sentence)

    def test_the_page_shows_and_deletes(self, client, three):
        page = client.get("/history").text
        assert [page.index(identifier[:8]) for identifier in three] == sorted(
            (page.index(identifier[:8]) for identifier in three), reverse=True
        )
        assert "Fracture likely" in page
        assert client.get("/history?finding=none+seen").text.count('<li class="entry"') == 1
        answer = client.post(f"/results/{three[0]}/delete", data={"csrf_token": form_token(client)})
        assert (answer.status_code, answer.location) == (302, "/history")
        assert three[0] not in client.get("/history").text
        assert "No results match this search" in client.get("/history?q=nowhere").text

    def test_words_are_shown_as_words(self, client, three):
        said = "<script>alert(1)</script>"
        client.put(f"/api/v1/predictions/{three[0]}/feedback", json={"comment": said})
        for path in ("/history", f"/results/{three[0]}/report", f"/history?q={said}"):
            page = client.get(path).text
            assert said not in page
            assert "&lt;script&gt;" in page

    def test_deleted_is_gone_with_its_picture(self, client, three, settings):
        link = f"/api/v1/predictions/{three[0]}"
        assert client.delete(link).status_code == 204
        assert client.delete(link).status_code == 404
        assert client.get(f"{link}/image.png").status_code == 404
        assert not (settings.data_dir / "images" / f"{three[0]}.png").exists()


class TestReport:
    def test_both_kinds_say_the_same(self, client):
        links = upload(client, encoded(dark_plate(LIKELY, POSSIBLE))).json["links"]
        client.put(links["feedback"], json={"boxes": [{"number": 1, "verdict": "right"}], "comment": "Élan → ok"})
        page = client.get(links["report"] + "?score=0.3").text
        for words in (
            "Fracture likely",
            "Research use only",
            "0" * 64,
            "likely from 0.5",
            "fracture, possible",
            "right",
            "Élan → ok",
        ):
            assert words in page
        answer = client.get(links["report_pdf"] + "?score=0.3")
        assert answer.mimetype == "application/pdf"
        assert answer.data.startswith(b"%PDF-")
        assert answer.data.count(b"/Subtype /Image") == 1

    def test_a_picture_that_was_not_kept_is_said(self, settings, service):
        app = create_app(changed(settings, keep_images=False), predictor=service)
        app.test_client_class = ClosingClient
        client = app.test_client()
        body = upload(client).json
        assert (body["links"]["image"], body["links"]["overlay"]) == (None, None)
        assert list((settings.data_dir / "images").iterdir()) == []
        assert "The image was not kept." in client.get(body["links"]["report"]).text
        assert client.get(body["links"]["report_pdf"]).status_code == 404
        assert (
            client.get(body["links"]["self"] + "/image.png").json["error"] == "The image of this result was not kept."
        )
        for path in ("/history", body["links"]["page"]):
            assert client.get(path).status_code == 200
        app.extensions["fracture"].store.close()


def test_the_metrics_count_what_happened(client, post):
    post()
    post(b"broken")
    client.get("/nowhere")
    for number in range(20):
        client.open("/", method=f"MADE-UP-{number}")
    text = client.get("/metrics").text
    assert len([line for line in text.splitlines() if "requests_total{" in line and '"other"' in line]) == 1
    assert "MADE-UP" not in text
    for line in (
        'fracture_requests_total{endpoint="api.create_prediction",method="POST",status="201"} 1.0',
        'fracture_rejects_total{reason="kind"} 1.0',
        'fracture_rejects_total{reason="not_found"} 1.0',
        'fracture_findings_total{finding="likely"} 1.0',
        'fracture_stage_seconds_count{stage="detect"} 1.0',
        'fracture_highest_score_bucket{le="0.9"} 0.0',
        'fracture_highest_score_bucket{le="1.0"} 1.0',
        "fracture_queue_depth 0.0",
    ):
        assert line in text


def test_an_image_says_how_sure_the_calibration_is_of_the_whole(settings):
    # Boxes keep their scores. The highest, 230 / 255 = .902 or odds of 9.2, gives the image odds of 9.2 / 11.2: .451.
    unchanged, lowered = ScoreMap("platt"), ScoreMap("platt", offset=-np.log(11.2))
    calibration = Calibration("platt", unchanged, lowered, fitted_on={"detector": "bright rectangles"})
    with PredictionService(BrightRectangles(calibration=calibration)) as service:
        app = create_app(settings, predictor=service)
        app.test_client_class = ClosingClient
        body = upload(app.test_client()).json
        assert body["finding"]["confidence"] == pytest.approx(0.45, abs=0.01)
        assert body["calibrated"] is True
        assert "(45 % probability)" in app.test_client().get(body["links"]["report"]).text
        app.extensions["fracture"].store.close()


def test_a_draining_server_is_not_ready(app, client, service):
    service.warm_up()
    assert client.get("/readyz").status_code == 200
    app.config["DRAINING"] = True
    assert client.get("/readyz").status_code == 503


class TestDescription:
    def test_it_is_openapi_3_1_and_names_every_address(self, app, client):
        spec = client.get("/api/openapi.json").json
        assert spec["openapi"] == "3.1.0"
        described = {(method.upper(), path) for path, operations in spec["paths"].items() for method in operations}
        served = {
            (method, str(rule).replace("<", "{").replace(">", "}"))
            for rule in app.url_map.iter_rules()
            if rule.endpoint.split(".")[0] in ("api", "readings", "probes")
            for method in rule.methods - {"HEAD", "OPTIONS"}
        }
        assert described == served
        for operations in spec["paths"].values():
            for operation in operations.values():
                assert operation["responses"]

    def test_every_response_is_as_described(self, client):
        body = upload(client).json
        wanted = client.get("/api/openapi.json").json["components"]["schemas"]["PredictionSchema"]
        assert set(body) == set(wanted["properties"])

    def test_people_can_read_it(self, client):
        page = client.get("/api").text
        assert "POST /api/v1/predictions" in page
        assert "idempotency" in page.lower()
        assert "OpenAPI 3.1.0" in page


def test_a_picture_that_was_cut_short_is_not_there(client, settings):
    links = upload(client).json["links"]
    (picture,) = (settings.data_dir / "images").iterdir()
    picture.write_bytes(picture.read_bytes()[:40])
    for link in (links["overlay"], links["report_pdf"]):
        assert client.get(link).status_code == 404


def test_drawing_takes_turns(app, client, monkeypatch):
    monkeypatch.setattr("webapp.uploads.DRAWING_TIMEOUT_S", 0.0)
    link = upload(client).json["links"]["overlay"]
    places = app.extensions["fracture"].drawing
    assert places.acquire()
    assert client.get(link).status_code == 200
    assert places.acquire()
    assert client.get(link).status_code == 503
    places.release()
    assert client.get(link).status_code == 200


def test_served_pictures_are_made_anew(client):
    # A PNG with a program behind its end: what is served is what was decoded.
    link = upload(client, PLATE + b"<script>alert(1)</script>").json["links"]["image"]
    answer = client.get(link)
    assert b"script" not in answer.data
    assert (np.asarray(Image.open(io.BytesIO(answer.data))) == dark_plate(LIKELY)).all()
