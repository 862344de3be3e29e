"""Reliability, strata, error types and robustness: what is drawn where."""

import numpy as np
import pytest

from fracture_det.visualization.charts import draw_errors, draw_forest, draw_reliability, draw_robustness
from fracture_det.visualization.style import COLOURS, INK
from tests.visualization.drawing import BINS, ERRORS, KINDS, ROWS, drawn, figure_of

NONE = (None, None, None)


def lines(panel, **asked):
    """Return the lines of a panel whose properties are as asked."""
    return [line for line in panel.lines if all(getattr(line, f"get_{key}")() == asked[key] for key in asked)]


def title(figure):
    return figure.get_suptitle().replace("\n", " ")


class TestReliability:
    def test_bars_dots_and_numbers_lie_at_their_bins(self):
        bins = [(0.0, 0.5, 8, 0.2, 0.25, 0.1, 0.4), (0.5, 0.75, 0, *NONE, None), (0.75, 1.0, 4, 0.8, 0.5, None, None)]
        rates, counts = figure_of(draw_reliability, {"Images": bins}).axes
        # The empty bin has no bar, no dot and no number.
        assert [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in rates.patches] == [
            (0.0, 0.5, 0.25),
            (0.75, 0.25, 0.5),
        ]
        (dots,) = lines(rates, marker="o")
        assert dots.get_xydata().tolist() == [[0.2, 0.25], [0.8, 0.5]]
        (intervals,) = lines(rates, marker="_")
        np.testing.assert_array_equal(intervals.get_xydata(), [[0.2, 0.1], [0.2, 0.4], [np.nan, np.nan]])
        assert [bar.get_height() for bar in counts.patches] == [8, 0, 4]
        assert [text.get_text() for text in counts.texts] == ["8", "4"]
        assert rates.get_title(loc="left") == "Images"

    def test_without_a_mean_score_the_dot_is_in_the_middle(self):
        rates = figure_of(draw_reliability, {"Images": [(0.5, 1.0, 8, None, 0.25, None, None)]}).axes[0]
        assert lines(rates, marker="o")[0].get_xydata().tolist() == [[0.75, 0.25]]

    def test_the_diagonal_says_what_it_is(self):
        assert drawn("reliability").texts.count("dashed: perfect calibration") == 2
        rates = figure_of(draw_reliability, {"Images": BINS}).axes[0]
        assert rates.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]

    def test_each_panel_has_a_histogram_of_its_own_below(self):
        figure = figure_of(draw_reliability, dict.fromkeys(("a", "b", "c"), BINS))
        places = [panel.get_position() for panel in figure.axes]
        assert len(places) == 6
        for above, below in zip(places[::2], places[1::2], strict=True):
            assert (above.x0, above.x1) == (below.x0, below.x1)
            assert above.y0 > below.y1

    # more than 9,999 are written in thousands, and a bin too narrow for a number has none
    @pytest.mark.parametrize(
        ("low", "high", "n", "text"), [(0, 0.1, 9999, ["9999"]), (0, 0.1, 12_345, ["12k"]), (0, 0.05, 3, [])]
    )
    def test_numbers_fit_their_bars(self, low, high, n, text):
        counts = figure_of(draw_reliability, {"Boxes": [(low, high, n, 0.01, 0.01, None, None)]}).axes[1]
        assert [each.get_text() for each in counts.texts] == text


