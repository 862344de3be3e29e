"""Which pictures are one group, over versions, and that each has one split for life."""

import cv2

from tests.snapshot.pages import content_of, make, plate, splits, versions
from tests.structures.dicoms import dicom
from tools import snapshot
from webapp.store.pacs import Received


def near(pixels):
    """Return the picture in another size, which other bytes show."""
    return cv2.resize(pixels, (240, 180), interpolation=cv2.INTER_AREA)


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
