"""The audit log tells who did what, and any edit of it is found."""

import io
import json
import logging

import pytest
from PIL import Image
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.webapp.bright import dark_plate
from tests.webapp.conftest import LIKELY, encoded
from webapp import admin
from webapp.store import Store
from webapp.store.audit import AuditEntry
from webapp.store.audit_chain import AuditError

PASSWORD = "correct horse battery"


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "instance")
    for number in range(5):
        opened.audit.record(AuditEntry("anna", f"act {number}", "x"))
    yield opened
    opened.close()


def edit(store, *statements):
    """Change the log as someone with the database's password could: triggers away, then the statements."""
    with store._database.writing() as session:
        for trigger in ("update", "delete", "insert"):
            session.execute(text(f"DROP TRIGGER IF EXISTS audit_refuses_{trigger}"))
        for statement in statements:
            session.execute(text(statement))


def lines(app):
    with app.extensions["fracture"].store._database.reading() as session:
        return [dict(row._mapping) for row in session.execute(text("SELECT * FROM audit ORDER BY number"))]


def test_every_act_is_a_line_with_its_hashes(app, client, post):
    body = post().json
    client.put(body["links"]["feedback"], json={"boxes": [{"number": 1, "verdict": "wrong"}]})
    client.delete(body["links"]["self"])
    recorded = lines(app)
    assert [(line["actor"], line["action"], line["subject"]) for line in recorded] == [
        ("local", action, body["id"]) for action in ("analyse", "feedback", "delete")
    ]
    assert {line["model_sha256"] for line in recorded} == {"0" * 64}
    assert len({line["input_sha256"] for line in recorded}) == 1
    assert all(len(line["result_sha256"]) == 64 for line in recorded)
    assert app.extensions["fracture"].store.audit.verify()[0] == 3


def test_an_untouched_log_is_whole(store):
    count, last, unsigned, _ = store.audit.verify()
    assert unsigned == 0
    assert count == 5
    assert len(last) == 64


def test_the_database_itself_refuses_changes(store):
    for statement in ("UPDATE audit SET actor = 'ben'", "DELETE FROM audit"):
        with pytest.raises(Exception, match="append-only"), store._database.writing() as session:
            session.execute(text(statement))
    assert store.audit.verify()[0] == 5


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["UPDATE audit SET actor = 'ben' WHERE number = 3"], r"line 3 .* was changed"),
        (["UPDATE audit SET subject = NULL WHERE number = 1"], r"line 1 .* was changed"),
        (["UPDATE audit SET at = '2020' WHERE number = 5"], r"line 5 .* was changed"),
        (["DELETE FROM audit WHERE number = 2"], "line 2 of the audit log is missing; line 3 follows"),
        (["DELETE FROM audit WHERE number = 1"], "line 1 of the audit log is missing; line 2 follows"),
        (["DELETE FROM audit WHERE number = 5"], "has 4 lines, audit_head.json names line 5"),
        (["DELETE FROM audit WHERE number > 3"], "has 3 lines, audit_head.json names line 5"),
        (["DELETE FROM audit"], "has 0 lines, audit_head.json names line 5"),
        (
            [
                "UPDATE audit SET number = 9 WHERE number = 2",
                "UPDATE audit SET number = 2 WHERE number = 3",
                "UPDATE audit SET number = 3 WHERE number = 9",
            ],
            r"line 2 .* was changed",
        ),
        (
            [
                "INSERT INTO audit SELECT number + 1, at, actor, action, subject, input_sha256, model_sha256,"
                " result_sha256, hash, key FROM audit WHERE number = 5"
            ],
            r"line 6 .* was changed",
        ),
    ],
)
def test_any_edit_is_found(store, statements, message):
    edit(store, *statements)
    with pytest.raises(AuditError, match=message):
        store.audit.verify()


def test_a_line_whose_commit_failed_breaks_nothing(store):
    session = Session(store._database._engine)
    store.audit.add(session, AuditEntry("anna", "never kept"))
    session.close()
    assert store.audit.verify()[0] == 5
    store.audit.record(AuditEntry("anna", "kept"))
    assert store.audit.verify()[0] == 6


