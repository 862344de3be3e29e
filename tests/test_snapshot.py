"""fracture-det snapshot on a real store: versions over time, deletion, joined groups, tampering and a kill midway."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from fracture_det.data.coco import read_coco
from fracture_det.data.snapshots import locked
from fracture_det.inference.service import PredictionService
from tests.structures.dicoms import dicom
from tests.webapp.bright import BrightRectangles, dark_plate
from tests.webapp.conftest import LIKELY, encoded
from tools import snapshot
from webapp import create_app
from webapp.settings import Settings
from webapp.store.models import FeedbackRow, PredictionRow
from webapp.store.pacs import Received
from webapp.store.results import Results

ROOT = Path(__file__).parents[1]
SPLITS = ("train", "val", "test")
RIGHT = {"boxes": [{"number": 1, "verdict": "right", "type": "spiral"}]}
TODAY = f"{time.strftime('%Y-%m-%d', time.gmtime())}-"


def plate(number):
    """Return a plate (H, W) with one likely box among dim squares, by which no other is a near copy of it."""
    rng = np.random.default_rng(number)
    squares = [
        (x, y, x + 16, y + 16, 60)
        for x in range(2, 150, 20)
        for y in range(2, 110, 20)
        if not (x < 70 and 10 < y < 60) and rng.random() < 0.5
    ]
    return dark_plate(LIKELY, *squares)


class Page:
    """The page with a store of its own; `say` uploads a picture and judges its box."""

    def __init__(self, app):
        self.app, self.client = app, app.test_client()
        self.store = app.extensions["fracture"].store

    def upload(self, pixels):
        data = {"file": (io.BytesIO(encoded(pixels)), "a.png")}
        return self.client.post("/api/v1/predictions?force=1", data=data).json["id"]

    def say(self, pixels, said=RIGHT):
        identifier = self.upload(pixels)
        assert self.client.put(f"/api/v1/predictions/{identifier}/feedback", json=said).status_code == 200
        return identifier

    def delete(self, identifier):
        assert self.store.results.delete(identifier, by="local")

    def picture(self, identifier):
        return self.store.results.get(identifier).image_path


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setenv("FRACTURE_DATA_DIR", str(tmp_path / "instance"))
    with PredictionService(BrightRectangles()) as service:
        app = create_app(Settings.from_environ(), predictor=service)
        yield Page(app)
        app.extensions["fracture"].store.close()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "feedback"


def versions(out):
    numbered = [(json.loads((p / "snapshot.json").read_text())["number"], p) for p in out.glob("2*")]
    return [path for _, path in sorted(numbered)]


def make(out, *options):
    """Make a snapshot; return its folder, the newest."""
    assert snapshot.main(["--out", str(out), *options]) == 0
    return versions(out)[-1]


def splits(version):
    """Return {identifier: split} of the radiographs of a version."""
    return {r.file_name[:-4]: split for split in SPLITS for r in read_coco(version / f"{split}.json")}


def verify(folder, capsys):
    capsys.readouterr()
    code = snapshot.main(["--verify", str(folder)])
    return code, capsys.readouterr().out


def content_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_version_holds_what_readers_said_and_names_itself_by_its_hash(page, out, capsys):
    ids = [page.say(plate(number)) for number in range(3)]
    unjudged = page.say(plate(3), {"comment": "nobody judged the box"})
    version = make(out)
    said = capsys.readouterr().out
    assert f"left out: {unjudged}: box 1 was not judged" in said
    content = json.loads((version / "snapshot.json").read_text())
    assert version.name == TODAY + content["sha256"][:12]
    assert sorted(splits(version)) == sorted(ids)
    assert sorted(p.stem for p in (version / "images").iterdir()) == sorted(ids)
    assert sorted(p.stem for p in (version / "annotations").iterdir()) == sorted(ids)
    rows = list(csv.DictReader((version / "metadata.csv").read_text().splitlines()))
    assert {(row["author"], row["finding"], row["weights"]) for row in rows} == {("local", "likely", "0" * 64)}
    card = (version / "CARD.md").read_text()
    for part in ("| spiral | 3 |", "| local | 3 |", "| bright rectangles, ", "| likely | 3 |", "TO BE FILLED IN"):
        assert part in card
    assert f"| {unjudged} | box 1 was not judged |" in card
    assert "one feedback per result" in card
    assert content["sha256"] in card
    assert f"fracture-det snapshot --out {out}" in card
    assert version.stat().st_mode & 0o077 == 0  # radiographs, for their owner only
    assert verify(version, capsys) == (0, f"{version}: as it was written\n")


def test_the_same_feedback_is_no_new_version_and_more_feedback_leaves_the_old_one_as_it_is(page, out, capsys):
    ids = [page.say(plate(number)) for number in range(8)]
    first = make(out)
    before, given = content_of(first), splits(first)
    assert make(out) == first
    assert f"nothing new since {first.name}" in capsys.readouterr().out
    assert [path.name for path in out.iterdir() if path.is_dir()] == [first.name]
    ids += [page.say(plate(number)) for number in range(8, 20)]
    second = make(out, "--fractions", "0", "0", "1")
    assert second != first
    assert content_of(first) == before
    now = splits(second)
    assert {name: now[name] for name in given} == given
    assert {now[name] for name in ids[8:]} == {"test"}
    assert len(set(given.values())) > 1
    assert verify(out, capsys)[0] == 0


def test_the_same_pictures_are_divided_alike_in_whatever_order_they_come(page, tmp_path):
    pictures = {number: page.say(plate(number)) for number in range(6)}
    first = splits(make(tmp_path / "at once"))
    for identifier in pictures.values():
        page.delete(identifier)
    again = {}
    for number in reversed(range(6)):
        again[number] = page.say(plate(number))
        last = make(tmp_path / "one by one")
    assert {n: splits(last)[name] for n, name in again.items()} == {n: first[name] for n, name in pictures.items()}


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
        session.get(FeedbackRow, ids[0]).updated_at = 0.0
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


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


TAMPERING = {
    "a picture": (lambda v, a, b: (v / "images" / f"{a}.png").write_bytes(b"x"), "images/{a}.png: changed"),
    "no picture": (lambda v, a, b: (v / "images" / f"{a}.png").unlink(), "images/{a}.png: missing"),
    "a box": (lambda v, a, b: (v / "annotations" / f"{a}.xml").write_text("<a/>"), "annotations/{a}.xml: changed"),
    "one more": (lambda v, a, b: (v / "images" / "b.png").write_bytes(b"x"), "images/b.png: not part"),
    "the table": (lambda v, a, b: (v / "metadata.csv").write_text("file_name\n"), "metadata.csv"),
    "a split": (lambda v, a, b: (v / "test.json").write_text("{}"), ".json"),
    "the list": (
        lambda v, a, b: edited(v / "snapshot.json", lambda c: c["hashes"].update({f"images/{a}.png": "0" * 64})),
        "sha256: the listed hashes give",
    ),
    "the ledger": (
        lambda v, a, b: edited(v / "snapshot.json", lambda c: c["ledger"]["groups"][0].update(split="none")),
        "ledger: was changed",
    ),
    "the date": (
        lambda v, a, b: edited(v / "snapshot.json", lambda c: c.update(name=f"2026-01-01{c['name'][10:]}")),
        "name: ",
    ),
    "the number": (lambda v, a, b: edited(v / "snapshot.json", lambda c: c.update(number="x")), "not a snapshot.json"),
    "the deletions": (
        lambda v, a, b: edited(v / "snapshot.json", lambda c: c.update(changed_by_deletion=["x"])),
        "not a snapshot.json",
    ),
    "the name": (lambda v, a, b: v.rename(v.with_name("2026-01-01-0123456789ab")), "expected a name that ends with"),
}


@pytest.mark.parametrize("forgotten", [False, True], ids=["whole", "after a deletion"])
@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_named(page, out, capsys, what, forgotten):
    first, second, third = (page.say(plate(number)) for number in range(3))
    version = make(out)
    if forgotten:
        page.delete(third)
        make(out, "--forget")
    change, sentence = TAMPERING[what]
    change(version, first, second)
    code, told = verify(out, capsys) if what == "the name" else verify(version, capsys)
    if what == "the name":
        assert snapshot.main(["--out", str(out)]) == 1
        told = capsys.readouterr().err
    assert code == 1
    assert sentence.format(a=first) in told


def test_after_a_deletion_a_box_that_was_moved_in_a_split_is_found(page, out, capsys):
    first, second = page.say(plate(0)), page.say(plate(1))
    version = make(out, "--fractions", "1", "0", "0")
    page.delete(second)
    make(out, "--forget")
    edited(version / "train.json", lambda c: c["annotations"][0].update(bbox=[0, 0, 5, 5]))
    code, told = verify(version, capsys)
    assert (code, told.splitlines()[0]) == (1, f"{version}: record {first} of the tables: changed")
    # A tombstone that somebody writes excuses the absence of that radiograph only, and no other.
    (version / "images" / f"{first}.png").unlink()
    assert f"images/{first}.png: missing" in verify(version, capsys)[1]


def near(pixels):
    """Return the picture in another size, which other bytes show."""
    return cv2.resize(pixels, (240, 180), interpolation=cv2.INTER_AREA)


def test_near_copies_of_pictures_of_earlier_versions_are_one_group(page, out):
    first = page.say(plate(1))
    version = make(out, "--fractions", "0", "0", "1")
    page.delete(first)
    copy, other = page.say(near(plate(1))), page.say(plate(2))
    after = splits(make(out, "--fractions", "1", "0", "0"))
    assert after == {copy: "test", other: "train"}
    assert splits(version) == {first: "test"}


def test_a_picture_that_was_deleted_and_forgotten_keeps_its_split_when_it_comes_again(page, out):
    first, other = page.say(plate(1)), page.say(plate(2))
    make(out, "--fractions", "0", "0", "1")
    page.delete(first)
    make(out, "--forget")
    again = page.say(plate(1))
    assert splits(make(out, "--fractions", "1", "0", "0")) == {again: "test", other: "test"}


def test_what_joins_a_train_group_and_a_test_group_leaves_training_and_is_named(page, out, capsys):
    trained = page.say(plate(1))
    make(out, "--fractions", "1", "0", "0")
    tested = page.say(plate(2))
    make(out, "--fractions", "0", "0", "1")
    link = from_pacs(page, plate(3), "study", {trained, tested})
    capsys.readouterr()
    version = make(out, "--fractions", "1", "0", "0")
    said = capsys.readouterr().out
    assert splits(version) == {tested: "test"}
    assert "are one group: test from now on" in said
    for name in (trained, link):
        assert f"left out: {name}: its group has pictures in two splits" in said
    assert f"left since {versions(out)[-2].name}: {trained}: its group" in said
    assert "are one group" in (version / "CARD.md").read_text()
    later = from_pacs(page, plate(4), "study", set())
    assert splits(make(out)) == {tested: "test"}
    assert later not in splits(make(out))


def from_pacs(page, pixels, study, others, data=None):
    """Let a radiograph, judged, come from the PACS with a study, and others be of it; return its result."""
    identifier = page.say(pixels)
    page.store.pacs.spool.prepare()
    for result in sorted({identifier, *others}):
        path = page.store.pacs.spool.incoming / result
        path.write_bytes(data or b"object")
        page.store.pacs.receive(path, Received(study, result, "1.2", "a" * 64, 6), source="peer:A", quiet_s=0)
        [known] = page.store.pacs.waiting_objects(9, but=())
        page.store.pacs.finish_object(known.id, {}, result)
    return identifier


def test_patients_of_the_pacs_are_groups_by_hashes_of_the_sites_secret(page, out, monkeypatch, capsys):
    secret = "a secret of the site"
    monkeypatch.setenv("FRACTURE_SITE_SECRET", secret)
    patient = dicom(plate(1), PatientID="12345", PatientName="Roe^Jane")
    first = from_pacs(page, plate(1), "one study", set(), patient)
    version = make(out, "--fractions", "0", "0", "1")
    second = from_pacs(page, plate(2), "another study", set(), patient)
    assert splits(make(out, "--fractions", "1", "0", "0")) == {first: "test", second: "test"}
    for content in content_of(out).values():
        assert not any(name in content for name in (b"12345", b"Roe", b"one study", secret.encode()))
    monkeypatch.setenv("FRACTURE_SITE_SECRET", "another secret of it")
    assert snapshot.main(["--out", str(out)]) == 1
    assert f"{versions(out)[-1].name} was made with a secret" in capsys.readouterr().err
    monkeypatch.setenv("FRACTURE_SITE_SECRET", "short")
    assert snapshot.main(["--out", str(out)]) == 1
    assert "expected at least 16 characters, got 5" in capsys.readouterr().err
    assert len(versions(out)) == 2
    assert version in versions(out)


def test_without_the_secret_studies_are_groups_and_that_is_said(page, out, capsys):
    patient = dicom(plate(1), PatientID="12345")
    first = from_pacs(page, plate(1), "one study", set(), patient)
    make(out, "--fractions", "0", "0", "1")
    same = from_pacs(page, plate(2), "one study", set(), patient)
    other = from_pacs(page, plate(3), "another study", set(), patient)
    assert splits(make(out, "--fractions", "1", "0", "0")) == {first: "test", same: "test", other: "train"}
    assert "3 radiographs from the PACS: grouped by study, not by patient: FRACTURE_SITE_SECRET is not set" in (
        capsys.readouterr().out
    )


def test_readers_can_be_numbers(page, out):
    page.say(plate(1))
    version = make(out, "--anonymous-readers", "--note", "CC BY 4.0, consent of 2026")
    assert "local" not in (version / "metadata.csv").read_text()
    assert "| reader 1 | 1 |" in (version / "CARD.md").read_text()
    assert "CC BY 4.0, consent of 2026" in (version / "CARD.md").read_text()
    assert "TO BE FILLED IN" not in (version / "CARD.md").read_text()


def test_two_results_of_one_picture_are_compared(page, out):
    first, second = page.say(plate(1)), page.say(plate(1), {"no_fracture": True})
    card = (make(out) / "CARD.md").read_text()
    assert "1 picture was judged in several results; whether there is a fracture, they agree on 0 of 1." in card
    assert re.search(rf"- not on ({first}, {second}|{second}, {first})", card)


def test_a_picture_that_cannot_be_read_is_left_out_and_named(page, out, capsys):
    page.say(plate(1))
    broken = page.say(plate(2))
    page.picture(broken).write_bytes(b"no picture")
    assert broken not in splits(make(out))
    assert f"left out: {broken}: its picture cannot be read: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--fractions", "1", "-1", "1"], "fractions: expected three numbers of at least 0"),
        (["--fractions", "nan", "0", "1"], "fractions: expected three numbers of at least 0"),
        (["--fractions", "0", "0", "0"], "fractions: expected three numbers of at least 0"),
        (["--fractions", "a", "0", "1"], "invalid float value: 'a'"),
        (["--verify", "x"], "not allowed with argument --out"),
    ],
)
def test_a_wrong_request_is_refused(out, given, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        snapshot.main(["--out", str(out), *given])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_what_is_wrong_with_store_and_folder_is_said(page, out, tmp_path, capsys):
    assert snapshot.main(["--out", str(out)]) == 1
    assert f"the store in {tmp_path / 'instance'} is empty; nothing was written" in capsys.readouterr().err
    page.upload(plate(1))
    assert snapshot.main(["--out", str(out)]) == 1
    assert "has 1 result, none with feedback" in capsys.readouterr().err
    page.say(plate(2), {"comment": "only this"})
    assert snapshot.main(["--out", str(out)]) == 1
    assert "nothing can be trained on: " in capsys.readouterr().err
    page.say(plate(3))
    (tmp_path / "file").write_text("x")
    assert snapshot.main(["--out", str(tmp_path / "file")]) == 1
    assert "File exists" in capsys.readouterr().err
    assert snapshot.main(["--verify", str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err
    assert snapshot.main(["--verify", str(tmp_path)]) == 1
    assert "no snapshot lies there" in capsys.readouterr().err
    version = make(out)
    (version / "snapshot.json").write_text("{")
    assert snapshot.main(["--out", str(out)]) == 1
    assert f"{version / 'snapshot.json'}: cannot be read" in capsys.readouterr().err
    assert len([path for path in out.iterdir() if path.is_dir()]) == 1


KILLED = """
import os, signal, sys
from fracture_det.data import snapshots
from tools import snapshot

