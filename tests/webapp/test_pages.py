"""The pages work without JavaScript, show errors beside results, and let nothing foreign in."""

import io
import re

import pytest

from tests.webapp.bright import dark_plate
from tests.webapp.conftest import LIKELY, encoded, form_token


def send(client, files):
    data = {"file": files, "csrf_token": form_token(client)}
    return client.post("/", data=data, content_type="multipart/form-data")


def test_the_upload_page_says_what_it_is_and_which_model_speaks(client):
    page = client.get("/").text
    assert "Research use only. Not a medical device." in page
    assert "bright rectangles" in page
    assert 'href="/model"' in page
    assert "up to 1 MB each" in page


def test_the_plain_form_shows_each_file_with_its_own_result_or_error(client):
    files = [
        (io.BytesIO(encoded(dark_plate(LIKELY))), "<wrist>.png"),
        (io.BytesIO(b"broken"), "elbow.png"),
        (io.BytesIO(encoded(dark_plate())), "hand.png"),
    ]
    answer = send(client, files)
    assert answer.status_code == 200
    articles = re.findall(r"<article.*?</article>", answer.text, re.DOTALL)
    assert len(articles) == 3
    assert "&lt;wrist&gt;.png" in articles[0]
    assert "Fracture likely" in articles[0]
    assert "This file was not analysed." in articles[1]
    assert "No fracture seen" not in articles[1]
    assert "No fracture seen" in articles[2]
    assert "does not rule one out" in articles[2]


def test_the_plain_form_without_a_good_file_has_the_status_of_the_refusal(client):
    answer = send(client, [(io.BytesIO(b"broken"), "a.png")])
    assert answer.status_code == 415
    assert "not a JPEG, PNG or DICOM" in answer.text
    answer = send(client, [])
    assert answer.status_code == 400
    assert "No file was chosen" in answer.text


def test_a_result_has_a_page_of_its_own(client, post):
    page = client.get(post().json["links"]["page"] + "?score=0.3").text
    assert page.count('<li class="box') == 2
    assert "overlay.png?score=0.3" in page
    assert "2 shown at or above 0.3 (operating point 0.5)" in page


def test_the_model_card_is_shown_without_its_html(client):
    page = client.get("/model").text
    assert "<h1>Bright rectangles</h1>" in page
    assert "<strong>bright</strong>" in page
    assert "<td>threshold</td>" in page
    assert "<script>alert" not in page
    assert "0" * 64 in page


def test_comments_of_the_card_are_not_shown_beside_its_tables(client, service):
    card = service.info.card
    table = "| figure | value |\n| --- | --- |\n| AP50 | .5 |\n"
    card.write_text(f"# Card\n\n<!-- figures: card -->\n{table}<!-- end of figures -->\n\nText.\n", encoding="utf-8")
    page = client.get("/model").text
    assert "<td>AP50</td>" in page
    assert "figures" not in page


def test_a_detector_without_a_card_says_so(client, service):
    service.info.card.unlink()
    assert "comes without a model card" in client.get("/model").text


def test_an_unknown_page_is_a_page(client):
    answer = client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.content_type.startswith("text/html")
    assert "There is no such page or result. Results are deleted after 1 day." in answer.text


@pytest.mark.parametrize(
    "path", ["/", "/model", "/nowhere", "/healthz", "/api/v1/nothing", "/static/app.js", "/favicon.ico"]
)
def test_every_response_has_the_headers_that_keep_it_safe(client, path):
    answer = client.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert (answer.headers["Cache-Control"] == "no-store") == (not path.startswith("/static"))


def test_no_page_has_inline_script_or_style_or_a_foreign_address(client, post):
    pages = [client.get(path).text for path in ("/", "/model", "/nowhere", post().json["links"]["page"])]
    pages.append(send(client, [(io.BytesIO(encoded(dark_plate(LIKELY))), "a.png")]).text)
    for page in pages:
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\son\w+=|javascript:", page)
        assert not re.search(r"""(src|href|action)=["'](https?:)?//""", page)
