"""What figures share."""

import pytest

from fracture_det.visualization import style
from fracture_det.visualization.style import FigureError
from fracture_det.visualization.training_curves import draw_ap_curve


# value, digits, as written
@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.4124, 3, ".412"),
        (0.0, 3, ".000"),
        (1.0, 3, "1.000"),
        (-0.03, 3, "-.030"),
        (-0.0004, 3, ".000"),  # no minus before a zero
        (10.5, 2, "10.50"),
        (0.996, 2, "1.00"),
    ],
)
def test_shares_are_written_without_their_zero(value, digits, expected):
    assert style.format_share(value, digits) == expected


# places, gap, top, moved: from the top down each is pushed below the one above, then from the bottom up
@pytest.mark.parametrize(
    ("places", "gap", "top", "expected"),
    [
        ([], 0.1, 1, []),
        ([0.5], 0.1, 1, [0.5]),
        ([0.2, 0.9], 0.1, 1, [0.2, 0.9]),
        ([0.5, 0.5, 0.5], 0.1, 1, [0.5, 0.4, 0.3]),
        ([0.5, 0.55, 0.9], 0.1, 1, [0.45, 0.55, 0.9]),
        ([1.0, 1.0], 0.1, 0.95, [0.95, 0.85]),
        ([0.0, 0.0], 0.1, 1, [0.1, 0.0]),
    ],
)
def test_labels_are_moved_apart(places, gap, top, expected):
    assert style.spread_apart(places, gap=gap, top=top) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["curve.pdf", "curve", "curve.svg.txt"])
def test_another_kind_of_file_is_refused_by_name(tmp_path, name):
    with pytest.raises(FigureError, match=r"expected a name in \.png or \.svg, got '"):
        draw_ap_curve([], 10, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_suffix_may_be_in_capitals(tmp_path):
    draw_ap_curve([], 10, tmp_path / "A.SVG")
    assert (tmp_path / "A.SVG").read_text(encoding="utf-8").startswith("<svg ")
