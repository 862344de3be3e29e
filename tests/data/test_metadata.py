"""Sites, patients and attributes from the table beside the images."""

from __future__ import annotations

import pytest

from fracture_det.data.metadata import MetadataError, read_metadata

NAMES = ["a/1.png", "a/2.png", "b/3.png", "b/4.png"]
FLAGS = ("hand", "leg", "mixed")


def table(tmp_path, text):
    (tmp_path / "table.csv").write_text(text, encoding="utf-8-sig")
    return tmp_path / "table.csv"


def found(metadata):
    return [(problem.file, problem.kind) for problem in metadata.problems]


def test_flags_become_one_anatomy_and_other_columns_attributes(tmp_path):
    path = table(
        tmp_path, "image_id,hand,leg,mixed,view\n1.png,1,0,0,front\n2.png,1,1,1,\n3.png,0,0,0,side\n4,1,1,0,\n"
    )
    metadata = read_metadata(path, NAMES, anatomy_columns=FLAGS)
    assert metadata.anatomies == {"a/1.png": "hand", "a/2.png": "mixed", "b/4.png": "hand+leg"}
    assert metadata.attributes["a/1.png"] == {"view": "front"}
    assert metadata.patients is None
    assert found(metadata) == [("b/3.png", "anatomy_unknown"), ("b/4.png", "several_anatomies")]


def test_one_text_column_is_the_anatomy_and_patients_are_groups(tmp_path):
    path = table(tmp_path, "file_name,anatomy,patient\na/1.png,wrist,p1\na/2.png,,p1\nb/3.png,hand,\nb/4.png,hand,p2\n")
    metadata = read_metadata(path, NAMES, anatomy_columns=["anatomy"], group_column="patient")
    assert metadata.anatomies == {"a/1.png": "wrist", "b/3.png": "hand", "b/4.png": "hand"}
    assert metadata.patients == {"a/1.png": "p1", "a/2.png": "p1", "b/4.png": "p2"}
    assert found(metadata) == [("a/2.png", "anatomy_unknown"), ("b/3.png", "group_unknown")]


def test_rows_that_fit_no_image_or_two_and_images_without_a_row_are_reported(tmp_path):
    path = table(tmp_path, "image_id,anatomy\n1.png,hand\n1.png,leg\n9.png,leg\nsame.png,leg\n")
    metadata = read_metadata(path, ["a/1.png", "a/same.png", "b/same.png"], anatomy_columns=["anatomy"])
    assert metadata.anatomies == {"a/1.png": "hand"}
    assert found(metadata) == [
        ("a/1.png", "metadata_twice"),
        ("9.png", "metadata_without_image"),
        ("same.png", "metadata_ambiguous"),
        ("a/same.png", "metadata_missing"),
        ("b/same.png", "metadata_missing"),
    ]


def test_a_flag_that_is_no_flag_is_reported(tmp_path):
    path = table(tmp_path, "image_id,hand,leg,mixed\n1.png,maybe,0,0\n")
    assert found(read_metadata(path, NAMES[:1], anatomy_columns=FLAGS)) == [("a/1.png", "anatomy_unknown")]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("id,anatomy\n", {}, "expected one of the columns file_name, image_id"),
        ("image_id,anatomy\n1.png,x\n", {"anatomy_columns": ["place"]}, "no column 'place'; it has image_id, anatomy"),
        ("image_id,anatomy\n1.png,x\n", {"group_column": "patient"}, "no column 'patient'"),
    ],
)
def test_a_table_without_the_named_columns_is_refused(tmp_path, text, options, message):
    with pytest.raises(MetadataError, match=message):
        read_metadata(table(tmp_path, text), NAMES, **options)