class TestForest:
    def figure(self, rows=ROWS):
        return figure_of(draw_forest, rows, title="AP50", xlabel="AP50")

    def test_each_row_has_its_symbol_interval_and_numbers(self):
        panel = self.figure().axes[0]
        symbols = lines(panel, marker="s")
        assert [symbol.get_xydata().tolist() for symbol in symbols] == [[[0.642, 0]], [[0.701, 2]], [[0.38, 3]]]
        bars = [line.get_xydata().tolist() for line in panel.lines if line.get_marker() == "None"][:3]
        assert bars == [[[0.571, 0], [0.708, 0]], [[0.61, 2], [0.78, 2]], [[0.12, 3], [0.66, 3]]]
        words = drawn("forest").texts
        assert {".642 (.571 to .708)", "n = 330", ".380 (.120 to .660)", "n = 22"} <= set(words)
        assert [text for text in words if text == "not defined"] == ["not defined"]  # "mixed"

    def test_a_small_sample_is_hollow_and_the_axis_says_so(self):
        panel = self.figure().axes[0]
        faces = [symbol.get_markerfacecolor() for symbol in lines(panel, marker="s")]
        assert faces == [COLOURS[0], COLOURS[0], "white"]
        assert "hollow: small sample" in panel.get_xlabel()
        assert "hollow" not in self.figure(ROWS[:3]).axes[0].get_xlabel()

    def test_a_header_is_bold_and_has_no_numbers(self):
        weights = {label.get_text(): label.get_fontweight() for label in self.figure().axes[0].get_yticklabels()}
        assert [name for name, weight in weights.items() if weight == "bold"] == ["Body part"]

    def test_all_images_are_a_line_through_the_others(self):
        def dashed(rows):
            return [list(line.get_xdata()) for line in self.figure(rows).axes[0].lines if line.get_linestyle() == "--"]

        assert dashed(ROWS) == [[0.642, 0.642]]
        assert dashed(ROWS[2:]) == []
        assert dashed([("All", *NONE, 0, True)]) == []

    def test_rows_are_read_from_the_top(self):
        places = {text: box[1] for text, box in drawn("forest").words}
        assert places["all images"] < places["Body part"] < places["hand"] < places["hip"] < places["mixed"]
        numbers = [places[text] for text in ("n = 330", "n = 140", "n = 22", "n = 3")]
        assert numbers == sorted(numbers)

    def test_differences_have_their_zero_in_the_middle(self):
        panel = self.figure([("AP50", -0.04, -0.08, 0.01, 330, False), ("AUROC", 0.02, -0.01, 0.05, 330, False)]).axes[
            0
        ]
        low, high = panel.get_xlim()
        assert (low, high) == (-high, pytest.approx(0.08 * 1.05))
        assert [0, 0] in [list(line.get_xdata()) for line in lines(panel, color=INK)]

    def test_a_long_name_ends_in_dots(self):
        assert [text for text in drawn("forest of long names").texts if text.endswith("…")] == [
            "a name that someone wrote into a …"
        ]
        assert "a b" in drawn("forest of long names").texts


class TestErrors:
    def test_bars_are_what_mending_would_add(self):
        panel = figure_of(draw_errors, ERRORS, base_ap50=0.642).axes[0]
        assert [bar.get_width() for bar in panel.patches] == [delta for _, delta in ERRORS.values()]
        assert {"+.213 (41 fractures)", "+.011 (1 box)", "+.000 (0 boxes)"} <= set(drawn("errors").texts)

    def test_types_are_named_in_words(self):
        assert {"Missed fracture", "Duplicate detection"} <= set(drawn("errors").texts)
        assert "missed" not in drawn("errors").texts

    def test_the_two_that_hold_others_look_different_and_are_not_named_the_worst(self):
        panel = figure_of(draw_errors, ERRORS, base_ap50=0.642).axes[0]
        assert [bool(bar.get_hatch()) for bar in panel.patches] == [False] * 6 + [True] * 2
        # .264 of "false negative" is more than the .213 of "missed".
        assert title(panel.figure) == "AP50 .642; costliest error type: missed fracture (.213)"

    @pytest.mark.parametrize(
        ("types", "base", "expected"),
        [
            ({}, None, "Error types; AP50 is not defined: no annotated fracture"),
            ({"missed": (3, None)}, None, "Error types; AP50 is not defined: no annotated fracture"),
            ({"missed": (0, 0.0)}, 1.0, "AP50 1.000; correcting no single error type raises it"),
            ({"missed": (1, -0.1)}, 0.5, "AP50 .500; correcting no single error type raises it"),
            ({"false negative": (1, 0.1)}, 0.5, "Error types; AP50 .500"),
            ({"other": (1, 0.1)}, 0.5, "AP50 .500; costliest error type: other (.100)"),
        ],
    )
    def test_the_title_says_what_is_seen(self, types, base, expected):
        assert title(figure_of(draw_errors, types, base_ap50=base)) == expected

    def test_without_truth_bars_are_counts(self):
        panel = figure_of(draw_errors, {"missed": (3, None), "background": (5, None)}, base_ap50=None).axes[0]
        assert [bar.get_width() for bar in panel.patches] == [3, 5]
        assert panel.get_xlabel() == "Number of errors"


