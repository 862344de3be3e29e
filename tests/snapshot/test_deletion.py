"""What was deleted from the store is in no later version, and on request in no earlier one."""

from tests.snapshot.pages import SPLITS, TODAY, content_of, make, plate, splits, verify, versions
from tools import snapshot
from webapp.store.models import PredictionRow, ReadingRow
from webapp.store.results import Results


def test_what_was_deleted_is_not_in_the_next_version_and_is_forgotten_on_request(page, out, capsys):
    ids = [page.say(plate(number)) for number in range(6)]
    first = make(out)
    page.delete(ids[0])
    page.picture(ids[1]).unlink()
    second = make(out)
    assert sorted(splits(second)) == sorted(ids[2:])
    card = (second / "CARD.md").read_text()
    assert f"Since {first.name}, 2 radiographs left" in card
    assert f"| {ids[0]} | it is not in the store any more |" in card
    assert f"| {ids[1]} | its picture was not kept |" in card
    assert ids[0] in splits(first)
    before = content_of(second)
    make(out, "--forget")
    said = capsys.readouterr().out
    assert f"deleted from {first.name}: {', '.join(sorted(ids[:2]))}" in said
    assert content_of(second) == before
    assert sorted(splits(first)) == sorted(ids[2:])
    for name, content in content_of(first).items():
        if name not in ("snapshot.json", "CARD.md"):
            assert not any(gone in name or gone.encode() in content for gone in ids[:2]), name
    assert "Changed by deletion on " in (first / "CARD.md").read_text()
    code, told = verify(first, capsys)
    assert (code, told.count("\n")) == (0, 1)
    assert f"changed by deletion on {TODAY[:-1]}: {', '.join(sorted(ids[:2]))}" in told
    after = content_of(first)
    make(out, "--forget")
    assert content_of(first) == after


def test_a_result_that_has_expired_is_forgotten_like_one_that_was_deleted(page, out, monkeypatch):
    kept, ids = page.say(plate(0)), [page.say(plate(1))]
    first = make(out)
    with page.store._database.writing() as session:
        session.get(PredictionRow, ids[0]).created_at = 0.0
        session.get(ReadingRow, (ids[0], "local")).updated_at = 0.0
    make(out, "--forget")
    assert sorted(splits(first)) == [kept]


def test_a_store_without_any_of_the_radiographs_is_not_taken_for_a_deletion(page, out, monkeypatch, capsys):
    ids = [page.say(plate(number)) for number in range(3)]
    first = make(out)
    for identifier in ids:
        page.delete(identifier)
    before = content_of(first)
    assert snapshot.main(["--out", str(out), "--forget"]) == 1
    assert "is that the right one (FRACTURE_DATA_DIR" in capsys.readouterr().err
    assert content_of(first) == before
    assert snapshot.main(["--out", str(out), "--forget", "all"]) == 1  # there is nothing to write
    assert "is empty; nothing was written" in capsys.readouterr().err
    assert splits(first) == {}
    assert verify(first, capsys)[0] == 0


def test_what_moves_to_another_page_of_results_meanwhile_is_not_taken_for_deleted(page, out, monkeypatch):
    ids = [page.say(plate(number)) for number in range(3)]
    first = make(out)
    monkeypatch.setattr("fracture_det.cli.export_feedback.PER_PAGE", 1)
    whole_page = Results.page

    def page_and_deletion(results, *given, **numbers):
        found = whole_page(results, *given, **numbers)
        if numbers["page"] == 1 and page.store.results.get(ids[2]) is not None:
            page.delete(ids[2])  # the newest, so that the second becomes the first
        return found

    monkeypatch.setattr(Results, "page", page_and_deletion)
    make(out, "--forget")
    assert sorted(splits(versions(out)[-1])) == sorted(ids[:2])
    assert set(splits(first)) >= set(ids[:2])
    make(out, "--forget")
    assert sorted(splits(first)) == sorted(ids[:2])


def test_a_deletion_that_was_cut_short_is_found_and_finished(page, out, capsys):
    ids = [page.say(plate(number)) for number in range(4)]
    first = make(out)
    whole = content_of(first)
    page.delete(ids[0])
    make(out, "--forget")
    (first / "images" / f"{ids[0]}.png").write_bytes(whole[f"images/{ids[0]}.png"])
    split = next(name for name in SPLITS if ids[0].encode() in whole[f"{name}.json"])
    (first / f"{split}.json").write_bytes(whole[f"{split}.json"])
    code, told = verify(first, capsys)
    assert code == 1
    assert f"images/{ids[0]}.png: still there, although deleted" in told
    make(out, "--forget")
    assert verify(first, capsys)[0] == 0
