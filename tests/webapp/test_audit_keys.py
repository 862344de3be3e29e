"""What is written to the audit log without its key is found, whatever the database says."""

import hashlib
import io
import json
import shutil
import sqlite3
import stat
from contextlib import closing

import pytest
from sqlalchemy import text

from tests.webapp.conftest import read_only
from tests.webapp.test_audit import edit
from tests.webapp.test_store import OF_0008, url  # noqa: F401
from webapp import admin
from webapp.store import Store, StoreError, verify_audit
from webapp.store.audit import AuditEntry
from webapp.store.audit_chain import COLUMNS, GENESIS_HASH, AuditError
from webapp.store.audit_keys import AuditKeys

KEY, OTHER_KEY = "k" * 32, "o" * 32


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "instance"


@pytest.fixture
def audit(tmp_path):
    """Return the folder outside the database."""
    return tmp_path / "instance.audit"


@pytest.fixture
def store(folder, url):  # noqa: F811
    opened = Store(folder, url=url)
    record(opened, 5)
    yield opened
    opened.close()


def record(store, count, action="act"):
    for number in range(count):
        store.audit.record(AuditEntry("anna", f"{action} {number}", "x"))


def execute(store, *statements):
    """Do what somebody with the database's password can."""
    if store._database._is_sqlite:
        edit(store, *statements)
        return
    with store._database.writing() as session:
        session.execute(text("ALTER TABLE audit DISABLE TRIGGER ALL"))
        for statement in statements:
            session.execute(text(statement))


def lines(store):
    with store._database.reading() as session:
        return [dict(row._mapping) for row in session.execute(text("SELECT * FROM audit ORDER BY number"))]


def forged(store, signed_as=None, key=None):
    """Append a line that follows from the last one as far as its writer can make it."""
    last = lines(store)[-1]
    line = {**last, "number": last["number"] + 1, "action": "forged", "key": signed_as}
    content = [last["hash"], *(line[name] for name in COLUMNS)]
    if key is None:
        line["hash"] = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    else:
        line["hash"] = AuditKeys((key.encode(),)).signature(signed_as, ["line", *content])
    columns = ", ".join(line)
    with store._database.writing() as session:
        session.execute(text(f"INSERT INTO audit ({columns}) VALUES ({', '.join(f':{name}' for name in line)})"), line)


class TestDatabaseAlone:
    def test_a_line_appended_without_the_key_is_found_for_ever(self, store, caplog):
        forged(store)
        with pytest.raises(AuditError, match=r"line 6 .* added by somebody without the key: it is not signed"):
            store.audit.verify()
        record(store, 3, "later")
        assert "line 6 of the audit log" in caplog.text
        with pytest.raises(AuditError, match="line 6 "):
            store.audit.verify()

    def test_a_line_signed_with_a_key_of_ones_own_is_found(self, store):
        name = AuditKeys((OTHER_KEY.encode(),)).names[0]
        forged(store, name, OTHER_KEY)
        with pytest.raises(AuditError, match=f"line 6 .* was signed with the key {name}, which is not here"):
            store.audit.verify()

    def test_a_line_that_says_it_is_ours_is_found(self, store):
        forged(store, lines(store)[-1]["key"])
        with pytest.raises(AuditError, match=r"line 6 .* was changed after it was written, or added"):
            store.audit.verify()

    def test_a_log_written_anew_without_signatures_is_found(self, store):
        rewritten = rewrite(lines(store), actor="ben")
        changes = [
            f"UPDATE audit SET actor = 'ben', key = NULL, hash = '{line['hash']}' WHERE number = {line['number']}"
            for line in rewritten
        ]
        execute(store, *changes)
        with pytest.raises(AuditError, match=r"line 1 .* not signed"):
            store.audit.verify()

    @pytest.mark.parametrize("which", ["number > 3", "number > 0"])
    def test_lines_removed_from_the_end_are_found(self, store, which):
        execute(store, f"DELETE FROM audit WHERE {which}")
        with pytest.raises(AuditError, match=r"audit_head\.json names line 5"):
            store.audit.verify()

    def test_replace_is_refused_like_any_other_change(self, store):
        if store._database._is_sqlite:
            statement = "REPLACE INTO audit SELECT * FROM audit WHERE number = 3"
        else:
            statement = (
                "INSERT INTO audit SELECT * FROM audit WHERE number = 3 ON CONFLICT (number) DO UPDATE SET actor = 'x'"
            )
        with pytest.raises(Exception, match="append-only"), store._database.writing() as session:
            session.execute(text(statement))
        assert store.audit.verify().lines == 5


