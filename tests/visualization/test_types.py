"""The figures of types of fracture. FRACTURE_SHOTS=docs keeps the confusion table as the picture of docs/types.md."""

import os
import re
from pathlib import Path

import pytest

from fracture_det.visualization.types import draw_confusion
from tests.visualization.drawing import draw, drawn

ROOT = Path(__file__).parents[2]
NAMES = ("transverse", "oblique", "spiral", "comminuted", "impacted", "hairline")
COUNTS = [
    [44, 9, 3, 2, 1, 2, 6],
    [8, 21, 5, 1, 0, 2, 4],
    [2, 6, 17, 1, 0, 0, 2],
    [1, 3, 1, 26, 2, 0, 1],
    [2, 1, 0, 3, 8, 1, 2],
    [4, 2, 0, 0, 1, 6, 11],
]


def colours(name):
    """Return the colour of each number in the cells."""
    style = {element.text: element.attrib["style"] for element in drawn(name).root.iter() if element.text}
    return {text: re.search(r"fill: (#\w+)", found)[1] for text, found in style.items() if re.fullmatch(r"\d+", text)}


def test_numbers_are_white_on_dark_cells_alone():
    found = colours("types")
    assert found["41"] == found["31"] == "#ffffff"  # 41 of 57 and 31 of 37
    assert found["9"] == found["7"] == "#333333"


def test_rows_say_how_many_images_and_the_title_how_many_are_right():
    assert {"transverse (57)", "pathological (1)", "no answer"} <= set(drawn("types").texts)
    assert "Right on 92 of 126 images (framed); shade: share of the row" in drawn("types").texts  # 41 + 20 + 31


def test_confidences_at_one_place_are_labelled_once(tmp_path):
    points = [(0.9, (0.5, 1.0, 1.0, 1.0)), (0.7, (0.53, 1.0, 1.0, 1.0)), (0.5, (0.9, 0.8, 0.7, 0.9))]
    svg = draw("types by coverage", tmp_path / "a.svg", points=points).read_text()
    texts = re.findall(r">([^<]+)</text>", svg)
    assert [text for text in texts if text in (".9", ".7", ".5")] == [".9", ".5"]


@pytest.mark.skipif("FRACTURE_SHOTS" not in os.environ, reason="the picture is kept where FRACTURE_SHOTS says")
def test_the_picture_of_the_documents():
    draw_confusion(COUNTS, NAMES, (*NAMES, "no answer"), ROOT / os.environ["FRACTURE_SHOTS"] / "types_confusion.png")
