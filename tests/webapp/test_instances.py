"""Several processes on one store, and a PostgreSQL that stops responding."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from fracture_det.inference.service import PredictionService
from tests.webapp import postgres
from tests.webapp.bright import BrightRectangles, dark_plate
from tests.webapp.conftest import LIKELY, changed, encoded, form_token
from tests.webapp.test_keeping import PASSWORD, images, rows, store_of, upload
from tests.webapp.test_serve import upload as send
from webapp import create_app
from webapp.store import Store

PLATE = encoded(dark_plate(LIKELY))
# What docs/deployment.md promises, and time for a busy machine.
FEW_S = 9.0


@pytest.fixture
def postgresql():
    with postgres.temporary() as server:
        yield server


@contextmanager
def frozen(folder):
    """Stop every process of the server in `folder`, its connections included."""
    main = psutil.Process(int((folder / "data" / "postmaster.pid").read_text().split()[0]))
    stopped = [main, *main.children(recursive=True)]
    for process in stopped:
        process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            process.resume()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_one_key_sent_to_two_processes_makes_one_result(request, start_server, tmp_path, kind):
    url, variables = None, {}
    if kind == "postgresql":
        url, _ = request.getfixturevalue("postgresql")
        variables["FRACTURE_DATABASE_URL"] = url
    # So slow that both have analysed the image before either has stored it.
    servers = [start_server(tmp_path / "instance", detector="bright:0.5", **variables) for _ in range(2)]
    store = Store(tmp_path / "instance", url=url)
    former = None
    with ThreadPoolExecutor(2) as pool:
        for number in range(3):
            # At first nobody has the key, then a result that has expired and was not swept, twice.
            answers = list(pool.map(lambda server: send(server.address, PLATE, {"Idempotency-Key": "k"}), servers))
            assert [status for status, _, _ in answers] == [201, 201], number
            ids = {body["id"] for _, body, _ in answers}
            assert len(ids) == 1
            assert sorted("Idempotency-Replayed" in headers for _, _, headers in answers) == [False, True]
            assert rows(store) == ids
            assert images(tmp_path / "instance") == {f"{identifier}.png" for identifier in ids}
            with store._database.writing() as session:
                lines = session.execute(text("SELECT actor, action, subject FROM audit ORDER BY number")).all()
                session.execute(text("UPDATE predictions SET created_at = 1"))
            (identifier,) = ids
            expected = [] if former is None else [("retention", "delete", former)]
            assert lines[-1 - len(expected) :] == [*expected, ("local", "analyse", identifier)]
            assert len(lines) == 2 * number + 1
            former = identifier
    assert store.audit.verify()[0] == 5
    store.close()


class TestFrozenPostgresql:
    @pytest.fixture
    def settings(self, settings, postgresql):
        return changed(
            settings, database_url=postgresql[0], login=True, secret_key="k" * 32, logins_per_minute=0, timeout_s=30
        )

    @pytest.fixture
    def app(self, settings):
        with PredictionService(BrightRectangles()) as service:
            service.warm_up()
            app = create_app(settings, predictor=service)
            store_of(app).accounts.add_user("anna", "reader", PASSWORD, by="test")
            yield app
            store_of(app).close()

    def browser(self, app):
        client = app.test_client()
        data = {"name": "anna", "password": PASSWORD, "csrf_token": form_token(client, "/login")}
        assert client.post("/login", data=data).status_code == 302
        return client

    def test_every_request_is_answered_within_seconds_and_it_recovers(self, app, postgresql):
        clients = [self.browser(app) for _ in range(8)]
        token = form_token(clients[0])
        with ThreadPoolExecutor(8) as pool:
            assert {answer.status_code for answer in pool.map(upload, clients)} == {201}  # connections for the pool
            with frozen(postgresql[1]):

                def timed(client):
                    get = client.get
                    for ask in (partial(get, "/api/v1/predictions"), partial(get, "/history"), partial(upload, client)):
                        begun = time.monotonic()
                        answer = ask()
                        yield answer, time.monotonic() - begun

                for answers in pool.map(lambda client: list(timed(client)), clients):
                    for answer, took_s in answers:
                        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
                        assert took_s < FEW_S
                begun = time.monotonic()
                answer = clients[0].get("/readyz")
                assert (answer.status_code, time.monotonic() - begun < FEW_S) == (503, True)
                assert answer.json["error"] == "Results cannot be kept: the database cannot be used."
                assert clients[0].get("/healthz").status_code == 200
                assert clients[0].post("/logout", data={"csrf_token": token}).status_code == 302
            time.sleep(2.5)
            assert {answer.status_code for answer in pool.map(upload, clients[1:])} == {201}
        assert clients[0].get("/history").status_code == 302
        assert clients[0].get("/readyz").status_code == 200

    def test_a_statement_that_is_under_way_is_given_up(self, app, postgresql):
        database = store_of(app)._database
        caught = []

        def write():
            try:
                with database.writing() as session:
                    session.execute(text("SELECT pg_sleep(0.3)"))
                    time.sleep(0.5)
                    session.execute(text("SELECT 1"))
            except Exception as error:
                caught.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        time.sleep(0.5)
        begun = time.monotonic()
        with frozen(postgresql[1]):
            thread.join(FEW_S)
            assert not thread.is_alive()
        assert time.monotonic() - begun < FEW_S
        assert "the server has not responded for 6 s" in str(caught[0])

    def test_what_a_migration_may_wait_for_is_not_what_a_request_may(self, app):
        with store_of(app)._database.reading() as session:
            limits = [session.execute(text(f"SHOW {name}")).scalar() for name in ("lock_timeout", "statement_timeout")]
        assert limits == ["4s", "5s"]


def test_the_timeouts_are_in_the_documents():
    from webapp.store import postgresql as limits

    text_of = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
    table = {
        "a connection": limits.CONNECT_S,
        "a free one of the pool": limits.POOL_S,
        "a ping": limits.PING_S,
        "another writer": limits.LOCK_S,
        "a statement": limits.STATEMENT_S,
        "any response": limits.RESPONSE_S,
    }
    for what, seconds in table.items():
        assert f"| {what} | {seconds:g} s |" in text_of
