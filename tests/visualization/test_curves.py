"""FROC, ROC and precision over recall: what is drawn where."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from fracture_det.visualization.curves import MARK_SYMBOLS, Mark, draw_froc, draw_overview, draw_pr_curve, draw_roc
from fracture_det.visualization.style import TRAINING, VALIDATION
from tests.visualization.drawing import (
    ESTIMATES,
    FROC,
    FROC_MARKS,
    ROC,
    ROC_MARKS,
    RULE_CURVES,
    RULES,
    drawn,
    figure_of,
)


def lines(panel, **asked):
    """Return the lines of a panel whose properties are as asked."""
    return [line for line in panel.lines if all(getattr(line, f"get_{key}")() == asked[key] for key in asked)]


def marks(panel):
    """Return rule label -> (symbol, place, fill) of the marks in a panel."""
    filled = [line for line in panel.lines if not line.get_label().startswith("_") and line.get_linestyle() == "None"]
    return {
        line.get_label(): (line.get_marker(), tuple(line.get_xydata()[0]), line.get_markerfacecolor())
        for line in filled
    }


def froc_figure(curves=None, *, points=ESTIMATES, marks=FROC_MARKS):
    return figure_of(draw_froc, curves or {"IoU ≥ .5": FROC}, points=points, marks=marks)


class TestFroc:
    def test_a_log_axis_is_entered_with_what_is_found_up_to_there(self):
        # Points from 1/8 to 8: the axis goes from 1/16 to 16. At 1/16 the point at .01 counts; at 16 the last one does.
        curve = ([0, 0.01, 0.5, 0.5, 2], [0, 0.1, 0.25, 0.5, 0.75])
        panel = froc_figure({"IoU ≥ .5": curve}, marks={}).axes[0]
        (line,) = lines(panel, drawstyle="steps-post")
        assert line.get_xydata().tolist() == [[1 / 16, 0.1], [0.5, 0.25], [0.5, 0.5], [2, 0.75], [16, 0.75]]
        assert panel.get_xlim() == (1 / 16, 16)

    def test_before_its_first_point_a_curve_has_found_nothing(self):
        panel = froc_figure({"IoU ≥ .5": ([0.5, 20], [0.3, 0.9])}, marks={}).axes[0]
        (line,) = lines(panel, drawstyle="steps-post")
        assert line.get_xydata().tolist() == [[1 / 16, 0], [0.5, 0.3], [16, 0.3]]

    # where marks are, ends of the axis: a power of two around each, but never below 1/64
    @pytest.mark.parametrize(
        ("xs", "ends"),
        [
            ([], (1 / 16, 16)),
            ([0.05], (1 / 32, 16)),
            ([0.001], (1 / 64, 16)),
            ([0.0], (1 / 16, 16)),
            ([20, 33], (1 / 16, 64)),
        ],
    )
    def test_the_axis_is_wide_enough_for_every_mark(self, xs, ends):
        panel = froc_figure(marks={f"rule {x}": Mark(x, 0.5, f"rule {x}") for x in xs}).axes[0]
        assert panel.get_xlim() == ends

    def test_what_a_log_axis_cannot_hold_stands_at_its_edge_and_says_so(self):
        placed = {"paper": Mark(0.0, 0.3, "A"), "youden": Mark(0.001, 0.31, "B"), "detector": Mark(0.5, 0.6, "C")}
        panel = froc_figure(marks=placed).axes[0]
        places = {label: place for label, (_, place, _) in marks(panel).items()}
        assert (places["A"], places["C"]) == ((1 / 64, 0.3), (0.5, 0.6))
        assert [text.get_text() for text in panel.texts] == ["at 0 and 0.001"]

    def test_estimates_are_dots_with_their_intervals(self):
        points = [(0.5, 0.6, 0.5, 0.7), (1, 0.7, None, None), (2, 0.8, 0.6, 0.9)]
        panel = froc_figure(points=points, marks={}).axes[0]
        (dots,) = lines(panel, marker="o")
        assert dots.get_xydata().tolist() == [[0.5, 0.6], [1, 0.7], [2, 0.8]]
        (bars,) = lines(panel, marker="_")
        np.testing.assert_array_equal(bars.get_xdata(), [0.5, 0.5, np.nan, 2, 2, np.nan])
        np.testing.assert_array_equal(bars.get_ydata(), [0.5, 0.7, np.nan, 0.6, 0.9, np.nan])
        assert "95 %" in panel.get_xlabel()

    def test_without_intervals_none_is_promised(self):
        panel = froc_figure(points=[(1, 0.7, None, None)], marks={}).axes[0]
        assert panel.get_xlabel() == "False positives per image"

    def test_each_rule_has_its_name_beside_a_line_of_its_own_and_the_first_stands_out(self):
        panel = froc_figure(RULE_CURVES).axes[0]
        drawn_lines = lines(panel, drawstyle="steps-post")
        assert [line.get_color() for line in drawn_lines].count(TRAINING) == 1
        first = next(line for line in drawn_lines if line.get_color() == TRAINING)
        assert first.get_linewidth() == max(line.get_linewidth() for line in drawn_lines)
        dashes = re.findall(r"stroke-dasharray: ([^;]+);[^;]+; stroke: #767676", drawn("froc").svg)
        assert len(dashes) == len(set(dashes)) == 2
        assert set(RULE_CURVES) <= set(drawn("froc").texts)

    @pytest.mark.parametrize(
        ("points", "title"),
        [
            (ESTIMATES, "Sensitivity .700 at 1 false positive per image (FROC)"),
            ([(1, 0.9996, None, None)], "Sensitivity 1.000 at 1 false positive per image (FROC)"),
            (ESTIMATES[:2], "Free-response ROC (FROC) curve"),
            ([], "Free-response ROC (FROC) curve"),
        ],
    )
    def test_the_title_says_what_is_seen(self, points, title):
        panel = froc_figure(points=points, marks={}).axes[0]
        assert panel.get_title(loc="left").replace("\n", " ") == title

    def test_fractions_are_written_as_such(self):
        assert {"1/8", "1/4", "1/2", "1", "2", "4", "8", "16"} <= set(drawn("froc").texts)


class TestMarks:
    def test_a_rule_has_one_symbol_in_every_figure(self):
        overview = figure_of(
            draw_overview, FROC, ROC, froc_points=ESTIMATES, froc_marks=FROC_MARKS, roc_marks=ROC_MARKS, auroc=None
        )
        alone = froc_figure()
        few = {rule: Mark(0.1, 0.5, ROC_MARKS[rule].title) for rule in ("youden", "paper")}
        roc = figure_of(draw_roc, ROC, marks=few, auroc=None)
        curve = figure_of(draw_pr_curve, [0, 1], [1, 0], ap50=0.5, points=few)
        expected = {ROC_MARKS[rule].title: MARK_SYMBOLS[rule] for rule in RULES}
        for panel in (*overview.axes, *alone.axes, *roc.axes, *curve.axes):
            for label, (symbol, _, _) in marks(panel).items():
                assert symbol == expected[label]
        assert len(marks(overview.axes[0])) == len(marks(overview.axes[1])) == len(RULES) == 6

    def test_marks_lie_where_they_are_measured(self):
        panel = figure_of(draw_roc, ROC, marks=ROC_MARKS, auroc=None).axes[0]
        assert [place for _, place, _ in marks(panel).values()] == [(mark.x, mark.y) for mark in ROC_MARKS.values()]

    def test_the_first_is_the_main_one_and_filled(self):
        fills = [fill for _, _, fill in marks(froc_figure().axes[0]).values()]
        assert fills == [VALIDATION, *["white"] * 5]

    def test_symbols_are_unlike_each_other(self):
        assert len(set(MARK_SYMBOLS.values())) == len(MARK_SYMBOLS)

    def test_where_two_points_share_a_place_both_outlines_lie_above_both_fills(self):
        panel = figure_of(
            draw_roc, ROC, marks={"paper": Mark(0.1, 0.5, "A"), "detector": Mark(0.1, 0.5, "B")}, auroc=None
        ).axes[0]
        placed = [line for line in panel.lines if line.get_xydata().tolist() == [[0.1, 0.5]]]
        outlines = [line.get_zorder() for line in placed if line.get_markerfacecolor() == "none"]
        fills = [line.get_zorder() for line in placed if line.get_markerfacecolor() != "none"]
        assert len(outlines) == len(fills) == 2
        assert min(outlines) > max(fills)

    def test_an_unknown_rule_has_a_symbol_of_its_own(self):
        placed = {"youden": Mark(0.1, 0.5, "Youden"), "ours": Mark(0.2, 0.6, "Ours")}
        panel = figure_of(draw_roc, ROC, marks=placed, auroc=None).axes[0]
        (youden, youden_symbol), (ours, ours_symbol) = ((k, v[0]) for k, v in marks(panel).items())
        assert (youden, youden_symbol) == ("Youden", MARK_SYMBOLS["youden"])
        assert ours == "Ours"
        assert ours_symbol not in MARK_SYMBOLS.values()

    @pytest.mark.parametrize("name", ["overview", "froc", "roc", "pr"])
    def test_every_mark_is_in_the_legend_once(self, name):
        assert [drawn(name).texts.count(ROC_MARKS[rule].title) for rule in RULES] == [1] * 6


class TestOverview:
    def test_froc_is_left_and_roc_right(self):
        assert drawn("overview").root.attrib["aria-label"] == (
            "Sensitivity .700 at 1 false positive per image (FROC). Image-level ROC: AUROC .785 (.721 to .841)"
        )

    def test_axes_speak_in_words(self):
        words = " ".join(drawn("overview").texts)
        for axis in (
            "False positives per image",
            "Sensitivity (recall of fractures)",
            "(false-positive rate)",
            "Sensitivity (true-positive rate)",
        ):
            assert axis in words


class TestRoc:
    def test_the_curve_is_drawn_as_given_beside_the_line_of_chance(self):
        panel = figure_of(draw_roc, ROC, marks={}, auroc=None).axes[0]
        (curve,) = lines(panel, color=TRAINING)
        assert curve.get_xydata().tolist() == [list(point) for point in zip(*ROC, strict=True)]
        assert "chance" in drawn("roc").texts


class TestPrecisionRecall:
    def test_the_title_has_the_area_and_the_curve_its_points(self):
        figure = figure_of(draw_pr_curve, [0, 0.5, 1], [1, 0.6, 0.2], ap50=0.6, points={})
        assert figure.axes[0].get_title(loc="left").endswith("AP50 .600")
        (curve,) = lines(figure.axes[0], color=TRAINING)
        assert curve.get_xydata().tolist() == [[0, 1], [0.5, 0.6], [1, 0.2]]


def test_ten_thousand_points_become_a_small_file_that_looks_the_same(tmp_path):
    generator = np.random.default_rng(0)
    false, true = (np.append(0, np.cumsum(generator.random(10_000) < share)) for share in (0.5, 0.4))
    curve = (false / false[-1], true / true[-1])
    draw_roc(curve, tmp_path / "roc.svg", marks={}, auroc=None)
    svg = (tmp_path / "roc.svg").read_text(encoding="utf-8")
    assert len(svg) < 30_000
    paths = [element.attrib["d"] for element in ElementTree.fromstring(svg).iter() if "d" in element.attrib]
    longest = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", max(paths, key=len)), dtype=float)
    assert len(longest) < 1000
    # Along a rising staircase the lines x + y = c cross both curves once; there they are compared, in points.
    (left, bottom), (right, top) = longest[0], longest[-1]
    given = np.stack([left + curve[0] * (right - left), bottom - curve[1] * (bottom - top)], axis=1)
    at = np.linspace(left - bottom, right - top, 2000)
    apart = [np.interp(at, line[:, 0] - line[:, 1], line[:, 0] + line[:, 1]) for line in (given, longest)]
    assert np.abs(apart[0] - apart[1]).max() / 2 < 0.25  # of a point; the line is 1.8 wide
