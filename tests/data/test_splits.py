"""Groups are whole, strata are even, the same seed gives the same split, and a leak is never silent."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from fracture_det.data.metadata import MetadataError
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.data.splits import (
    SPLITS,
    LeakError,
    assign,
    check_leaks,
    count_split,
    drop_leaks,
    read_split,
    split_by_group,
)

ROOT = Path(__file__).parents[2]


def record(number, group, *, fractured=False, anatomy=None):
    boxes = np.array([[1, 1, 5, 5]] * fractured, float).reshape(-1, 4)
    return ImageRecord(number, f"{number:04d}.png", 9, 9, group, anatomy, boxes, np.zeros(len(boxes), int))


@pytest.fixture(scope="module")
def dataset():
    """1,000 images in 334 patients of three; every tenth patient is fractured, one of three anatomies each."""
    records = [
        record(k, f"patient {k // 3}", fractured=(k // 3) % 10 == 0, anatomy=("hand", "leg", "hip")[(k // 3) % 3])
        for k in range(1000)
    ]
    return Dataset(tuple(records), ("fracture",))


def test_groups_stay_whole_and_all_images_are_used(dataset):
    parts = split_by_group(dataset, seed=1)
    splits_of = defaultdict(set)
    for split, part in parts.items():
        for item in part:
            splits_of[item.group_id].add(split)
    assert all(len(found) == 1 for found in splits_of.values())
    assert sorted(item.image_id for part in parts.values() for item in part) == list(range(1000))


def test_every_stratum_is_divided_as_asked_to_within_one_group(dataset):
    parts = split_by_group(dataset, (0.7, 0.2, 0.1), seed=1)
    totals = Counter((item.anatomy, item.fractured) for item in dataset)
    for split, fraction in zip(SPLITS, (0.7, 0.2, 0.1), strict=True):
        counts = Counter((item.anatomy, item.fractured) for item in parts[split])
        for stratum, total in totals.items():
            assert abs(counts[stratum] - fraction * total) <= 3, (split, stratum)


def test_the_same_seed_gives_the_same_split_whatever_the_order(dataset):
    first = assign(dataset.records, seed=4)
    assert assign(dataset.records[::-1], seed=4) == first
    assert assign(dataset.records, seed=5) != first


def test_the_split_does_not_depend_on_the_hash_seed_of_python():
    code = (
        "from fracture_det.data.records import ImageRecord\n"
        "from fracture_det.data.splits import assign\n"
        "records = [ImageRecord(k, f'{k}.png', 9, 9, f'g{k // 2}', 'ab'[k % 2]) for k in range(60)]\n"
        "print(sorted(assign(records, seed=3).items()))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_a_known_split_never_changes():
    # Written down once: the same on every machine and Python version, or old splits could not be made again.
    records = [record(k, f"g{k}", fractured=k % 2 == 0) for k in range(12)]
    assignment = assign(records, (0.5, 0.25, 0.25), seed=0)
    assert " ".join(assignment[f"{k:04d}.png"] for k in range(12)) == KNOWN


KNOWN = "train train test val train train test train val val train test"


def test_the_split_of_a_larger_set_never_changes(dataset):
    text = json.dumps(sorted(assign(dataset.records, seed=4).items()))
    assert hashlib.sha256(text.encode()).hexdigest() == KNOWN_LARGER


KNOWN_LARGER = "b399d094fbac78d10679f55bcec6122dc2de400fc681cfbade804c00494994df"


def fractured_in(records, assignment):
    return Counter(assignment[r.file_name] for r in records if r.fractured)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n", [8, 10, 12, 20])
def test_every_split_of_a_small_set_has_a_fractured_image(n, seed):
    records = [record(k, f"g{k}", fractured=k % 2 == 0) for k in range(n)]
    assignment = assign(records, seed=seed)
    assert set(fractured_in(records, assignment)) == set(SPLITS)
    assert max(Counter(assignment.values())[split] for split in ("val", "test")) <= n / 10 + 1


@pytest.mark.parametrize(("n_fractured", "expected"), [(0, []), (1, ["train"]), (2, ["train", "val"]), (3, [*SPLITS])])
def test_train_keeps_a_fractured_group(n_fractured, expected):
    records = [record(k, f"g{k}", fractured=k < n_fractured) for k in range(10)]
    for seed in range(8):
        assert sorted(fractured_in(records, assign(records, seed=seed)), key=SPLITS.index) == expected


def test_a_fractured_group_that_is_larger_than_the_share_is_not_exchanged():
    # Two patients of eight fractured images, and four healthy images: val has room for two images.
    records = [record(k, f"patient {k // 8}" if k < 16 else f"g{k}", fractured=k < 16) for k in range(20)]
    assert fractured_in(records, assign(records)) == {"train": 16}


def test_fixed_files_count_as_fractured_images_of_their_split():
    records = [record(k, f"g{k}", fractured=k in (0, 1, 2)) for k in range(10)]
    fixed = {"0000.png": "val"}
    assignment = assign(records, fixed=fixed)
    assert assignment["0000.png"] == "val"
    assert fractured_in(records, assignment) == {"train": 1, "val": 1, "test": 1}


def test_one_group_and_none_are_cases():
    assert assign([]) == {}
    assert assign([record(1, "a"), record(2, "a")]) == {"0001.png": "train", "0002.png": "train"}


@pytest.mark.parametrize("fractions", [(0.8, 0.2), (0, 0, 0), (1.2, -0.1, -0.1)])
def test_impossible_fractions_are_refused(fractions):
    with pytest.raises(ValueError, match="fractions: expected three numbers"):
        assign([record(1, "a")], fractions)


def test_a_split_with_fraction_zero_stays_empty(dataset):
    assert set(assign(dataset.records, (0.9, 0.1, 0)).values()) == {"train", "val"}


def test_fixed_files_keep_their_split_and_their_group_follows():
    records = [record(1, "a"), record(2, "a"), record(3, "b")]
    assert assign(records, (1, 0, 1), fixed={"0001.png": "test"})["0002.png"] == "test"


def test_a_group_that_straddles_splits_fails_loudly_or_is_dropped_from_the_earlier():
    records = [record(1, "a"), record(2, "a"), record(3, "b"), record(4, "c"), record(5, "c"), record(6, "c")]
    fixed = {"0001.png": "test", "0004.png": "train", "0005.png": "val", "0006.png": "test"}
    assignment = assign(records, (1, 0, 0), fixed=fixed)
    assert assignment["0002.png"] == "train"  # test may hold only what the file names
    with pytest.raises(LeakError, match=r"2 groups lie in more than one split.*a in train and test"):
        check_leaks(records, assignment)

    kept, problems = drop_leaks(records, assignment)

    assert kept == {"0001.png": "test", "0003.png": "train", "0006.png": "test"}
    assert [(p.file, p.kind, p.action) for p in problems] == [
        (name, "leak", "excluded") for name in ("0002.png", "0004.png", "0005.png")
    ]
    check_leaks(records, kept)


def test_counts_are_by_split_class_and_anatomy():
    records = [record(1, "a", fractured=True, anatomy="hand"), record(2, "a", anatomy="hand"), record(3, "b")]
    counts = count_split(Dataset(tuple(records), ("fracture",)), dict.fromkeys(("0001.png", "0002.png"), "train"))
    assert counts["train"] == {
        "images": 2,
        "fractured": 1,
        "healthy": 1,
        "boxes": 1,
        "groups": 1,
        "classes": {"fracture": 1},
        "anatomies": {"hand": {"images": 2, "fractured": 1}},
        "types": {},
    }
    assert counts["test"]["images"] == 0


NAMES = ["a/IMG0001.png", "b/IMG0002.png", "c.png"]


@pytest.mark.parametrize("header", ["file_name,split", "image_id,other,split"])
def test_a_split_csv_names_files_by_path_name_or_stem(tmp_path, header):
    extra = "x," if "other" in header else ""
    rows = [f"a/IMG0001.png,{extra}test", f"IMG0002.png,{extra}val", f"c,{extra}none", f"gone.png,{extra}train"]
    (tmp_path / "split.csv").write_text("\n".join([header, *rows]))
    assignment, digests, problems = read_split(tmp_path / "split.csv", NAMES)
    assert assignment == {"a/IMG0001.png": "test", "b/IMG0002.png": "val", "c.png": "none"}
    assert digests == {}
    assert [(p.file, p.kind) for p in problems] == [("gone.png", "split_without_image")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,split\nc.png,tset\n", "c.png: split: expected one of train, val, test, none, got 'tset'"),
        ("file_name\nc.png\n", "no column 'split'"),
        ("id,split\nc.png,test\n", "expected one of the columns file_name"),
        ("file_name,split\nc.png,test\nc.png,train\n", "named for test and for train"),
    ],
)
def test_a_wrong_split_csv_is_refused_with_the_reason(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(MetadataError, match=message):
        read_split(tmp_path / "split.csv", NAMES)


@pytest.mark.parametrize("content", ["[]", "{", json.dumps({"format": "other 3"})])
def test_a_wrong_split_json_is_refused(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(MetadataError):
        read_split(tmp_path / "split.json", NAMES)


@pytest.mark.parametrize("name", ["other.png", "x/IMG0001.png"])
def test_a_split_that_names_none_of_the_images_is_refused(tmp_path, name):
    (tmp_path / "split.csv").write_text(f"file_name,split\n{name},test\n")
    with pytest.raises(
        MetadataError, match=r"split.csv: it names none of the \d images: it names .*; the images are a/"
    ):
        read_split(tmp_path / "split.csv", NAMES)
    (tmp_path / "split.csv").write_text("file_name,split\n")
    with pytest.raises(MetadataError, match="it names nothing"):
        read_split(tmp_path / "split.csv", NAMES)


def test_a_row_that_states_a_folder_means_no_image_of_another(tmp_path):
    rows = ["b/IMG0001.png,test", "b/IMG0002.png,val", "images/c.png,train"]
    (tmp_path / "split.csv").write_text("\n".join(["file_name,split", *rows]))
    assignment, _, problems = read_split(tmp_path / "split.csv", NAMES)
    assert assignment == {"b/IMG0002.png": "val", "c.png": "train"}
    assert [(p.file, p.kind) for p in problems] == [("b/IMG0001.png", "split_without_image")]


def test_names_in_a_split_compare_in_nfc(tmp_path):
    (tmp_path / "split.csv").write_text("file_name,split\nh\u00fcfte.png,test\n", encoding="utf-8")
    assert read_split(tmp_path / "split.csv", ["hu\u0308fte.png"])[0] == {"hu\u0308fte.png": "test"}