def rewrite(old, **changes):
    """Return the lines changed, chained without a key."""
    last, new = GENESIS_HASH, []
    for line in old:
        line = {**line, **changes, "key": None}
        last = hashlib.sha256(json.dumps([last, *(line[name] for name in COLUMNS)]).encode()).hexdigest()
        new.append({**line, "hash": last})
    return new


class TestHead:
    """What somebody can do who can also write the folder of the head, but has not read the key."""

    def test_a_head_written_anew_is_found(self, store, audit):
        head = json.loads((audit / "audit_head.json").read_text())
        execute(store, "DELETE FROM audit WHERE number > 3")
        (audit / "audit_head.json").write_text(json.dumps(head | {"number": 3, "hash": lines(store)[-1]["hash"]}))
        with pytest.raises(AuditError, match=r"audit_head\.json was changed after it was written"):
            store.audit.verify()

    def test_a_head_of_before_there_were_keys_is_no_head(self, store, audit, folder):
        execute(store, "DELETE FROM audit WHERE number > 3")
        (audit / "audit_head.json").unlink()
        (folder / "audit_head.json").write_text(json.dumps({"number": 3, "hash": lines(store)[-1]["hash"]}))
        with pytest.raises(AuditError, match=r"audit_head\.json is missing"):
            store.audit.verify()

    @pytest.mark.parametrize("emptied", [False, True])
    def test_a_deleted_head_is_found_also_after_another_start(self, store, audit, folder, url, emptied, caplog):  # noqa: F811
        if emptied:
            execute(store, "DELETE FROM audit")
        (audit / "audit_head.json").unlink()
        for _ in range(2):
            with pytest.raises(AuditError, match=r"audit_head\.json is missing"):
                store.audit.verify()
            Store(folder, url=url).close()
            record(store, 1, "later")
        assert "audit_head.json is missing" in caplog.text

    def test_a_key_that_vanishes_loses_no_line_and_is_found(self, store, audit, caplog):
        key = (audit / "key").read_bytes()
        (audit / "key").unlink()
        record(store, 1, "later")
        assert "The key of the audit log is missing" in caplog.text
        with pytest.raises(AuditError, match="which is not here"):
            store.audit.verify()
        (audit / "key").write_bytes(key)
        assert store.audit.verify().lines == 6


