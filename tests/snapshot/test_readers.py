"""What several readers of one picture make of it in a snapshot, and in the feedback that is exported."""

import csv
import json

import pytest

from fracture_det.data.coco import read_coco
from fracture_det.structures.readings import Reading
from tests.snapshot.pages import SPLITS, make, plate, splits, verify, versions
from tools import export_feedback, snapshot

RIGHT, NONE = Reading({1: "right"}, (), False, ""), Reading({}, (), True, "Doe, John")
MOVED = Reading({1: "right"}, (), False, "", moved={1: (24.0, 30.0, 64.0, 50.0)}, types={1: "spiral"})
UNREADABLE = Reading({}, (), False, "", unreadable=True, reason="Doe moved")


@pytest.fixture
def read(page):
    """Read pictures by several: agreed, disputed, settled, unreadable, unfinished; return their identifiers by name."""
    said = {
        "agreed": {"anna": RIGHT, "ben": MOVED},
        "disputed": {"anna": RIGHT, "ben": NONE},
        "settled": {"anna": RIGHT, "ben": NONE},
        "unreadable": {"anna": UNREADABLE},
        "one finds it unreadable": {"anna": RIGHT, "ben": UNREADABLE},
        "unfinished": {"anna": RIGHT, "ben": Reading({}, (), False, "later")},
        "alone": {"anna": RIGHT},
    }
    made = {}
    for number, (name, readings) in enumerate(said.items()):
        made[name] = page.upload(plate(number))
        for author, reading in readings.items():
            page.store.results.save_reading(made[name], reading, author=author)
    page.store.results.settle(made["settled"], NONE, by="carla")
    return made


LEFT_OUT = {
    "disputed": "its readers disagree, and nobody has settled it: fractured or not",
    "unreadable": "its reader found it not readable",
    "one finds it unreadable": "its readers disagree, and nobody has settled it: readable or not",
    "unfinished": "a reading is not finished: box 1 was not judged",
}
TRUTH = {"agreed": [[22.0, 30.0, 62.0, 50.0]], "settled": [], "alone": [[20.0, 30.0, 60.0, 50.0]]}


def test_a_snapshot_holds_what_is_settled_or_agreed_and_names_the_rest(read, out, capsys):
    version = make(out)
    content = json.loads((version / "snapshot.json").read_text())
    left_out = {row["radiograph"]: row["reason"] for row in content["left_out"]}
    assert left_out == {read[name]: reason for name, reason in LEFT_OUT.items()}
    assert set(splits(version)) == {read[name] for name in TRUTH}
    records = [record for split in SPLITS for record in read_coco(version / f"{split}.json")]
    boxes = {record.file_name[:-4]: record.boxes.tolist() for record in records}
    assert boxes == {read[name]: truth for name, truth in TRUTH.items()}
    rows = {row["file_name"][:-4]: row for row in csv.DictReader((version / "metadata.csv").read_text().splitlines())}
    said = {name: [rows[read[name]][column] for column in ("author", "truth", "adjudicator")] for name in TRUTH}
    assert said == {
        "agreed": ["anna; ben", "agreed", ""],
        "settled": ["anna; ben", "settled", "carla"],
        "alone": ["anna", "", ""],
    }
    card = (version / "CARD.md").read_text()
    for line in ("| anna | 3 |", "| ben | 2 |", "| settled | 1 |", "| one reader | 1 |", LEFT_OUT["disputed"]):
        assert line in card
    everything = b"".join(path.read_bytes() for path in version.rglob("*") if path.is_file())
    assert b"Doe" not in everything
    assert verify(version, capsys)[0] == 0


def test_what_is_settled_since_is_in_the_next_version(page, read, out):
    make(out)
    page.store.results.settle(read["disputed"], MOVED, by="carla")
    page.store.results.settle(read["agreed"], UNREADABLE, by="carla")
    second = make(out)
    assert len(versions(out)) == 2
    content = json.loads((second / "snapshot.json").read_text())
    assert read["disputed"] in splits(second)
    assert content["left_since_previous"] == {read["agreed"]: "an adjudicator found it not readable"}


def test_anonymous_readers_have_numbers_wherever_they_stand(read, out):
    version = make(out, "--anonymous-readers")
    text = (version / "metadata.csv").read_text() + (version / "CARD.md").read_text()
    assert not any(name in text for name in ("anna", "ben", "carla"))
    assert "reader 1; reader 2" in text or "reader 2; reader 1" in text or "reader 3" in text


def test_exported_feedback_follows_the_same_rule(read, tmp_path, capsys):
    assert export_feedback.main(["--out", str(tmp_path / "exported")]) == 0
    said = capsys.readouterr().out
    assert all(f"left out: {read[name]}: {reason}" in said for name, reason in LEFT_OUT.items())
    truth = {r.file_name[:-4]: r.boxes.tolist() for r in read_coco(tmp_path / "exported" / "coco.json")}
    assert truth == {read[name]: boxes for name, boxes in TRUTH.items()}
    assert [r.types for r in read_coco(tmp_path / "exported" / "coco.json") if r.file_name[:-4] == read["agreed"]] == [
        ("spiral",)
    ]


def test_only_disputed_pictures_make_no_snapshot(page, out, capsys):
    identifier = page.upload(plate(1))
    for author, reading in (("anna", RIGHT), ("ben", NONE)):
        page.store.results.save_reading(identifier, reading, author=author)
    assert snapshot.main(["--out", str(out)]) == 1
    assert f"nothing can be trained on: {identifier}: {LEFT_OUT['disputed']}" in capsys.readouterr().err
