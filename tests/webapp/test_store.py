"""Results are kept under random names for a while, and then they are gone: in SQLite and in PostgreSQL."""

import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from fracture_det.inference.service import PredictionService
from fracture_det.structures.readings import Reading
from tests.webapp.bright import BrightRectangles, TypedRectangles, dark_plate
from tests.webapp.conftest import LIKELY, POSSIBLE, encoded
from webapp.store import HistoryFilter, ResultMetadata, Store, StoreError, StoreUnavailable
from webapp.store.database import Database
from webapp.store.models import Base

METADATA = ResultMetadata("anna", "likely", "1" * 64, 0.5, 0.25)
SAID = Reading({1: "right", 2: "wrong"}, ((1.0, 2.0, 30.0, 40.0),), False, "scaphoid, look again", types={1: "spiral"})

# Back to one feedback per result, without versions, shadows and the watch.
OF_0008 = (
    "ALTER TABLE predictions DROP COLUMN model_version",
    "ALTER TABLE predictions DROP COLUMN features",
    "DROP TABLE shadow_answers",
    "DROP TABLE watch_days",
    "CREATE TABLE feedback (prediction_id VARCHAR PRIMARY KEY REFERENCES predictions (id) ON DELETE CASCADE, author"
    " VARCHAR NOT NULL, updated_at DOUBLE PRECISION NOT NULL, verdicts JSON NOT NULL, missed JSON NOT NULL,"
    " no_fracture BOOLEAN NOT NULL, comment TEXT NOT NULL, types JSON, missed_types JSON)",
    "INSERT INTO feedback SELECT prediction_id, author, updated_at, verdicts, missed, no_fracture, comment, types,"
    " missed_types FROM readings",
    "DROP TABLE readings",
    "DROP TABLE settlements",
    "UPDATE alembic_version SET version_num = '0008'",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The URL of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'results.sqlite3'}"
    server = request.getfixturevalue("postgresql_url")
    engine = create_engine(server.replace("postgresql", "postgresql+psycopg", 1))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return server


@pytest.fixture
def prediction():
    with PredictionService(BrightRectangles()) as service:
        return service.predict(encoded(dark_plate(LIKELY, POSSIBLE)))


def opened(tmp_path, url, **options) -> Store:
    return Store(tmp_path / "instance", url=url, **options)


@pytest.fixture
def store(tmp_path, url):
    store = opened(tmp_path, url)
    yield store
    store.close()


def change(store: Store, statement: str, **values: object) -> None:
    """Change the database behind the store's back."""
    with store._database.writing() as session:
        session.execute(text(statement), values)


def test_what_goes_in_comes_out(store, prediction):
    stored = store.results.add(replace(prediction, confidence=0.75), METADATA)
    again = store.results.get(stored.id)
    assert again.detections.boxes.tolist() == prediction.detections.boxes.tolist()
    assert again.detections.scores.tolist() == prediction.detections.scores.tolist()
    assert again.labels == ("fracture", "fracture")
    assert (again.height, again.width, again.model) == (120, 160, "bright rectangles")
    assert (again.owner, again.finding, again.confidence, again.calibrated) == ("anna", "likely", 0.75, False)
    assert (again.operating_score, again.possible_score, again.input_sha256) == (0.5, 0.25, "1" * 64)
    assert again.latency_ms == prediction.latency_ms
    assert again.image_path.is_file()
    assert (again.readings, again.settled) == ((), None)


def test_the_types_of_boxes_come_out_with_what_the_detector_said_of_them(store):
    with PredictionService(TypedRectangles()) as service:
        typed = service.predict(encoded(dark_plate(LIKELY, POSSIBLE)))
    again = store.results.get(store.results.add(typed, METADATA).id)
    assert again.type_names == ("spiral", "transverse", "longitudinal")
    assert (again.type_confidence, again.type_accuracy) == (0.5, 0.71)
    assert again.detections.types.tolist() == typed.detections.types.tolist()
    none_found = replace(typed, detections=typed.detections.above(1.0))
    assert store.results.add(none_found, METADATA).detections.types is None


def test_a_detector_without_types_leaves_none(store, prediction):
    again = store.results.add(prediction, METADATA)
    assert (again.type_names, again.type_confidence, again.type_accuracy) == ((), None, None)
    assert again.detections.types is None


def test_a_result_without_boxes_is_a_result(store, prediction):
    empty = replace(prediction, detections=prediction.detections.above(1.0))
    stored = store.results.add(empty, replace(METADATA, finding="none seen"))
    assert stored.detections.boxes.shape == (0, 4)


def test_another_opening_finds_the_same_results(store, prediction, tmp_path, url):
    stored = store.results.add(prediction, METADATA)
    again = opened(tmp_path, url)
    assert again.results.get(stored.id) is not None
    again.close()


