"""Values of files, kept in a table that an interrupted run goes on with."""

import json

import numpy as np
import pytest
from PIL import Image

from fracture_det.monitoring.counts import WatchError
from fracture_det.monitoring.features import FEATURES, INPUTS
from fracture_det.monitoring.measure import measure_files, measure_pictures
from tests.builders import draw_radiograph
from tests.webapp.bright import BrightRectangles


@pytest.fixture
def files(tmp_path):
    named = []
    for index in range(3):
        picture = draw_radiograph(np.random.default_rng(index), fractured=True)[0]
        path = tmp_path / f"{index}.png"
        Image.fromarray(np.asarray(picture)).save(path)
        named.append((path.name, path))
    Image.new("L", (200, 200)).save(tmp_path / "blank.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return [*named, ("blank.png", tmp_path / "blank.png"), ("broken.png", tmp_path / "broken.png")]


def test_values_of_what_is_analysed_and_none_of_what_is_not(files, tmp_path):
    rows = measure_files(BrightRectangles(), files, tmp_path / "out" / "table.jsonl", possible_score=0.25)
    assert [row.file_name for row in rows] == [name for name, _ in files]
    assert [row.values is None for row in rows] == [False, False, False, True, True]
    assert set(rows[0].values) == set(FEATURES)


def test_what_is_altered_is_measured_altered(files, tmp_path):
    plain = measure_files(BrightRectangles(), files[:1], tmp_path / "a.jsonl", possible_score=0.25)[0].values
    darker = measure_files(
        BrightRectangles(), files[:1], tmp_path / "b.jsonl", possible_score=0.25, alter=lambda name, pixels: pixels // 2
    )[0].values
    assert darker["bright"] < 0.6 * plain["bright"]


def test_a_run_that_was_killed_goes_on(files, tmp_path):
    table, first = tmp_path / "table.jsonl", BrightRectangles()
    whole = measure_files(first, files, table, possible_score=0.25)
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:3]) + lines[3][:20])  # torn in the third
    again = BrightRectangles()
    assert measure_files(again, files, table, possible_score=0.25) == whole
    assert len(again.batches) < len(first.batches)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lines: [json.dumps({"detector": "x"}), *lines[1:]], "line 1: expected .*delete it to measure again"),
        (lambda lines: ["", *lines[1:]], "line 1: expected a table of values"),
        (lambda lines: [lines[0], "{}", *lines[2:]], "line 2: expected the values of a file"),
    ],
)
def test_another_table_is_refused(files, tmp_path, spoil, message):
    table = tmp_path / "table.jsonl"
    measure_files(BrightRectangles(), files, table, possible_score=0.25)
    table.write_text("\n".join(spoil(table.read_text().splitlines())) + "\n")
    with pytest.raises(WatchError, match=f"table.jsonl: {message}"):
        measure_files(BrightRectangles(), files, table, possible_score=0.25)


def test_pictures_need_no_detector(files, tmp_path):
    rows = measure_pictures(files[:4], tmp_path / "pictures.jsonl")
    assert set(rows[0].values) == set(INPUTS)
    assert rows[3].values is None
    assert measure_pictures(files[:4], tmp_path / "pictures.jsonl") == rows