def test_a_process_killed_before_it_noted_the_line_breaks_nothing(store, monkeypatch):
    monkeypatch.setattr(store.audit, "_write_head", lambda head: None)
    store.audit.record(AuditEntry("anna", "the last one"))
    assert store.audit.verify()[0] == 6
    monkeypatch.undo()
    store.audit.record(AuditEntry("anna", "afterwards"))
    assert store.audit.verify()[0] == 7


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM audit WHERE number > 3"],
        ["DELETE FROM audit"],
        ["UPDATE audit SET hash = 'x' WHERE number = 5"],
    ],
)
def test_later_lines_do_not_cover_an_edit(store, statements, caplog):
    edit(store, *statements)
    for number in range(5):
        store.audit.record(AuditEntry("anna", f"afterwards {number}"))
    with pytest.raises(AuditError):
        store.audit.verify()
    assert "audit_head.json names line 5, which the audit log does not have" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"number": "x", "hash": 1}'])
def test_a_broken_head_is_said_and_loses_nothing(app, client, post, settings, content, caplog):
    post()
    (settings.data_dir.with_name("instance.audit") / "audit_head.json").write_text(content)
    body = post().json
    assert client.get(body["links"]["image"]).status_code == 200
    assert "audit_head.json cannot be read" in caplog.text
    with pytest.raises(AuditError, match=r"audit_head\.json cannot be read"):
        app.extensions["fracture"].store.audit.verify()


def test_a_head_that_cannot_be_written_loses_nothing(client, post, settings, caplog):
    lock = settings.data_dir.with_name("instance.audit") / "audit_head.lock"
    lock.unlink()
    lock.mkdir()
    body = post().json
    assert client.get(body["links"]["image"]).status_code == 200
    assert "The head of the audit log could not be written: " in caplog.text


class TestCommandLine:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("FRACTURE_DATA_DIR", str(tmp_path / "instance"))

        def call(*arguments, typed=""):
            monkeypatch.setattr("sys.stdin", io.StringIO(typed))
            code = admin.main(list(arguments))
            said = capsys.readouterr()
            return code, said.out.strip(), said.err.strip()

        return call

    def test_users_and_tokens_come_and_go(self, run):
        assert run("add-user", "anna", "--role", "admin", typed=f"{PASSWORD}\n") == (0, "anna can log in as admin", "")
        token = run("add-token", "anna", "--label", "pacs")[1]
        listed = run("users")[1].splitlines()
        assert listed[0] == "anna  admin"
        assert listed[1].endswith("pacs")
        assert token.partition(".")[2] not in "".join(listed)
        assert run("revoke-token", token.partition(".")[0])[0] == 0
        assert run("set-password", "anna", typed="another password\n")[0] == 0
        assert run("remove-user", "anna") == (0, "anna is removed", "")
        assert run("users")[1] == ""
        assert run("verify-audit")[1].startswith("5 lines, none changed")

    def test_what_cannot_be_done_is_said(self, run):
        assert run("add-token", "nobody") == (1, "", "fracture_det: there is no user nobody")
        code, _, said = run("add-user", "anna", typed="short\n")
        assert (code, said) == (1, "fracture_det: password of anna: expected at least 12 characters, got 5")

    def test_an_edited_log_ends_with_1(self, run, tmp_path):
        run("add-user", "anna", typed=f"{PASSWORD}\n")
        store = Store(tmp_path / "instance")
        edit(store, "UPDATE audit SET action = 'nothing' WHERE number = 1")
        store.close()
        code, _, said = run("verify-audit")
        assert code == 1
        assert "line 1 of the audit log" in said


def test_logs_and_files_know_no_patient(app, client, post, caplog, settings):
    caplog.set_level(logging.DEBUG)
    exif = Image.Exif()
    exif[0x010E] = "Doe^Jane^1970"
    good = encoded(dark_plate(LIKELY), "JPEG", quality=95, exif=exif, comment=b"Doe^Jane^1970")
    for data in (good, good[:200], b"Doe^Jane^1970", encoded(dark_plate(LIKELY), "GIF", comment=b"Doe^Jane^1970")):
        post(data, name="Doe^Jane^1970.jpg")
    broken = {"boxes": [{"number": 1, "verdict": "Doe^Jane^1970"}]}
    body = client.get("/api/v1/predictions").json["results"][0]
    assert client.put(body["links"]["feedback"], json=broken).status_code == 400
    everything = caplog.text.encode() + b"".join(
        path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file()
    )
    everything += client.get("/metrics").data + json.dumps(lines(app)).encode()
    for link in filter(None, body["links"].values()):
        everything += client.get(link).data
    assert b"Doe" not in everything
    assert b"1970" not in everything
