"""Several readers of one result, in the API and on the pages: blind readings, what is settled, how readers agree."""

import pytest

from tests.webapp.bright import dark_plate
from tests.webapp.conftest import LIKELY, changed, encoded
from tests.webapp.test_auth import PASSWORD, browser, upload
from tests.webapp.test_suitability import text_of
from webapp.store.accounts import ADJUDICATOR, READER, AccountError

RIGHT = {"boxes": [{"number": 1, "verdict": "right"}], "seconds": 20}
MOVED = {"boxes": [{"number": 1, "verdict": "right", "moved_to": [22, 30, 62, 50]}], "seconds": 40}
NONE = {"no_fracture": True, "comment": "an old scar"}


@pytest.fixture
def settings(settings):
    return changed(settings, login=True, secret_key="k" * 32, logins_per_minute=0, shared_reading=True)


@pytest.fixture
def readers(app):
    """Return a client of each of three readers, of an adjudicator and of a newcomer."""
    accounts = app.extensions["fracture"].store.accounts
    for name in ("anna", "ben", "eve"):
        accounts.add_user(name, READER, PASSWORD, by="test")
    accounts.add_user("carla", ADJUDICATOR, PASSWORD, by="test")
    return {name: browser(app, name) for name in ("anna", "ben", "eve", "carla")}


@pytest.fixture
def links(readers):
    return upload(readers["anna"], encoded(dark_plate(LIKELY))).json["links"]


def say(readers, links, name, said):
    answer = readers[name].put(links["feedback"], json=said)
    assert answer.status_code == 200, answer.json
    return answer.json


def settle(readers, links, said, by="carla"):
    path = links["feedback"].replace("feedback", "settlement")
    return readers[by].put(path, json=said)


def test_nobody_overwrites_another_and_readings_are_blind_until_ones_own_is_finished(readers, links):
    say(readers, links, "anna", NONE)
    say(readers, links, "anna", RIGHT | {"comment": "a new scar"})  # her latest
    blind = readers["ben"].get(links["self"]).json
    assert (blind["feedback"], blind["others"], blind["hidden_readings"], blind["settled"]) == (None, [], 1, None)
    texts = [readers["ben"].get(path).text for path in (links["page"], links["report"], "/history")]
    texts.append(text_of(readers["ben"].get(links["report_pdf"]).data))
    assert not any("Feedback by" in text or "anna, 20" in text for text in texts)
    found = {name: readers[name].get("/api/v1/predictions?q=scar").json["total"] for name in ("anna", "ben", "carla")}
    assert found == {"anna": 1, "ben": 0, "carla": 1}

    say(readers, links, "ben", {"comment": "more later"})  # not finished: he still sees nothing
    hidden = readers["ben"].get(links["readings"]).json
    assert (hidden["others"], hidden["hidden"], hidden["disagreements"], hidden["problem"]) == ([], 1, [], "")
    ben = say(readers, links, "ben", NONE)
    seen = readers["ben"].get(links["readings"]).json
    assert (seen["own"], seen["hidden"], seen["disagreements"]) == (ben, 0, ["fractured or not"])
    assert [(one["author"], one["boxes"][0]["number"], one["seconds"]) for one in seen["others"]] == [("anna", 1, 20.0)]
    assert readers["anna"].get(links["self"]).json["others"] == [ben]
    assert "Feedback by anna: 1 box judged" in readers["ben"].get("/history").text
    report = text_of(readers["ben"].get(links["report_pdf"]).data)
    assert "Reader 2: anna" in report


def test_an_adjudicator_sees_all_and_settles(readers, links, app):
    say(readers, links, "anna", RIGHT)
    say(readers, links, "ben", NONE)
    result = readers["carla"].get(links["self"]).json
    assert [one["author"] for one in result["others"]] == ["anna", "ben"]
    said = readers["carla"].get("/api/v1/readings").json
    (disputed,) = said["queue"]
    assert (disputed["id"], disputed["disagreements"]) == (result["id"], ["fractured or not"])
    assert disputed["marks"] == [[[20.0, 30.0, 60.0, 50.0]], []]
    assert settle(readers, links, {"comment": "?"}).json["error"] == "Not settled: box 1 was not judged."
    settled = settle(readers, links, MOVED)
    assert (settled.status_code, settled.json["author"]) == (200, "carla")
    said = readers["carla"].get("/api/v1/readings").json
    assert (said["images"], said["settled"], said["queue"]) == (1, 1, [])
    assert readers["ben"].get(links["self"]).json["settled"] == settled.json
    assert "Settled: carla" in text_of(readers["ben"].get(links["report_pdf"]).data)
    assert "right, moved" in readers["ben"].get(links["report"]).text
    with app.extensions["fracture"].store._database.reading() as session:
        from webapp.store.models import AuditRow

        lines = [(row.actor, row.action) for row in session.query(AuditRow).order_by(AuditRow.number)]
    assert lines[-3:] == [("anna", "feedback"), ("ben", "feedback"), ("carla", "settle")]
    assert app.extensions["fracture"].store.audit.verify().lines == len(lines)


