"""Patients, copies and neighbouring numbers form groups."""

from __future__ import annotations

import pytest

from fracture_det.data.grouping import group_files, neighbour_block, roboflow_source


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("101_jpg.rf.2a78fc4d28495ff1e00618778a209f7f.jpg", "101"),
        ("101.rf.3f14e38b35adf994668b5a62462e4e15.jpg", "101"),
        ("x/a.b-png.rf.3f14e38b35adf994668b5a62462e4e15.png", "a.b"),
        ("a.rf.jpg", None),
        ("IMG0001.jpg", None),
    ],
)
def test_roboflow_copies_are_known_by_their_name(name, source):
    assert roboflow_source(name) == source


def test_neighbouring_numbers_form_blocks_across_folders():
    assert neighbour_block("a/IMG0000019.jpg", 10) == neighbour_block("b/IMG0000010.jpg", 10) == "IMG#1"
    assert neighbour_block("IMG0000020.jpg", 10) == "IMG#2"
    assert neighbour_block("IMG0000020.jpg", 0) is None
    assert neighbour_block("limb.jpg", 10) is None


def test_groups_unite_blocks_copies_and_sources():
    names = ["IMG10.png", "IMG11.png", "IMG20.png", "x.png", "1.rf." + "a" * 32 + ".jpg", "1.rf." + "b" * 32 + ".jpg"]
    groups = group_files(names, copies=[("IMG11.png", "x.png"), ("x.png", "absent.png")], neighbours=10)
    assert groups["IMG10.png"] == groups["IMG11.png"] == groups["x.png"]
    assert groups[names[4]] == groups[names[5]]
    assert len(set(groups.values())) == 3
    assert len(set(group_files(names[:4]).values())) == 4


def test_patients_replace_blocks_but_copies_still_unite_them():
    names = ["IMG10.png", "IMG11.png", "IMG12.png", "IMG13.png"]
    patients = {"IMG10.png": "p1", "IMG11.png": "p2", "IMG12.png": "p2"}
    groups = group_files(names, patients=patients, neighbours=10)
    assert groups == {"IMG10.png": "p1", "IMG11.png": "p2", "IMG12.png": "p2", "IMG13.png": "IMG13.png"}
    united = group_files(names, patients=patients, copies=[("IMG10.png", "IMG12.png")])
    assert len({united[name] for name in names[:3]}) == 1
