"""The API: an upload comes in, a body goes out, and every error is a sentence."""

import html
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fracture_det.inference.service import PredictionService
from tests.webapp.bright import BrightRectangles, dark_plate
from tests.webapp.conftest import LIKELY, POSSIBLE, WEAK, changed, encoded
from webapp import create_app


def test_an_upload_gets_boxes_in_pixels_and_the_links_to_everything_else(client, post):
    answer = post()
    assert answer.status_code == 201
    body = answer.json
    assert body["ok"] is True
    assert body["detections"] == [
        {
            "number": 1,
            "box_xyxy_px": [20.0, 30.0, 60.0, 50.0],
            "score": 0.901961,
            "label": "fracture",
            "level": "likely",
            "types": None,
        }
    ]
    assert (body["types"], body["type"]) == (None, None)
    assert body["image"] == {"height": 120, "width": 160, "bits": 8, "window": [0, 255]}
    assert body["model"] == "bright rectangles"
    assert body["latency_ms"] > 0
    assert body["finding"]["level"] == "likely"
    assert body["notice"] == "Research use only. Not a medical device."
    assert (body["score"], body["operating_score"], body["possible_score"]) == (
        0.5,
        0.5,
        0.25,
    )
    assert answer.headers["Location"] == body["links"]["self"]
    assert body["links"].pop("samples") is None
    for name, link in body["links"].items():
        assert client.get(link).status_code == (405 if name in ("feedback", "settlement") else 200), name
    assert client.get(body["links"]["self"]).json == answer.json


def test_a_lower_score_shows_the_weaker_boxes_with_their_levels(client, post):
    body = post(query="?score=0.05").json
    assert [(box["number"], box["level"]) for box in body["detections"]] == [
        (1, "likely"),
        (2, "possible"),
        (3, "weak"),
    ]
    fewer = client.get(body["links"]["self"] + "?score=0.3").json
    assert fewer["detections"] == body["detections"][:2]
    assert fewer["score"] == 0.3


@pytest.mark.parametrize(
    ("rectangles", "level", "title"),
    [
        ((LIKELY, WEAK), "likely", "Fracture likely"),
        ((POSSIBLE, WEAK), "possible", "Fracture possible"),
        ((WEAK,), "none seen", "No fracture seen"),
        ((), "none seen", "No fracture seen"),
    ],
)
def test_the_finding_follows_the_highest_score_and_not_the_slider(post, rectangles, level, title):
    data = encoded(dark_plate(*rectangles))
    for query in ("", "?score=0", "?score=1"):
        finding = post(data, query=query).json["finding"]
        assert (finding["level"], finding["title"]) == (level, title)


@pytest.mark.parametrize("score", ["1.01", "-0.1", "nan", "inf", "half", "0,5"])
def test_a_score_outside_0_to_1_is_refused(client, post, score):
    link = post().json["links"]
    for answer in (post(query=f"?score={score}"), client.get(f"{link['self']}?score={score}"),
                   client.get(f"{link['overlay']}?score={score}")):  # fmt: skip
        assert answer.status_code == 400
        assert answer.json["error"] == "score: must be a number between 0 and 1, such as 0.50."


