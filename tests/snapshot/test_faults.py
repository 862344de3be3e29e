"""Tampering, a kill midway, two at a time, wrong requests and folders: each is named, and nothing is half made."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fracture_det.data.snapshots import locked
from tests.snapshot.pages import edited, make, plate, splits, verify
from tools import snapshot

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


ROOT = Path(__file__).parents[2]


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
