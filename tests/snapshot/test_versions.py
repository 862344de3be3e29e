"""fracture-det snapshot on a real store: what a version and its card hold, and when there is a new one."""

import csv
import json
import re

import pytest

from tests.snapshot.pages import RIGHT, TODAY, content_of, make, plate, splits, verify


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
    assert "the latest reading of each reader" in card
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


@pytest.mark.slow  # it imports Detectron2
def test_a_version_is_data_that_training_accepts(page, out):
    train = pytest.importorskip("fracture_det.cli.train")
    for number in range(8):
        page.say(plate(number), RIGHT if number % 2 else {"no_fracture": True})
    version = make(out, "--fractions", ".5", ".5", "0")
    given = ["--config-file", "configs/quick/faster_rcnn_R_18_FPN_cpu.yaml", "--data", str(version)]
    args = train.build_parser().parse_args([*given, "--images", str(version / "images")])
    train.register_training_data(train.configure(args))  # which raises with every problem, leaks included