def _turned(plate: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(np.rot90(plate), exif=exif)


def _with_alpha(plate: np.ndarray) -> bytes:
    image = Image.fromarray(plate).convert("LA")
    image.putalpha(255)
    return encoded(image)


PLATE = dark_plate(LIKELY)
ACCEPTED = {
    "grey PNG": lambda: encoded(PLATE),
    "16-bit PNG": lambda: encoded(PLATE.astype(np.uint16) * 16),
    "PNG with alpha": lambda: _with_alpha(PLATE),
    "palette PNG": lambda: encoded(Image.fromarray(PLATE).convert("P")),
    "colour PNG": lambda: encoded(Image.fromarray(PLATE).convert("RGB")),
    "EXIF-turned PNG": lambda: _turned(PLATE),
    "grey JPEG": lambda: encoded(PLATE, "JPEG", quality=95),
    "colour JPEG": lambda: encoded(Image.fromarray(PLATE).convert("RGB"), "JPEG", quality=95),
    "CMYK JPEG": lambda: encoded(Image.fromarray(PLATE).convert("RGB").convert("CMYK"), "JPEG", quality=95),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_every_kind_of_jpeg_and_png_gives_the_same_box(post, kind):
    answer = post(ACCEPTED[kind]())
    assert answer.status_code == 201, answer.json
    assert (answer.json["image"]["height"], answer.json["image"]["width"]) == (120, 160)
    assert answer.json["image"]["bits"] == (12 if kind == "16-bit PNG" else 8)
    box = answer.json["detections"][0]["box_xyxy_px"]
    assert np.abs(np.array(box) - LIKELY[:4]).max() <= 8 * ("JPEG" in kind)  # JPEG blurs within blocks of 8


def of_12_bits(jpeg):
    """Return a JPEG whose start of frame announces 12 bits."""
    return jpeg.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc0\0\x0b\x0c")


def png_of(width: int, height: int) -> bytes:
    """Return a black grey PNG, written by hand, as an encoder would refuse its size."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + width) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


NOT = "This file was not analysed."
REFUSED = [
    ("a GIF", lambda: encoded(PLATE, "GIF"), 415, f"{NOT} It is a GIF image, which is not read"),
    ("a BMP", lambda: encoded(PLATE, "BMP"), 415, f"{NOT} It is a BMP image, which is not read"),
    ("JPEG 2000", lambda: encoded(PLATE, "JPEG2000"), 415, f"{NOT} It is a JPEG 2000 image, which is not read"),
    ("12 bits", lambda: of_12_bits(encoded(PLATE, "JPEG")), 415, f"{NOT} It is a 12-bit JPEG, which is not read"),
    ("text", lambda: b"no image at all", 415, f"{NOT} It is not a JPEG, PNG or DICOM image"),
    ("nothing", lambda: b"", 422, f"{NOT} It is empty"),
    ("half a PNG", lambda: encoded(PLATE)[:-60], 422, f"{NOT} It is damaged or incomplete (truncated: "),
    ("half a JPEG", lambda: encoded(PLATE, "JPEG")[:400], 422, f"{NOT} It is damaged or incomplete"),
    (
        "a JPEG without its end",
        lambda: encoded(PLATE, "JPEG")[:-60] + b"\xff\xd9",
        422,
        f"{NOT} It is damaged or inc"
        "omplete (truncated: part of its picture was never coded); please export the radiograph again.",
    ),
    ("a JPEG header", lambda: b"\xff\xd8\xff\xe0\x00", 422, f"{NOT} It is damaged or incomplete"),
    (
        "1.44 megapixels",
        lambda: encoded(np.zeros((1200, 1200), np.uint8)),
        413,
        f"{NOT} It is too large (1,200 x 1,200 pixels, at most 1,000,000 are read)",
    ),
    (
        "a side of 2,000,000",
        lambda: png_of(2_000_000, 1),
        413,
        f"{NOT} It is too large (2,000,000 x 1 pixels, at most 65,535 on a side are read)",
    ),
    ("1 MiB and a byte", lambda: bytes(1024 * 1024 + 1), 413, f"{NOT} It is larger than 1 MB"),
    ("3 MiB", lambda: bytes(3 * 1024 * 1024), 413, "The upload is larger than 1 MB"),
]


@pytest.mark.parametrize(("data", "status", "sentence"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_cannot_be_analysed_is_refused_with_a_sentence(post, data, status, sentence):
    answer = post(data())
    assert answer.status_code == status
    assert answer.json.keys() == {"ok", "error", "status"}
    assert answer.json["ok"] is False
    assert answer.json["status"] == status
    assert answer.json["error"].startswith(sentence)


def test_a_request_without_a_file_or_with_two_is_refused(client):
    image, *two_images = [(io.BytesIO(encoded(PLATE)), "a.png") for _ in range(3)]
    for data, got in (({}, "got none"), ({"image": image}, "got none"), ({"file": two_images}, "got 2")):
        answer = client.post("/api/v1/predictions", data=data, content_type="multipart/form-data")
        assert answer.status_code == 400
        assert got in answer.json["error"]


def part(disposition: str, content: bytes = b"") -> bytes:
    """Return one part of a form, as a client writes it."""
    return f"--frame\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"


FORM = "multipart/form-data; boundary=frame"
LARGE = bytes(800_000)  # larger than werkzeug's own limit for the texts of a form
NO_IMAGE = [
    ("text", FORM, part('name="file"', encoded(PLATE)), "the part 'file' came as text, without a file name"),
    ("large text", FORM, part('name="file"', LARGE), "the part 'file' came as text, without a file name"),
    ("another name", FORM, part('name="image"; filename="a.png"', b"x"), "the form has only 'image'"),
    ("only fields", FORM, part('name="a"', b"x") + part('name="b"', b"y"), "the form has only 'a', 'b'"),
    ("no part", FORM, b"", "the form has no part that can be read"),
    (
        "another boundary",
        "multipart/form-data; boundary=x",
        part('name="file"; filename="a"', b"x"),
        "no part that can",
    ),
    ("no boundary", "multipart/form-data", part('name="file"; filename="a"', b"x"), "no part that can be read"),
    ("a raw body", "image/png", encoded(PLATE), "the body came as image/png, not as a form"),
    ("JSON", "application/json", b'{"file": "a.png"}', "the body came as application/json, not as a form"),
    ("url-encoded", "application/x-www-form-urlencoded", b"file=a.png", "came as application/x-www-form-urlencoded"),
    ("no type", "", b"x", "the body is not a form (multipart/form-data)"),
]


@pytest.mark.parametrize(("kind", "body", "got"), [row[1:] for row in NO_IMAGE], ids=[row[0] for row in NO_IMAGE])
@pytest.mark.parametrize("path", ["/api/v1/predictions", "/"])
def test_a_request_without_an_image_is_told_what_came_instead(app, kind, body, got, path):
    app.config["WTF_CSRF_ENABLED"] = False
    end = b"--frame--\r\n" if "multipart" in kind else b""
    answer = app.test_client().post(path, data=body + end, content_type=kind)
    assert answer.status_code == 400
    text = answer.json["error"] if answer.is_json else html.unescape(answer.text)
    assert (
        "Send exactly one JPEG, PNG or DICOM image as the part 'file' of a form, in curl with -F file=@wrist.png; "
        in text
    )
    assert f"got none: {got}" in text or (got in text and "got none: " in text)


def test_a_file_without_a_name_is_analysed_and_one_without_content_was_not_chosen(client):
    for content, status in ((encoded(PLATE), 201), (b"", 400)):
        body = part('name="file"; filename=""', content) + b"--frame--\r\n"
        answer = client.post("/api/v1/predictions", data=body, content_type=FORM)
        assert answer.status_code == status
    assert answer.json["error"] == "No file was chosen. Please choose a JPEG, PNG or DICOM image."


def test_a_form_of_too_many_parts_is_not_called_too_large(client):
    body = part('name="a"', b"x") * 51 + b"--frame--\r\n"
    answer = client.post("/api/v1/predictions", data=body, content_type=FORM)
    assert (answer.status_code, answer.json["error"]) == (413, "The form has more than 50 parts, which is the limit.")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/predictions/0123456789abcdef0123456789abcdef", 404),
        ("GET", "/api/v1/predictions/..%2f..%2fetc/overlay.png", 404),
        ("GET", "/api/v1/predictions/nobody/image.png", 404),
        ("GET", "/api/v2/anything", 404),
        ("PUT", "/api/v1/predictions", 405),
        ("DELETE", "/api/v1/predictions", 405),
    ],
)
def test_flasks_own_errors_have_the_same_shape(client, method, path, status):
    answer = client.open(path, method=method)
    assert answer.status_code == status
    assert answer.json == {"ok": False, "error": answer.json["error"], "status": status}
    assert answer.headers["Cache-Control"] == "no-store"
    if status == 405:
        assert "POST" in answer.headers["Allow"]


def test_a_detector_that_raises_is_a_failure_and_no_finding(post):
    plate = np.zeros((50, 50, 3), np.uint8)
    plate[0, 0] = (255, 0, 0)
    answer = post(encoded(plate))
    assert answer.status_code == 500
    assert answer.json["error"] == f"{NOT} The analysis failed on the server; this says nothing about a fracture."
    assert post().status_code == 201


def test_a_crash_of_the_server_is_a_sentence_too(app, post, caplog, monkeypatch):
    monkeypatch.setattr(app.extensions["fracture"].metrics, "result", lambda _: 1 / 0)
    answer = post(name="doe^john.png")
    assert answer.status_code == 500
    assert answer.json["error"].startswith("Something failed on the server, so there is no result")
    assert "ZeroDivisionError" in caplog.text
    assert "doe" not in caplog.text


def test_a_broken_database_is_a_sentence_and_no_finding(app, post, caplog):
    app.extensions["fracture"].store.close()
    database = app.extensions["fracture"].settings.data_dir / "results.sqlite3"
    database.write_bytes(b"not a database at all" * 100)
    answer = post(name="doe^john.png")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
    assert answer.json["error"].startswith("The server cannot store results at the moment, so there is no result")
    assert "file is not a database" in caplog.text
    assert "doe" not in caplog.text


def test_a_full_queue_says_busy_and_when_to_come_again(settings):
    with PredictionService(BrightRectangles(delay_s=0.5), queue_size=1) as service:
        app = create_app(settings, predictor=service)
        assert service._places.acquire()
        answer = app.test_client().post("/api/v1/predictions", data={"file": (io.BytesIO(encoded(PLATE)), "a.png")})
        service._places.release()
        app.extensions["fracture"].store.close()
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "3"
    assert answer.json["error"].startswith(f"{NOT} Too many radiographs are waiting")


def test_the_probes_tell_alive_from_ready(client, service):
    assert client.get("/healthz").json == {"ok": True}
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["ok"], answer.json["status"]) == (503, False, 503)
    service.warm_up()
    assert client.get("/readyz").json == {"ok": True, "model": "bright rectangles", "version": None, "problem": None}


def test_the_image_comes_back_upright_and_without_metadata(client, post):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "Doe, John"
    body = post(encoded(np.rot90(PLATE), exif=exif, pnginfo=None)).json
    answer = client.get(body["links"]["image"])
    image = Image.open(io.BytesIO(answer.data))
    assert answer.content_type == "image/png"
    assert (np.asarray(image) == PLATE).all()
    assert not image.info
    assert b"Doe" not in answer.data


def test_the_overlay_draws_the_boxes_above_the_score(client, post):
    overlay = post().json["links"]["overlay"]
    plain = np.repeat(dark_plate(LIKELY, POSSIBLE, WEAK)[:, :, None], 3, axis=2)
    marked = {}
    for score in ("", "?score=0.05", "?score=0.99"):
        image = np.asarray(Image.open(io.BytesIO(client.get(overlay + score).data)).convert("RGB"))
        assert image.shape == plain.shape
        marked[score] = int((image != plain).any(axis=2).sum())
    assert marked["?score=0.05"] > marked[""] > marked["?score=0.99"] == 0
    for longest_px, size in ((40, (40, 30)), (1000, (160, 120))):
        answer = client.get(f"{overlay}?longest_px={longest_px}")
        assert Image.open(io.BytesIO(answer.data)).size == size


def test_the_settings_decide_what_is_likely(settings, post, service):
    app = create_app(changed(settings, score=0.95, possible_score=0.2), predictor=service)
    answer = app.test_client().post("/api/v1/predictions", data={"file": (io.BytesIO(encoded(PLATE)), "a.png")})
    assert answer.json["detections"] == []
    assert answer.json["finding"]["level"] == "possible"
    app.extensions["fracture"].store.close()


@pytest.mark.parametrize(("own", "setting", "expected"), [(0.1, None, 0.1), (0.6, None, 0.25), (0.1, 0.3, 0.3)])
def test_what_is_possible_is_the_setting_else_the_detectors_own_unless_above_its_operating_point(
    settings, own, setting, expected
):
    with PredictionService(BrightRectangles(possible_score=own), max_pixels=settings.max_pixels) as service:
        app = create_app(changed(settings, possible_score=setting), predictor=service)
        answer = app.test_client().post("/api/v1/predictions", data={"file": (io.BytesIO(encoded(PLATE)), "a.png")})
        assert answer.json["possible_score"] == expected
        app.extensions["fracture"].store.close()


def test_a_score_that_equals_the_operating_point_is_likely(settings, service):
    app = create_app(changed(settings, score=0.9), predictor=service)
    # Half 229 and half 230: a mean of 229.5 / 255 = .9, which as float32 is .89999998.
    data = encoded(dark_plate((20, 30, 60, 40, 229), (20, 40, 60, 50, 230)))
    answer = app.test_client().post("/api/v1/predictions", data={"file": (io.BytesIO(data), "a.png")})
    assert [(box["score"], box["level"]) for box in answer.json["detections"]] == [(0.9, "likely")]
    app.extensions["fracture"].store.close()
