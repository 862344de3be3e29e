"""What holds for every figure of an evaluation, with plausible and with poor inputs."""

import re
from io import BytesIO
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tests.visualization.drawing import EVERY, PLAUSIBLE, as_bytes, draw, drawn

# Names of XML itself, which nothing fetches.
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


@pytest.mark.parametrize("name", EVERY)
class TestSvg:
    def test_it_can_stand_in_a_page_that_opens_offline(self, name):
        svg = drawn(name).svg
        assert svg.startswith("<svg ")  # neither an XML declaration nor a document type: it is put into HTML as it is
        assert set(re.findall(r"\w+://[^\"\s]+", svg)) <= NAMESPACES
        assert not re.search(r"<(style|script|image|metadata|foreignObject)|@import|[Mm]atplotlib", svg)

    def test_what_it_points_to_is_in_it(self, name):
        ids = re.findall(r' id="([^"]+)"', drawn(name).svg)
        assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', drawn(name).svg)) == set(ids)
        assert len(ids) == len(set(ids))

    def test_text_is_text_and_no_number_is_missing(self, name):
        assert drawn(name).texts
        nothing = re.compile(r"\b(nan|inf|none yet|None)\b")
        assert not [text for text in drawn(name).texts if nothing.search(text)]
        shapes = [element.get("d", "") + element.get("x", "") for element in drawn(name).root.iter()]
        assert not [shape for shape in shapes if nothing.search(shape)]

    def test_a_screen_reader_is_told_what_is_seen(self, name):
        attributes = drawn(name).root.attrib
        assert attributes["role"] == "img"
        assert _topmost(name) in attributes["aria-label"]


def _topmost(name):
    return min(drawn(name).words, key=lambda word: word[1][1])[0]


@pytest.mark.parametrize("name", EVERY)
class TestLayout:
    def test_nothing_that_is_written_leaves_the_page(self, name):
        width, height = drawn(name).size_pt
        outside = [
            text
            for text, (left, top, right, bottom) in drawn(name).words
            if min(left, top, width - right, height - bottom) < -0.5
        ]
        assert not outside

    def test_no_words_cover_other_words(self, name):
        pairs = combinations(drawn(name).words, 2)
        assert not [(one, other) for (one, a), (other, b) in pairs if _overlap_pt(a, b) > 0.5]

    def test_letters_are_large_enough_on_paper(self, name):
        sizes = {float(size) for size in re.findall(r"font-size: ([\d.]+)px", drawn(name).svg)}
        assert min(sizes) >= 6.5
        assert drawn(name).size_pt[0] <= 7.1 * 72  # A4 takes it as it is


def _overlap_pt(one, other):
    return min(min(one[side + 2], other[side + 2]) - max(one[side], other[side]) for side in (0, 1))


@pytest.mark.parametrize("name", [*PLAUSIBLE, "overview of nothing"])
def test_a_png_is_as_large_as_the_page_wants_and_not_blank(name):
    with Image.open(BytesIO(as_bytes(name, ".png"))) as image:
        assert image.format == "PNG"
        assert image.size == pytest.approx([side * 200 / 72 for side in drawn(name).size_pt], abs=1)
        assert image.size[0] >= 3.5 * 200
        assert np.asarray(image.convert("L")).min() < 100
        assert "Software" not in image.info


@pytest.mark.parametrize(("name", "suffix"), [("overview", ".png"), *((name, ".svg") for name in PLAUSIBLE)])
def test_the_same_numbers_give_the_same_bytes_whatever_the_settings_of_the_user(name, suffix, tmp_path):
    first, before = as_bytes(name, suffix), dict(matplotlib.rcParams)
    with matplotlib.rc_context(
        {"font.size": 20, "axes.grid": False, "xtick.major.size": 9, "savefig.dpi": 30, "svg.hashsalt": None}
    ):
        assert draw(name, tmp_path / f"second{suffix}").read_bytes() == first
    assert dict(matplotlib.rcParams) == before


def test_figures_in_one_page_share_no_id():
    ids = [set(re.findall(r' id="([^"]+)"', drawn(name).svg)) for name in PLAUSIBLE]
    assert all(ids)
    assert not any(one & other for one, other in combinations(ids, 2))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("overview of nothing", "not defined: no annotated fracture"),
        ("overview without healthy images", "healthy images"),
        ("froc of no rule", "not defined: no annotated fracture"),
        ("froc without truth", "not defined: no annotated fracture"),
        ("roc of one class", "healthy images"),
        ("pr without truth", "not defined: no annotated fracture"),
        ("reliability of nothing", "not defined: no score"),
        ("reliability of empty bins", "not defined: no score"),
        ("forest of nothing", "no row to draw"),
        ("errors of nothing", "no error type was counted"),
        ("errors without truth", "Error types; AP50 is not defined: no annotated fracture"),
        ("box sizes of nothing", "no box"),
        ("anchor fit of nothing", "no box"),
        ("image size of nothing", "no image"),
        ("robustness of nothing", "no perturbation was measured"),
        ("types of nothing", "no image of known type"),
        ("types by coverage of nothing", "not defined: no image has an answer"),
        ("robustness not defined", "not defined"),
    ],
)
def test_a_figure_without_data_says_why(name, reason):
    assert reason in drawn(name).texts