def stop(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(snapshots, sys.argv[1], stop)
snapshot.main(["--out", sys.argv[2]])
"""


@pytest.mark.parametrize("step", ["hashes_of", "card", "_publish"])
def test_a_kill_midway_leaves_nothing_that_looks_like_a_version(page, out, step):
    page.say(plate(1))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, step, str(out)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == -signal.SIGKILL
    assert len(list(out.glob(".unfinished-*"))) == 1
    assert list(out.glob("2*")) == []
    version = make(out)
    assert sorted(p.name for p in out.iterdir()) == [".lock", version.name]


def test_versions_of_two_folders_are_not_one_history(page, out, tmp_path, capsys):
    page.say(plate(1))
    make(out)
    page.say(plate(2))
    other = make(tmp_path / "other")
    other.rename(out / other.name)
    assert snapshot.main(["--out", str(out)]) == 1
    assert "number: 1 is that of " in capsys.readouterr().err


def test_two_at_a_time_are_refused(page, out, capsys):
    page.say(plate(1))
    with locked(out):
        assert snapshot.main(["--out", str(out)]) == 1
    assert "another snapshot is being made there" in capsys.readouterr().err


@pytest.mark.slow  # it imports Detectron2
def test_a_version_is_data_that_training_accepts(page, out):
    train = pytest.importorskip("fracture_det.cli.train")
    for number in range(8):
        page.say(plate(number), RIGHT if number % 2 else {"no_fracture": True})
    version = make(out, "--fractions", ".5", ".5", "0")
    given = ["--config-file", "configs/quick/faster_rcnn_R_18_FPN_cpu.yaml", "--data", str(version)]
    args = train.build_parser().parse_args([*given, "--images", str(version / "images")])
    train.register_training_data(train.configure(args))  # which raises with every problem, leaks included