def test_only_adjudicators_settle_and_see_the_queue_and_only_owners_delete(readers, links):
    assert links["settlement"] is None
    assert settle(readers, links, RIGHT, by="anna").status_code == 403
    for path in ("/api/v1/readings", "/readings", f"/readings/{links['self'].rpartition('/')[2]}"):
        assert readers["anna"].get(path).status_code == 403, path
        assert readers["carla"].get(path).status_code == 200, path
    assert 'href="/readings"' not in readers["anna"].get("/").text
    for name in ("ben", "carla"):
        assert readers[name].delete(links["self"]).status_code == 403
        assert "Delete this result</button>" not in readers[name].get(links["page"]).text
    assert readers["anna"].delete(links["self"]).status_code == 204


def test_agreement_has_counts_and_the_times_of_readers(readers):
    films = [upload(readers["anna"], encoded(dark_plate(LIKELY) + number)).json["links"] for number in range(4)]
    for links, (anna, ben) in zip(films, [(RIGHT, MOVED), (RIGHT, NONE), (NONE, NONE), (RIGHT, {})], strict=True):
        say(readers, links, "anna", anna)
        say(readers, links, "ben", ben)
    say(readers, films[2], "eve", {"unreadable": True, "reason": "motion"})
    said = readers["carla"].get("/api/v1/readings").json
    assert (said["images"], said["agreed"], said["unfinished"], len(said["queue"])) == (4, 1, 1, 2)
    assert [disputed["disagreements"] for disputed in said["queue"]] == [["fractured or not"], ["readable or not"]]
    (pair,) = said["agreement"]["pairs"]
    counts = [pair[name] for name in ("images", "both_fractured", "only_first", "only_second", "neither", "unreadable")]
    assert (pair["readers"], counts) == (["anna", "ben"], [3, 1, 1, 0, 1, 0])
    assert pair["kappa"]["value"] == pytest.approx(0.4)  # po = 2/3, pe = 2/3 x 1/3 + 1/3 x 2/3
    assert (pair["boxes"]["value"], pair["n_boxes"]) == (pytest.approx(2 / 3, abs=1e-4), 3)
    rows = {row["reader"]: row for row in said["readers"]}
    assert rows["anna"] | {"reader": 0} == {
        "reader": 0, "readings": 4, "unfinished": 0, "unreadable": 0, "fractured": 3, "median_seconds": 20.0,
    }  # fmt: skip
    assert (rows["ben"]["unfinished"], rows["ben"]["median_seconds"], rows["eve"]["unreadable"]) == (1, 40.0, 1)
    page = readers["carla"].get("/readings").text
    assert "4 radiographs with two readings or more: 1 agreed, 0 settled, 2 to settle, 1 unfinished." in page
    assert "not readable (motion)" in page


def test_without_shared_reading_a_reader_has_ones_own_results_only(settings, service):
    from webapp import create_app

    app = create_app(changed(settings, shared_reading=False), predictor=service)
    accounts = app.extensions["fracture"].store.accounts
    for name, role in (("anna", READER), ("ben", READER), ("carla", ADJUDICATOR)):
        accounts.add_user(name, role, PASSWORD, by="test")
    links = upload(browser(app, "anna"), encoded(dark_plate(LIKELY))).json["links"]
    assert browser(app, "ben").put(links["feedback"], json=RIGHT).status_code == 404
    assert browser(app, "ben").get(links["readings"]).status_code == 404
    assert browser(app, "carla").get(links["readings"]).status_code == 200
    app.extensions["fracture"].store.close()


def test_without_a_second_reader_the_page_says_what_is_needed(readers):
    assert "No radiograph has two readings yet." in readers["carla"].get("/readings").text


def test_what_was_settled_of_a_result_that_nobody_read_is_not_told_to_a_reader(readers, links):
    settle(readers, links, {"unreadable": True})
    answer = readers["ben"].get(links["feedback"].replace("feedback", "readings")).json
    assert (answer["own"], answer["settled"], answer["problem"], answer["disagreements"]) == (None, None, "", [])


@pytest.mark.parametrize(
    "said",
    [
        {"boxes": [{"number": 1, "verdict": "right", "moved_to": [22, 30, 23.9, 50]}]},
        {"missed": [[22, 30, 62, 31.5]]},
    ],
)
def test_a_box_that_no_annotation_can_hold_is_refused(readers, links, said):
    answer = readers["anna"].put(links["feedback"], json=said)
    assert answer.status_code == 422
    assert "sides of at least 2 px" in answer.json["error"]


def test_nobody_inherits_the_readings_of_a_former_user(readers, links, app):
    say(readers, links, "eve", RIGHT)
    accounts = app.extensions["fracture"].store.accounts
    accounts.remove_user("eve", by="test")
    with pytest.raises(AccountError, match="readings of a former eve"):
        accounts.add_user("eve", READER, PASSWORD, by="test")
