"""A result and its image are kept together or go together, on a full disk, a read-only one, or a damaged database."""

import io
import os
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import replace

import pytest
from sqlalchemy import text

from fracture_det.inference.service import PredictionService
from tests.webapp.bright import BrightRectangles, dark_plate
from tests.webapp.conftest import LIKELY, POSSIBLE, changed, encoded, fill, form_token, read_only
from webapp import admin, create_app
from webapp.store import KeyTaken, ResultMetadata, Store, StoreUnavailable

METADATA = ResultMetadata("anna", "likely", "1" * 64, 0.5, 0.25)
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def readiness_is_always_looked_at(monkeypatch):
    monkeypatch.setattr("webapp.store.readiness.READY_S", 0)
    monkeypatch.setattr("webapp.store.readiness.FAILED_S", 0)


@pytest.fixture(scope="module")
def prediction():
    with PredictionService(BrightRectangles()) as service:
        return service.predict(encoded(dark_plate(LIKELY, POSSIBLE)))


@pytest.fixture
def service(service):
    service.warm_up()
    return service


def store_of(app) -> Store:
    return app.extensions["fracture"].store


def execute(store, statement, **values):
    with store._database.writing() as session:
        result = session.execute(text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []


def rows(store):
    return {identifier for (identifier,) in execute(store, "SELECT id FROM predictions")}


def images(folder):
    return {path.name for path in (folder / "images").iterdir()}


def audited(store):
    return execute(store, "SELECT actor, action, subject FROM audit ORDER BY number")


def assert_whole(store, folder):
    """Check that every result has its image and every image its result."""
    assert images(folder) == {f"{identifier}.png" for identifier in rows(store)}


def upload(client, data=None, **headers):
    data = encoded(dark_plate(LIKELY)) if data is None else data
    return client.post("/api/v1/predictions", data={"file": (io.BytesIO(data), "a.png")}, headers=headers)


class TestFullDisk:
    @pytest.fixture
    def settings(self, settings, small_disk):
        return changed(settings, data_dir=small_disk / "instance")

    def test_a_result_goes_whole_or_not_at_all(self, app, client, settings, small_disk):
        store = store_of(app)
        old, new = (upload(client).json for _ in range(2))
        execute(store, "UPDATE predictions SET created_at = 1 WHERE id = :id", id=old["id"])
        store._database.purge_deleted()  # with room in its log, SQLite could go on for a while
        filler = fill(small_disk)
        answer = client.delete(new["links"]["self"])
        assert answer.status_code in (204, 503)
        with suppress(StoreUnavailable):
            store.results.sweep()
        filler.unlink()
        assert_whole(store, settings.data_dir)
        gone = {subject for _, action, subject in audited(store) if action == "delete"}
        assert gone == {old["id"], new["id"]} - rows(store)
        assert client.delete(new["links"]["self"]).status_code == (404 if answer.status_code == 204 else 204)
        store.results.sweep()
        assert images(settings.data_dir) == rows(store) == set()

    def test_it_is_not_ready_and_says_why_until_there_is_room(self, client, small_disk):
        assert client.get("/readyz").status_code == 200
        filler = fill(small_disk)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
        assert answer.json["error"] == "Results cannot be kept: images cannot be stored: No space left on device."
        assert client.get("/healthz").status_code == 200
        assert upload(client).status_code == 503
        filler.unlink()
        assert client.get("/readyz").status_code == 200
        assert upload(client).status_code == 201

    def test_without_images_the_database_needs_room_all_the_same(self, settings, service, small_disk):
        app = create_app(changed(settings, keep_images=False), predictor=service)
        fill(small_disk)
        answer = app.test_client().get("/readyz")
        store_of(app).close()
        assert answer.status_code == 503
        assert "the folder of the database cannot be written: No space left on device" in answer.json["error"]

    def test_logging_out_works_all_the_same(self, settings, service, small_disk, caplog):
        logged_in_app = create_app(changed(settings, login=True, secret_key="k" * 32), predictor=service)
        logged_out_of(logged_in_app, lambda: (store_of(logged_in_app)._database.purge_deleted(), fill(small_disk)))
        assert "A logout could not be recorded: the database failed: database or disk is full" in caplog.text


def logged_out_of(app, break_store):
    """Log in, break the store, and check that logging out ends the session."""
    store_of(app).accounts.add_user("anna", "reader", PASSWORD, by="test")
    client = app.test_client()
    token = form_token(client, "/login")
    client.post("/login", data={"name": "anna", "password": PASSWORD, "csrf_token": token})
    token = form_token(client)
    break_store()
    answer = client.post("/logout", data={"csrf_token": token})
    assert (answer.status_code, answer.location) == (302, "/login")
    assert client.get_cookie("fracture_session") is None
    store_of(app).close()


class TestReadOnlyImages:
    def test_nothing_is_deleted_and_it_is_said(self, app, client, settings):
        store = store_of(app)
        body = upload(client).json
        with read_only(settings.data_dir / "images"):
            answer = client.delete(body["links"]["self"])
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
            assert client.get(body["links"]["image"]).status_code == 200
            form = client.post(f"/results/{body['id']}/delete", data={"csrf_token": form_token(client)})
            assert form.status_code == 503
            assert upload(client).status_code == 503
            assert "images cannot be stored: Read-only file system" in client.get("/readyz").json["error"]
        assert [action for _, action, _ in audited(store)] == ["analyse"]
        assert_whole(store, settings.data_dir)
        assert client.get("/readyz").status_code == 200
        assert client.delete(body["links"]["self"]).status_code == 204
        assert images(settings.data_dir) == set()

    def test_a_sweep_deletes_neither_and_says_so(self, app, client, settings, monkeypatch, capsys):
        store = store_of(app)
        upload(client)
        execute(store, "UPDATE predictions SET created_at = 1")
        monkeypatch.setenv("FRACTURE_DATA_DIR", str(settings.data_dir))
        with read_only(settings.data_dir / "images"):
            assert admin.main(["sweep"]) == 1
            said = capsys.readouterr().err
            assert said == (
                "fracture_det: 0 expired results are deleted, 1 not all:"
                " the image could not be deleted: Read-only file system\n"
            )
            assert len(rows(store)) == 1
        assert_whole(store, settings.data_dir)
        assert admin.main(["sweep"]) == 0
        assert capsys.readouterr().out == "1 results deleted\n"


def test_an_image_that_cannot_be_deleted_keeps_no_other(app, client, settings, monkeypatch):
    store = store_of(app)
    bodies = [upload(client).json for _ in range(3)]
    execute(store, "UPDATE predictions SET created_at = 1")
    rename = type(settings.data_dir).rename

    def fail_for_one(path, target):
        if path.name == f"{bodies[1]['id']}.png":
            raise PermissionError(1, "Operation not permitted")
        return rename(path, target)

    monkeypatch.setattr(type(settings.data_dir), "rename", fail_for_one)
    with pytest.raises(StoreUnavailable, match=r"2 expired results are deleted, 1 not all: .*Operation not permitted"):
        store.results.sweep()
    assert rows(store) == {bodies[1]["id"]}
    assert_whole(store, settings.data_dir)


def test_a_commit_that_fails_brings_the_image_back(app, client, settings, monkeypatch):
    body = upload(client).json
    with monkeypatch.context() as patched:
        patched.setattr("sqlalchemy.orm.Session.commit", lambda _: (_ for _ in ()).throw(OSError("power")))
        assert client.delete(body["links"]["self"]).status_code == 503
    assert_whole(store_of(app), settings.data_dir)
    assert client.get(body["links"]["image"]).status_code == 200


class TestLeftOvers:
    @pytest.fixture
    def folder(self, settings):
        return settings.data_dir / "images"

    def age(self, path, days=2):
        os.utime(path, (time.time() - days * 86_400,) * 2, follow_symlinks=False)

    def test_a_stray_folder_stops_nothing(self, app, settings, folder, monkeypatch, capsys):
        stray = folder / "0000"
        stray.mkdir()
        (stray / "inside.png").write_bytes(b"x")
        (folder / "1111").symlink_to("nowhere")
        (folder / "zzzz.png").write_bytes(b"x")
        for path in folder.iterdir():
            self.age(path)
        monkeypatch.setenv("FRACTURE_DATA_DIR", str(settings.data_dir))
        assert admin.main(["sweep"]) == 0
        assert [path.name for path in folder.iterdir()] == ["0000"]
        assert (stray / "inside.png").exists()

    def test_a_missing_images_folder_is_a_sentence(self, app, settings, folder, monkeypatch, capsys):
        monkeypatch.setattr("pathlib.Path.iterdir", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        monkeypatch.setenv("FRACTURE_DATA_DIR", str(settings.data_dir))
        assert admin.main(["sweep"]) == 1
        assert capsys.readouterr().err.endswith("Input/output error\n")

    def test_a_deletion_that_was_cut_short_is_finished_or_undone(self, app, client, folder, monkeypatch):
        store, kept = store_of(app), upload(client).json["id"]
        (folder / f"{kept}.png").rename(folder / f"{kept}.deleting")
        (folder / "gone.deleting").write_bytes(b"x")
        store.results.sweep()
        assert images(folder.parent) == {f"{kept}.deleting"}  # perhaps it is being deleted right now
        monkeypatch.setattr("webapp.store.images.IN_PROGRESS_S", -1)
        store.results.sweep()
        assert images(folder.parent) == {f"{kept}.png"}


class TestDamagedDatabase:
    def database(self, settings):
        return settings.data_dir / "results.sqlite3"

    @pytest.mark.parametrize("damage", ["noise", "cut", "noise after the first page", "empty"])
    def test_it_is_not_ready_until_it_is_put_back(self, app, client, settings, damage):
        body = upload(client).json
        store_of(app)._database.purge_deleted()
        path = self.database(settings)
        whole = path.read_bytes()
        broken = {
            "noise": os.urandom(len(whole)),
            "cut": whole[: len(whole) // 2],
            "noise after the first page": whole[:4096] + os.urandom(len(whole) - 4096),
            "empty": b"",
        }[damage]
        path.write_bytes(broken)
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json["error"].startswith("Results cannot be kept: the database ")
        assert upload(client).status_code == 503
        restored = path.with_suffix(".restored")
        restored.write_bytes(whole)
        restored.replace(path)
        assert client.get("/readyz").status_code == 200
        assert client.get(body["links"]["self"]).json == body
        assert upload(client).status_code == 201

    def test_a_file_put_in_its_place_is_the_database_from_then_on(self, app, client, settings):
        body = upload(client).json
        path = self.database(settings)
        backup = path.with_suffix(".backup")
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
            source.backup(target)
        later = upload(client).json
        backup.replace(path)
        assert client.get(body["links"]["self"]).status_code == 200
        assert client.get(later["links"]["self"]).status_code == 404
        third = upload(client).json["id"]
        with closing(sqlite3.connect(path)) as database:
            ids = {identifier for (identifier,) in database.execute("SELECT id FROM predictions")}
        assert ids == {body["id"], third}

    def test_logging_out_works_all_the_same(self, settings, service, caplog):
        app = create_app(changed(settings, login=True, secret_key="k" * 32), predictor=service)

        def break_store():
            store_of(app)._database.purge_deleted()
            path = self.database(settings)
            path.write_bytes(os.urandom(path.stat().st_size))

        logged_out_of(app, break_store)


class TestKeys:
    @pytest.fixture
    def two(self, tmp_path):
        stores = [Store(tmp_path / "instance") for _ in range(2)]
        yield stores
        for store in stores:
            store.close()

    def test_the_second_of_two_processes_gets_the_result_of_the_first(self, two, prediction, tmp_path):
        keyed = replace(METADATA, idempotency_key="k")
        first = two[0].results.add(prediction, keyed)
        with pytest.raises(KeyTaken) as caught:
            two[1].results.add(prediction, keyed)
        assert caught.value.stored.id == first.id
        assert rows(two[0]) == {first.id}
        assert_whole(two[0], tmp_path / "instance")
        assert [action for _, action, _ in audited(two[0])] == ["analyse"]

    def test_an_expired_result_gives_its_key_away_and_goes_as_by_retention(self, two, prediction, tmp_path):
        keyed = replace(METADATA, idempotency_key="k")
        old = two[0].results.add(prediction, keyed)
        execute(two[0], "UPDATE predictions SET created_at = 1")
        new = two[0].results.add(prediction, keyed)
        with pytest.raises(KeyTaken):
            two[1].results.add(prediction, keyed)
        assert rows(two[0]) == {new.id}
        assert_whole(two[0], tmp_path / "instance")
        assert ("retention", "delete", old.id) in audited(two[0])

    def test_another_image_is_refused(self, app, client, monkeypatch):
        upload(client, **{"Idempotency-Key": "k"})
        monkeypatch.setattr("webapp.store.results.Results.of_key", lambda *_: None)  # stored a moment later
        same, other = (
            upload(client, data, **{"Idempotency-Key": "k"}) for data in (None, encoded(dark_plate(POSSIBLE)))
        )
        assert (same.status_code, same.headers["Idempotency-Replayed"]) == (201, "true")
        assert other.status_code == 422
        assert len(rows(store_of(app))) == 1
