"""The queue on both databases: one row for one object, all outputs of a version or none, no file left behind."""

import time

import pytest

from webapp.pacs.answers import derived_uid
from webapp.store import Store, StoreUnavailable
from webapp.store.pacs import AGAIN, CHANGED, NEW, Output, Received


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    opened = Store(tmp_path / "data", url=url)
    opened.pacs.spool.prepare()
    yield opened
    opened.close()


def put(store, number, tag, *, sha256="a" * 64):
    """Put the number-th object of the study of a test into the queue."""
    path = store.pacs.spool.incoming / f"{number}"
    path.write_bytes(b"object")
    known = Received(derived_uid("study", tag), derived_uid("object", str(number), tag), "1.2", sha256, 6)
    return store.pacs.receive(path, known, source="peer:A", quiet_s=0)


@pytest.fixture
def tag(request):
    """What makes the UIDs of a test its own: the tests share one PostgreSQL."""
    return f"{request.node.name} {time.time()}"


def mine(store, tag):
    return [study for study in store.pacs.due_studies(1000) if study.uid == derived_uid("study", tag)]


def test_an_object_is_taken_once(store, tag):
    assert put(store, 1, tag) == NEW
    assert put(store, 1, tag) == AGAIN
    assert put(store, 1, tag, sha256="b" * 64) == CHANGED
    assert len(list(store.pacs.spool._objects.iterdir())) == 1


def test_a_study_is_due_when_none_of_its_objects_waits(store, tag):
    put(store, 1, tag)
    put(store, 2, tag)
    waiting = [known for known in store.pacs.waiting_objects(1000, but=()) if known.path.exists()]
    assert len(waiting) == 2
    assert mine(store, tag) == []
    store.pacs.finish_object(waiting[0].id, {"status": "analysed"}, None)
    assert mine(store, tag) == []
    store.pacs.fail_object(waiting[1].id, "the detector failed", pause_s=None)
    [study] = mine(store, tag)
    assert sorted(known.state for known in study.objects) == ["done", "failed"]


def finished_study(store, tag):
    put(store, 1, tag)
    [known] = [known for known in store.pacs.waiting_objects(1000, but=()) if known.path.exists()]
    store.pacs.finish_object(known.id, {"status": "analysed"}, None)
    [study] = mine(store, tag)
    return study


def outputs(tag):
    return [Output(f"archive {tag}", kind, f"{kind} {tag}", kind.encode()) for kind in ("sr", "sc")]


def test_an_answer_is_given_once(store, tag):
    study = finished_study(store, tag)
    assert store.pacs.answer(study, "c" * 64, outputs(tag))
    assert not store.pacs.answer(study, "c" * 64, outputs(tag))
    waiting = store.pacs.waiting_deliveries(f"archive {tag}", 10)
    assert [(one.kind, one.path.read_bytes()) for one in waiting] == [("sr", b"sr"), ("sc", b"sc")]
    assert len(list(store.pacs.spool._outbox.iterdir())) == 2
    store.pacs.delivered(waiting[0].id)
    assert len(store.pacs.waiting_deliveries(f"archive {tag}", 10)) == 1
    assert len(list(store.pacs.spool._outbox.iterdir())) == 1


def test_an_answer_that_an_object_overtook_is_not_given(store, tag):
    study = finished_study(store, tag)
    put(store, 2, tag)
    assert not store.pacs.answer(study, "c" * 64, outputs(tag))
    assert list(store.pacs.spool._outbox.iterdir()) == []
    assert store.pacs.waiting_deliveries(f"archive {tag}", 10) == []


def test_an_answer_that_cannot_be_written_leaves_nothing(store, tag, monkeypatch):
    study = finished_study(store, tag)
    written = []
    real = store.pacs.spool.write_output

    def fail_on_the_second(content):
        if written:
            raise StoreUnavailable("full")
        written.append(content)
        return real(content)

    monkeypatch.setattr(store.pacs.spool, "write_output", fail_on_the_second)
    with pytest.raises(StoreUnavailable):
        store.pacs.answer(study, "c" * 64, outputs(tag))
    assert list(store.pacs.spool._outbox.iterdir()) == []
    [again] = mine(store, tag)
    assert again.version == 0


def test_pauses_are_kept(store, tag):
    study = finished_study(store, tag)
    store.pacs.answer(study, "c" * 64, outputs(tag)[:1])
    [one] = store.pacs.waiting_deliveries(f"archive {tag}", 10)
    store.pacs.fail_delivery(one.id, "away", pause_s=3600, refused=False)
    assert store.pacs.waiting_deliveries(f"archive {tag}", 10) == []
    store.pacs.fail_delivery(one.id, "away", pause_s=None, refused=True)
    [letter] = [known for known in store.pacs_status.dead_letters() if known.id == one.id]
    assert (letter.attempts, letter.problem) == (2, "away")
    assert store.pacs_status.retry(one.id, by="test") == 1
    [again] = store.pacs.waiting_deliveries(f"archive {tag}", 10)
    assert again.attempts == again.refusals == 0


def test_old_objects_are_deleted_when_they_are_answered(store, tag):
    study = finished_study(store, tag)
    [known] = study.objects
    store.pacs.sweep(keep_days=0)
    assert known.path.exists(), "not answered yet"
    store.pacs.answer(study, "c" * 64, outputs(tag))
    assert store.pacs.holds(known.sop_instance_uid, "1.2")
    store.pacs.sweep(keep_days=0)
    assert not known.path.exists()
    assert not store.pacs.holds(known.sop_instance_uid, "1.2")
    assert put(store, 1, tag) == AGAIN, "what was answered is not answered again"