class TestKeys:
    def test_the_key_is_made_once_outside_the_data_folder_and_for_its_owner_alone(self, store, audit, folder, url):  # noqa: F811
        key = (audit / "key").read_bytes()
        assert len(key.strip()) == 64
        assert [stat.S_IMODE(path.stat().st_mode) for path in (audit, audit / "key")] == [0o700, 0o600]
        everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert key.strip() not in everything + json.dumps(lines(store)).encode()
        Store(folder, url=url).close()
        assert (audit / "key").read_bytes() == key

    def test_a_new_key_signs_what_comes_and_the_former_verifies_what_was(self, store, audit):
        former = (audit / "key").read_bytes().strip().decode()
        name = store.audit.rotate_key(by="command line")
        record(store, 2, "later")
        keys = [line["key"] for line in lines(store)]
        assert (len(set(keys[:5])), set(keys[5:])) == (1, {name})
        assert store.audit.verify().lines == 8
        forged(store, keys[0], former)  # the former key has leaked
        with pytest.raises(AuditError, match=r"line 9 .* signed with a key that was no longer in use"):
            store.audit.verify()

    def test_another_process_signs_with_the_new_key_at_once(self, store, folder, url):  # noqa: F811
        other = Store(folder, url=url)
        name = other.audit.rotate_key(by="command line")
        record(store, 1, "later")
        other.close()
        assert lines(store)[-1]["key"] == name
        assert store.audit.verify().lines == 7

    def test_the_setting_replaces_the_file_and_the_first_of_it_signs(self, tmp_path):
        folder = tmp_path / "of setting"
        store = Store(folder, audit_key=KEY)
        record(store, 2)
        store.close()
        assert not (tmp_path / "of setting.audit" / "key").exists()
        rotated = Store(folder, audit_key=f"{OTHER_KEY}, {KEY}")
        record(rotated, 1)
        assert rotated.audit.verify().lines == 3
        assert lines(rotated)[-1]["key"] == AuditKeys((OTHER_KEY.encode(),)).names[0]
        with pytest.raises(AuditError, match="FRACTURE_AUDIT_KEY is set: put the new key before"):
            rotated.audit.rotate_key(by="command line")
        rotated.close()
        for wrong in (None, "w" * 32):
            with pytest.raises(AuditError, match="which is not here"):
                verify_audit(folder, audit_key=wrong)

    def test_a_log_emptied_without_its_head_is_found_until_a_start_where_the_setting_has_the_key(self, tmp_path):
        folder = tmp_path / "of setting"
        store = Store(folder, audit_key=KEY)
        record(store, 2)
        edit(store, "DELETE FROM audit")
        (tmp_path / "of setting.audit" / "audit_head.json").unlink()
        record(store, 1)
        with pytest.raises(AuditError, match=r"audit_head\.json is missing"):
            verify_audit(folder, audit_key=KEY)
        store.close()

    def test_a_start_cut_short_is_taken_up_again(self, store, audit, folder, url):  # noqa: F811
        fresh, other = folder.with_name("fresh"), folder.with_name("fresh.audit")
        other.mkdir()
        (other / "key.proposed").write_text(OTHER_KEY)
        opened = Store(fresh)
        record(opened, 1)
        assert opened.audit.verify().lines == 1
        opened.close()
        assert (other / "key").read_text() == OTHER_KEY

    def test_a_folder_that_cannot_be_used_is_a_sentence(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match=r"the folder .*file for the audit log's key cannot be used .*AUDIT_DIR"):
            Store(tmp_path / "instance", audit_folder=tmp_path / "file")


# What this migration adds.
TYPES_OF_0008 = {
    "predictions": ("type_names", "type_confidence", "type_accuracy"),
    "detections": ("types",),
    "feedback": ("types", "missed_types"),
}


class TestFormerLogs:
    @pytest.fixture
    def former(self, folder):
        """Write a log as it was before there were keys."""
        store = Store(folder)
        record(store, 5)
        new = rewrite(lines(store))
        edit(
            store,
            *(f"UPDATE audit SET key = NULL, hash = '{row['hash']}' WHERE number = {row['number']}" for row in new),
        )
        with store._database.writing() as session:
            session.execute(text("ALTER TABLE audit DROP COLUMN key"))
            for statement in OF_0008:
                session.execute(text(statement))
            for column in ("limb_probability", "suitability", "bits", "window", "spacing_mm", "spacing_kind"):
                session.execute(text(f'ALTER TABLE predictions DROP COLUMN "{column}"'))
            for table, columns in TYPES_OF_0008.items():
                for column in columns:
                    session.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
            for table in ("pacs_deliveries", "pacs_objects", "pacs_studies"):
                session.execute(text(f"DROP TABLE {table}"))
            session.execute(text("UPDATE alembic_version SET version_num = '0002'"))
        store.close()
        shutil.rmtree(folder.with_name("instance.audit"))
        (folder / "audit_head.json").write_text(json.dumps({"number": 5, "hash": new[-1]["hash"]}))
        return new

    def test_they_verify_as_they_are(self, former, folder):
        before = contents(folder)
        assert verify_audit(folder)[:3] == (5, former[-1]["hash"], 5)
        assert contents(folder) == before

    def test_from_the_first_start_on_they_are_fixed(self, former, folder):
        store = Store(folder)
        assert store.audit.verify()[:3] == (5, former[-1]["hash"], 5)
        record(store, 2)
        found = store.audit.verify()
        assert (found.lines, found.unsigned, found.since) == (7, 5, former[0]["at"])
        new = rewrite(former, actor="ben")
        edit(
            store,
            *(f"UPDATE audit SET actor = 'ben', hash = '{row['hash']}' WHERE number = {row['number']}" for row in new),
        )
        with pytest.raises(AuditError, match=r"line 6 .* was changed"):
            store.audit.verify()
        store.close()

    def test_one_that_was_edited_before_is_never_signed_as_whole(self, former, folder, caplog):
        with closing(sqlite3.connect(folder / "results.sqlite3", isolation_level=None)) as database:
            database.execute("DELETE FROM audit WHERE number > 3")
        for _ in range(2):
            store = Store(folder)
            record(store, 1)
            with pytest.raises(AuditError, match=r"has \d lines, audit_head.json names line 5"):
                store.audit.verify()
            store.close()
        assert "The audit log was tampered with before it was signed" in caplog.text