def test_the_migrations_make_the_tables_that_the_code_expects(store):
    with store._database._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_database_of_before_the_migrations_keeps_its_results(tmp_path):
    database = sqlite3.connect(tmp_path / "old.sqlite3")
    database.executescript(
        "CREATE TABLE predictions (id VARCHAR NOT NULL PRIMARY KEY, created_at FLOAT NOT NULL, height INTEGER NOT NULL,"
        " width INTEGER NOT NULL, model VARCHAR NOT NULL, model_sha256 VARCHAR, operating_score FLOAT NOT NULL,"
        " possible_score FLOAT NOT NULL, latency_ms JSON NOT NULL);"
        "CREATE INDEX ix_predictions_created_at ON predictions (created_at);"
        "CREATE TABLE detections (prediction_id VARCHAR NOT NULL REFERENCES predictions (id) ON DELETE CASCADE, number"
        " INTEGER NOT NULL, x0 FLOAT NOT NULL, y0 FLOAT NOT NULL, x1 FLOAT NOT NULL, y1 FLOAT NOT NULL, score FLOAT NOT"
        " NULL, label VARCHAR NOT NULL, PRIMARY KEY (prediction_id, number));"
        f"""INSERT INTO predictions VALUES ('a', {time.time()}, 9, 9, 'm', NULL, 0.5, 0.25, '{{"total": 1}}');"""
        "INSERT INTO detections VALUES ('a', 1, 1, 1, 5, 5, 0.3, 'fracture');"
    )
    database.close()
    store = opened(tmp_path, f"sqlite:///{tmp_path / 'old.sqlite3'}")
    kept = store.results.get("a")
    assert (kept.owner, kept.finding, len(kept.detections)) == ("local", "possible", 1)
    store.close()


class TestTime:
    def test_old_results_are_not_shown_and_then_deleted(self, store, prediction):
        old, young = store.results.add(prediction, METADATA), store.results.add(prediction, METADATA)
        change(store, "UPDATE predictions SET created_at = created_at - 86401 WHERE id = :id", id=old.id)
        assert store.results.get(old.id) is None
        assert store.results.page(HistoryFilter(), page=1, per_page=9)[1] == 1
        assert old.image_path.exists()
        assert store.results.sweep() == 1
        assert not old.image_path.exists()
        assert young.image_path.exists()
        with store._database.reading() as session:
            kept = session.execute(text("SELECT DISTINCT prediction_id FROM detections")).scalars().all()
        assert kept == [young.id]

    def test_feedback_keeps_a_result_for_its_own_time(self, store, prediction):
        stored = store.results.add(prediction, METADATA)
        store.results.save_reading(stored.id, SAID, author="anna")
        change(store, "UPDATE predictions SET created_at = created_at - 29 * 86400")
        assert store.results.sweep() == 0
        assert store.results.get(stored.id).readings
        change(store, "UPDATE readings SET updated_at = updated_at - 30 * 86400 - 1")
        assert store.results.get(stored.id) is None
        assert store.results.sweep() == 1
        assert not stored.image_path.exists()
        with store._database.reading() as session:
            assert session.execute(text("SELECT count(*) FROM readings")).scalar() == 0

    def test_a_picture_without_a_row_is_swept_when_it_is_old(self, store, tmp_path):
        left_over = tmp_path / "instance" / "images" / "left-over.png"
        left_over.write_bytes(b"x")
        assert store.results.sweep() == 0
        assert left_over.exists()
        os.utime(left_over, (time.time() - 90_000,) * 2)
        store.results.sweep()
        assert not left_over.exists()

    def test_a_sweep_that_fails_is_logged_and_the_request_goes_on(self, app, client, settings, caplog):
        results = app.extensions["fracture"].store.results
        results._next_sweep = 0.0
        (settings.data_dir / "images").rename(settings.data_dir / "gone")
        assert client.get("/model").status_code == 200
        assert "Old results could not be deleted" in caplog.text