class TestRobustness:
    def test_a_panel_per_perturbation_and_a_line_per_figure(self):
        figure = figure_of(
            draw_robustness,
            {name: {kind: [(0, 0.6, *NONE[:2]), (5, 0.5, *NONE[:2])] for kind in KINDS} for name in ("AP50", "AUROC")},
        )
        assert [panel.get_title(loc="left") for panel in figure.axes] == list(KINDS)
        for panel in figure.axes:
            assert [line.get_label() for line in panel.lines if not line.get_label().startswith("_")] == [
                "AP50",
                "AUROC",
            ]

    def test_places_of_the_grid_without_a_perturbation_stay_empty(self):
        figure = figure_of(draw_robustness, {"AP50": {kind: [(5, 0.5, None, None)] for kind in KINDS[:5]}})
        assert [panel.get_visible() for panel in figure.axes] == [True] * 5 + [False] * 3

    def test_lines_differ_in_more_than_colour(self):
        panel = figure_of(
            draw_robustness, {name: {"blur": [(0, 0.6, *NONE[:2]), (5, 0.5, *NONE[:2])]} for name in ("a", "b")}
        ).axes[0]
        first, second = (line for line in panel.lines if not line.get_label().startswith("_"))
        assert first.get_marker() != second.get_marker()
        assert first.get_linestyle() != second.get_linestyle()

    def test_a_value_that_is_not_defined_is_a_gap(self):
        panels = {"AP50": {"blur": [(0, 0.6, *NONE[:2]), (1, *NONE), (2, 0.4, 0.3, 0.5)]}}
        (panel,) = figure_of(draw_robustness, panels).axes
        (line,) = lines(panel, label="AP50")
        np.testing.assert_array_equal(line.get_xydata(), [[0, 0.6], [1, np.nan], [2, 0.4]])
        (interval,) = lines(panel, marker="_")
        np.testing.assert_array_equal(interval.get_xydata(), [[2, 0.3], [2, 0.5], [np.nan, np.nan]])

    @pytest.mark.parametrize("where", ["in each", "once"])
    def test_untouched_data_may_stand_in_each_perturbation_or_once(self, where):
        untouched, steps = (0, 0.6, 0.5, 0.7), [(1, 0.5, 0.4, 0.6), (2, 0.3, 0.2, 0.4)]
        each = {"blur": steps, "noise": steps}
        panels = (
            {"none": [untouched], **each} if where == "once" else {kind: [untouched, *s] for kind, s in each.items()}
        )
        figure = figure_of(draw_robustness, {"AP50": panels})
        assert [panel.get_title(loc="left") for panel in figure.axes] == ["blur", "noise"]
        for panel in figure.axes:
            assert lines(panel, label="AP50")[0].get_xydata().tolist() == [[0, 0.6], [1, 0.5], [2, 0.3]]

    # lowest of the first figure that has values; ties go to the first name
    @pytest.mark.parametrize(
        ("panels", "expected"),
        [
            (
                {
                    "AP50": {
                        "none": [(0, 0.6, None, None)],
                        "blur": [(1, 0.5, None, None)],
                        "noise": [(1, 0.2, None, None)],
                    }
                },
                "AP50 falls most under noise: from .600 to .200",
            ),
            (
                {"AP50": {"blur": [(0, 0.6, None, None), (1, 0.6, None, None)]}},
                "AP50 falls under no perturbation: .600 untouched",
            ),
            (
                {"AP50": {"blur": [(1, *NONE)]}, "AUROC": {"blur": [(0, 0.8, None, None), (1, 0.7, None, None)]}},
                "AUROC falls most under blur: from .800 to .700",
            ),
            ({"AP50": {"blur": [(1, 0.5, None, None)]}}, "Performance under image perturbations"),
        ],
    )
    def test_the_title_says_what_hurts_most(self, panels, expected):
        assert title(figure_of(draw_robustness, panels)) == expected
