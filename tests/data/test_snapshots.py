"""Snapshots of readers' feedback over random histories: the rule that each picture has one split for life."""

import tempfile
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fracture_det.data.coco import read_coco
from fracture_det.data.feedback import Review
from fracture_det.data.snapshot_files import SnapshotError, read_snapshots, verify_snapshot
from fracture_det.data.snapshot_groups import Group, grow, key
from fracture_det.data.snapshots import Candidate, Options, forget, write_snapshot
from fracture_det.data.splits import SPLITS, split_by_hash
from fracture_det.structures.readings import Reading, ReadRadiograph

EVEN = (1, 1, 1)
DAY = datetime(2026, 11, 30, tzinfo=timezone.utc)


def names(groups):
    return {group.name: group.split for group in groups}


def test_a_new_group_is_divided_by_its_hash_alone():
    pictures = [frozenset({key("picture", str(number))}) for number in range(2000)]
    together = names(grow([], pictures, fractions=(0.8, 0.1, 0.1))[0])
    alone = {}
    for picture in pictures[:50]:
        alone |= names(grow([], [picture], fractions=(0.8, 0.1, 0.1))[0])
    assert alone == {name: together[name] for name in alone}
    counts = [list(together.values()).count(split) for split in SPLITS]
    assert abs(counts[0] - 1600) < 60  # 3.4 standard deviations of 18
    assert abs(counts[1] - 200) < 45  # 3.4 of 13
    assert {split_by_hash(str(number), (0, 1, 0)) for number in range(100)} == {"val"}


@pytest.mark.parametrize("fractions", [(1, 1), (1, -1, 1), (0, 0, 0), (float("inf"), 0, 0), (float("nan"), 1, 1)])
def test_impossible_fractions_are_refused(fractions):
    with pytest.raises(ValueError, match="fractions: expected three numbers of at least 0"):
        split_by_hash("a", fractions)


# Splits of the groups that join -> the split of the whole, and which of the pictures before stay in it.
JOINING = [
    (("train", "train"), "train", False, ["train", "train"]),
    (("train", "val"), "val", True, ["none", "val"]),
    (("val", "test"), "test", True, ["none", "test"]),
    (("test", "train"), "test", True, ["test", "none"]),
    (("train", "val", "test"), "test", True, ["none", "none", "test"]),
    (("test", "test"), "test", False, ["test", "test"]),
]


@pytest.mark.parametrize(("before", "split", "joined", "stay"), JOINING)
def test_groups_that_join_have_the_last_of_their_splits_and_only_its_pictures(before, split, joined, stay):
    groups = [
        Group(f"study:{number}", home, False, frozenset({f"study:{number}", f"picture:{number}"}), {})
        for number, home in enumerate(before)
    ]
    groups = [group.place(f"picture:{number}")[0] for number, group in enumerate(groups)]
    link = frozenset({"picture:new", *(f"study:{number}" for number in range(len(before)))})
    [whole], sentences = grow(groups, [link], fractions=(1, 0, 0))
    assert (whole.split, whole.joined, bool(sentences)) == (split, joined, len(set(before)) > 1)
    assert [whole.place(f"picture:{number}")[1] for number in range(len(before))] == stay
    assert whole.place("picture:new")[1] == ("none" if joined else split)
    assert Group.from_json(whole.to_json()) == whole


def picture_file(folder, number):
    path = folder / f"picture {number}.png"
    if not path.exists():
        noise = np.random.default_rng(number).integers(0, 255, (40, 60)).astype(np.uint8)
        Image.fromarray(noise).save(path)
    return path


def candidate(folder, name, picture, study):
    review = Review(
        name=name,
        image=picture_file(folder, picture),
        size=(40, 60),
        read=ReadRadiograph([], [], 0, [Reading({}, ((3, 3, 9, 9),), False, "")]),
        about={"author": "x", "updated_at": "2026", "model": "m", "weights": "", "finding": "likely"},
    )
    return Candidate(review, frozenset() if study is None else frozenset({key("study", str(study))}))


# A step: results that come (picture, study or none), results that are deleted, whether --forget follows, fractions.
STEPS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, None, 0, 1, 2, 3])), max_size=4),
        st.sets(st.integers(0, 20), max_size=3),
        st.booleans(),
        st.sampled_from([EVEN, (1, 0, 0), (0, 1, 0), (0, 0, 1)]),
    ),
    min_size=2,
    max_size=6,
)


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_a_picture_is_never_in_two_splits_over_all_versions_nor_a_group_within_one(steps):
    """The rule: over all versions that there ever were, a picture (its bytes) is in at most one of train, val, test.

    So what was ever in test is never in train or val, what was in val never in train or test, and no test picture was
    trained on before. Within a version, pictures that studies connect are in one split, also where what connects them
    was in an earlier version only and is deleted by now.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "out"
        out.mkdir()
        store, picture_of, links, homes, written = {}, {}, [], defaultdict(set), set()
        for number, (coming, going, forgets, fractions) in enumerate(steps):
            for picture, study in coming:
                result = f"r{len(picture_of)}"
                store[result], picture_of[result] = candidate(folder, result, picture, study), picture
            for index in going:
                store.pop(f"r{index}", None)
            try:
                now = DAY + timedelta(days=number)
                outcome = write_snapshot(list(store.values()), out, Options(fractions), now=now)
            except SnapshotError as error:
                refusal = str(error)
            else:
                refusal = "nothing can be trained on"
                assert set(outcome.snapshot.pictures) == store.keys() - {result for result, _ in outcome.left_out}
                links += [{f"picture {picture_of[r]}", *c.keys} for r, c in store.items()]
                written |= outcome.snapshot.pictures.keys()
                check_version(outcome.snapshot, picture_of, links, homes)
            assert refusal.startswith("nothing can be trained on")
            if forgets:
                forget(out, written - store.keys(), date="2026-12-31")
            for version in read_snapshots(out):
                assert verify_snapshot(version.folder)[0] == []
        assert all(len(splits) == 1 for splits in homes.values()), homes


def check_version(version, picture_of, links, homes):
    """Note the split of each picture of a version, and check that nothing connected lies in two splits."""
    of_component, of_group = defaultdict(set), defaultdict(set)
    component_of = components(links)
    for split in SPLITS:
        for record in read_coco(version.folder / f"{split}.json"):
            picture = picture_of[record.file_name.removesuffix(".png")]
            homes[picture].add(split)
            of_component[component_of[f"picture {picture}"]].add(split)
            of_group[record.group_id].add(split)
    assert all(len(splits) == 1 for splits in [*of_component.values(), *of_group.values()])


def components(links):
    """Return {name: number of its component} of names that are linked when they are in one set."""
    parts = []
    for link in links:
        touched = [part for part in parts if part & link]
        parts = [part for part in parts if not part & link] + [set(link).union(*touched)]
    return {name: number for number, part in enumerate(parts) for name in part}