class TestHistory:
    @pytest.fixture
    def three(self, store, prediction):
        readings = [
            METADATA,
            replace(METADATA, owner="ben", finding="none seen"),
            replace(METADATA, finding="possible"),
        ]
        made = [store.results.add(prediction, reading) for reading in readings]
        for days, stored in enumerate(made):
            created_at = time.time() - days * 20
            change(store, "UPDATE predictions SET created_at = :at WHERE id = :id", at=created_at, id=stored.id)
        store.results.save_reading(made[2].id, SAID, author="anna")
        return [stored.id for stored in made]

    @pytest.mark.parametrize(
        ("which", "expected"),
        [
            (HistoryFilter(), [0, 1, 2]),
            (HistoryFilter(owner="anna"), [0, 2]),
            (HistoryFilter(owner="nobody"), []),
            (HistoryFilter(finding="none seen"), [1]),
            (HistoryFilter(text="SCAPHOID"), [2]),
            (HistoryFilter(text="scaphoid look"), [2]),
            (HistoryFilter(text="scaphoid wrist"), []),
            (HistoryFilter(text="%"), []),
            (HistoryFilter(text="ben bright"), [1]),
        ],
    )
    def test_it_has_what_is_wanted_newest_first(self, store, three, which, expected):
        results, total = store.results.page(which, page=1, per_page=9)
        assert [three.index(stored.id) for stored in results] == expected
        assert total == len(expected)

    def test_days_bound_it(self, store, three):
        now = time.time()
        assert store.results.page(HistoryFilter(since=now - 30), page=1, per_page=9)[1] == 2
        assert store.results.page(HistoryFilter(until=now - 30), page=1, per_page=9)[1] == 1

    def test_it_comes_in_pages(self, store, three):
        pages = [store.results.page(HistoryFilter(), page=page, per_page=2) for page in (1, 2, 3)]
        assert [[three.index(stored.id) for stored in results] for results, _ in pages] == [[0, 1], [2], []]
        assert {total for _, total in pages} == {3}


def test_each_readers_latest_reading_is_kept_and_what_is_settled_beside_them(store, prediction):
    stored = store.results.add(prediction, METADATA)
    store.results.save_reading(stored.id, Reading({}, (), True, "at first"), author="anna")
    store.results.save_reading(stored.id, SAID, author="anna")
    (said,) = store.results.get(stored.id).readings
    assert (said.verdicts, said.missed, said.no_fracture, said.comment, said.author) == (
        {1: "right", 2: "wrong"}, ((1.0, 2.0, 30.0, 40.0),), False, "scaphoid, look again", "anna",
    )  # fmt: skip
    store.results.save_reading(stored.id, Reading({}, (), False, "", unreadable=True, reason="motion"), author="ben")
    moved = Reading({1: "right"}, (), False, "", moved={1: (1.5, 2.0, 30.0, 40.0)}, seconds=12.5)
    store.results.settle(stored.id, moved, by="root")
    again = store.results.get(stored.id)
    assert again.readings[0] == said
    assert [(one.author, one.unreadable, one.reason) for one in again.readings] == [
        ("anna", False, ""), ("ben", True, "motion"),
    ]  # fmt: skip
    assert (again.settled.author, again.settled.moved, again.settled.seconds) == (
        "root", {1: (1.5, 2.0, 30.0, 40.0)}, 12.5,
    )  # fmt: skip
    assert [stored.id for stored in store.results.read_by_several()] == [stored.id]
    assert store.results.save_reading("nobody's", SAID, author="anna") is None
    with store._database.reading() as session:
        lines = session.execute(text("SELECT actor, action FROM audit ORDER BY number")).all()
    said = [("anna", "feedback"), ("anna", "feedback"), ("ben", "feedback"), ("root", "settle")]
    assert [tuple(line) for line in lines][1:] == said


def test_a_settlement_keeps_a_result_as_a_reading_does_and_goes_with_it(store, prediction):
    stored = store.results.add(prediction, METADATA)
    store.results.settle(stored.id, SAID, by="root")
    change(store, "UPDATE predictions SET created_at = 0")
    assert store.results.sweep() == 0
    change(store, "UPDATE settlements SET updated_at = 0")
    assert store.results.sweep() == 1
    with store._database.reading() as session:
        assert session.execute(text("SELECT count(*) FROM settlements")).scalar() == 0


def test_the_feedback_of_before_several_readers_is_the_reading_of_its_author(tmp_path, url, prediction):
    store = opened(tmp_path, url)
    stored = store.results.add(prediction, METADATA)
    store.results.save_reading(stored.id, SAID, author="anna")
    before = store.results.get(stored.id).readings
    for statement in OF_0008:
        change(store, statement)
    store.close()
    again = opened(tmp_path, url)
    assert again.results.get(stored.id).readings == before
    again.results.save_reading(stored.id, SAID, author="ben")
    assert len(again.results.get(stored.id).readings) == 2
    again.close()


def test_what_is_deleted_is_not_in_the_files_any_more(tmp_path, prediction):
    store = opened(tmp_path, None)
    stored = store.results.add(prediction, METADATA)
    for number in range(20):
        store.results.save_reading(stored.id, Reading({}, (), False, f"Doe {number} " * 50), author="anna")
    assert store.results.delete(stored.id, by="anna")
    everything = b"".join(path.read_bytes() for path in (tmp_path / "instance").rglob("*") if path.is_file())
    store.close()
    assert b"Doe" not in everything