def contents(*folders):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestBackup:
    @pytest.fixture(params=["closed", "with its write-ahead log"])
    def backup(self, request, folder, audit, tmp_path):
        store = Store(folder)
        record(store, 5)
        if request.param == "closed":
            store.close()
        copy = tmp_path / "backup" / "instance"
        copy.mkdir(parents=True)
        for path in folder.glob("results.sqlite3*"):
            if not path.name.endswith("-shm"):
                shutil.copy2(path, copy)
        shutil.copytree(audit, copy.with_name("instance.audit"))
        assert (copy / "results.sqlite3-wal").exists() == (request.param != "closed")
        store.close()
        return copy

    def verify(self, monkeypatch, folder):
        monkeypatch.setenv("FRACTURE_DATA_DIR", str(folder))
        return admin.main(["verify-audit"])

    def test_it_is_verified_and_not_written(self, backup, monkeypatch, capsys):
        before = contents(backup.parent)
        assert self.verify(monkeypatch, backup) == 0
        assert capsys.readouterr().out.startswith("5 lines, none changed since 20")
        assert contents(backup.parent) == before

    def test_on_a_read_only_disk_too(self, backup, monkeypatch, capsys):
        with read_only(backup.parent):
            assert self.verify(monkeypatch, backup) == 0
        assert capsys.readouterr().out.startswith("5 lines, none changed")

    def test_an_edit_is_found_there_too(self, backup, monkeypatch, capsys):
        with closing(sqlite3.connect(backup / "results.sqlite3", isolation_level=None)) as database:
            database.execute("DROP TRIGGER audit_refuses_update")
            database.execute("UPDATE audit SET actor = 'ben' WHERE number = 2")
        assert self.verify(monkeypatch, backup) == 1
        assert "line 2 of the audit log" in capsys.readouterr().err

    def test_where_there_is_none_nothing_is_made(self, tmp_path, monkeypatch, capsys):
        assert self.verify(monkeypatch, tmp_path / "nowhere") == 2
        assert "nowhere" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_a_running_page_is_verified_as_it_is(store, folder, audit, url, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("FRACTURE_DATA_DIR", str(folder))
    monkeypatch.setenv("FRACTURE_DATABASE_URL", url)
    assert admin.main(["verify-audit"]) == 0
    record(store, 1, "later")
    assert admin.main(["verify-audit"]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["5 lines", "6 lines"]


def test_the_key_is_rotated_on_the_command_line(folder, monkeypatch, capsys):
    monkeypatch.setenv("FRACTURE_DATA_DIR", str(folder))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert admin.main(["rotate-audit-key"]) == 0
    assert admin.main(["verify-audit"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("1 lines, none changed")
    monkeypatch.setenv("FRACTURE_AUDIT_KEY", KEY)
    assert admin.main(["rotate-audit-key"]) == 1