def test_a_writer_does_not_wait_for_ever(tmp_path, prediction, monkeypatch):
    monkeypatch.setattr("webapp.store.database.LOCK_TIMEOUT_S", 0.1)
    store = opened(tmp_path, None)
    with store._database._writer, pytest.raises(StoreUnavailable, match="another writer has held the database"):
        store.results.add(prediction, METADATA)
    assert list((tmp_path / "instance" / "images").iterdir()) == []
    store.results.add(prediction, METADATA)
    store.close()


def test_several_may_start_at_once(tmp_path, url):
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: opened(tmp_path, url), range(4)))
    for store in stores:
        assert store.results.page(HistoryFilter(), page=1, per_page=1) == ([], 0)
        store.close()


def test_whoever_writes_to_a_new_file_is_waited_for(tmp_path):
    file = tmp_path / "results.sqlite3"
    with closing(sqlite3.connect(file, check_same_thread=False)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        done = threading.Timer(0.3, writer.rollback)
        done.start()
        Database(f"sqlite:///{file}").close()
        done.join()


def test_a_sweep_takes_its_share_and_leaves_the_rest(store, prediction, monkeypatch):
    for _ in range(5):
        store.results.add(prediction, METADATA)
    change(store, "UPDATE predictions SET created_at = 0")
    monkeypatch.setattr("webapp.store.results.SWEEP_AT_MOST", 2)
    left = []
    for _ in range(3):
        store.results.sweep_if_due()
        with store._database.reading() as session:
            left.append(session.execute(text("SELECT count(*) FROM predictions")).scalar())
    assert left == [3, 1, 0]


def test_deleting_takes_everything(store, prediction):
    stored = store.results.add(prediction, METADATA)
    store.results.save_reading(stored.id, SAID, author="anna")
    assert store.results.delete(stored.id, by="anna")
    assert not store.results.delete(stored.id, by="anna")
    assert store.results.get(stored.id) is None
    assert not stored.image_path.exists()


def test_pictures_need_not_be_kept(tmp_path, url, prediction):
    store = opened(tmp_path, url, keep_images=False)
    stored = store.results.add(prediction, METADATA)
    assert stored.image_path is None
    assert list((tmp_path / "instance" / "images").iterdir()) == []
    store.close()


def test_a_key_belongs_to_its_owner(store, prediction):
    stored = store.results.add(prediction, replace(METADATA, idempotency_key="k"))
    assert store.results.of_key("anna", "k").id == stored.id
    assert store.results.of_key("ben", "k") is None
    change(store, "UPDATE predictions SET created_at = 0")
    assert store.results.of_key("anna", "k") is None
    assert store.results.add(prediction, replace(METADATA, idempotency_key="k")).id != stored.id


def test_a_picture_that_cannot_be_recorded_is_not_left_behind(store, prediction, tmp_path):
    wrong = replace(prediction, latency_ms={"total": object()})
    with pytest.raises((StoreUnavailable, TypeError), match="JSON serializable"):
        store.results.add(wrong, METADATA)
    assert list((tmp_path / "instance" / "images").iterdir()) == []


def test_a_vanished_database_is_made_anew_and_said(tmp_path, prediction, caplog):
    store = opened(tmp_path, None)
    store.results.add(prediction, METADATA)
    (tmp_path / "instance" / "results.sqlite3").unlink()
    assert store.results.page(HistoryFilter(), page=1, per_page=9) == ([], 0)
    assert "results.sqlite3 is missing" in caplog.text
    store.results.add(prediction, METADATA)
    assert store.results.page(HistoryFilter(), page=1, per_page=9)[1] == 1
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "oracle://x",
        "postgresql://u:secret@127.0.0.1:1/x",
        "postgresql://u@127.0.0.1:1/x?password=secret",
        "postgresql:u:secret@h",
        "host=127.0.0.1 password=secret",
        "postgresql://u:pass@secret:word@h/x",
    ],
)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(tmp_path, url):
    with pytest.raises(StoreError, match=r"^the database (\S+ )*cannot be used") as caught:
        opened(tmp_path, url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_names_are_long_random_and_never_the_clients(app, post):
    folder = app.extensions["fracture"].settings.data_dir
    ids = {post(name="doe^john.png").json["id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(len(identifier) == 32 for identifier in ids)
    assert {path.stem for path in (folder / "images").iterdir()} == ids
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"doe" not in everything
    assert (folder.stat().st_mode & 0o777) == 0o700


def test_weak_noise_is_not_kept(app, post):
    body = post(encoded(dark_plate((5, 5, 15, 15, 250), (50, 50, 60, 60, 12), (80, 80, 90, 90, 30)))).json
    assert np.isclose(body["floor_score"], 0.05)
    stored = app.extensions["fracture"].store.results.get(body["id"])
    assert [round(score, 2) for score in stored.detections.scores.tolist()] == [0.98, 0.12]
