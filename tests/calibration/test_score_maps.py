"""Score maps and their file: arithmetic beside each case, scikit-learn as judge, and what cannot be fitted."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.fitting import fit_map
from fracture_det.calibration.score_maps import DEFAULT_METHOD, METHODS, CalibrationError, ScoreMap
from fracture_det.structures.detections import Detections

PLATT = ScoreMap("platt", slope=0.6, offset=-0.7)
ISOTONIC = ScoreMap("isotonic", knots=((0.2, 0.1), (0.6, 0.5)))


def calibration(box_map=PLATT, image_map=PLATT, **more):
    return Calibration(box_map.method, box_map, image_map, **{"fitted_on": {"detector": "toy"}, **more})


def logit(p):
    return np.log(p / (1 - p))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def cross_entropy(probability, targets):
    return -(targets * np.log(probability) + (1 - targets) * np.log(1 - probability)).sum()


def study(seed, n, *, slope=1.0, offset=0.0):
    """Return scores and truth where P(true | score) is sigmoid(slope * logit(score) + offset)."""
    random = np.random.default_rng(seed)
    logits = random.normal(-0.5, 1.7, n)
    return sigmoid(logits), random.random(n) < sigmoid(slope * logits + offset)


def platts_targets(truth):
    n_true = truth.sum()
    return np.where(truth, (n_true + 1) / (n_true + 2), 1 / (len(truth) - n_true + 2))


# name, map, score, probability
MAP_CASES = [
    ("1 slope 1 and offset 0 change nothing", ScoreMap("platt"), 0.2, 0.2),
    ("2 slope 2 squares the odds: 4 to 1 becomes 16 to 1", ScoreMap("temperature", slope=2), 0.8, 16 / 17),
    ("3 slope 1/2 takes their root: 9 to 1 becomes 3 to 1", ScoreMap("temperature", slope=0.5), 0.9, 3 / 4),
    ("4 no temperature moves .5", ScoreMap("temperature", slope=7), 0.5, 0.5),
    ("5 offset ln 2 doubles the odds: 1 to 1 becomes 2 to 1", ScoreMap("platt", offset=math.log(2)), 0.5, 2 / 3),
    ("6 a score of 1 counts as .999999: odds 999999 to 1, rooted", ScoreMap("platt", slope=0.5), 1.0, 0.999001),
    ("7 on a knot", ISOTONIC, 0.2, 0.1),
    ("8 halfway between two knots", ISOTONIC, 0.4, 0.3),
    ("9 below the first knot", ISOTONIC, 0.01, 0.1),
    ("10 above the last knot", ISOTONIC, 0.9, 0.5),
    ("11 exactly 0 has a value of its own", ScoreMap("platt", zero=0.03), 0.0, 0.03),
    ("12 and no score gets less", ScoreMap("platt", zero=0.03), 0.01, 0.03),
    ("13 but a higher one gets its own", ScoreMap("platt", zero=0.03), 0.2, 0.2),
    ("14 without that value 0 counts as .000001", ScoreMap("platt"), 0.0, 1e-6),
    ("15 a value below the first knot", replace(ISOTONIC, zero=0.05), 0.0, 0.05),
    ("16 the identity", ScoreMap("identity"), 0.3, 0.3),
]


@pytest.mark.parametrize("case", MAP_CASES, ids=[case[0] for case in MAP_CASES])
def test_a_map_gives(case):
    _, score_map, score, probability = case
    assert float(score_map(score)) == pytest.approx(probability, abs=1e-6)
    assert score_map([[score]]).shape == (1, 1)


@pytest.mark.parametrize("score_map", [PLATT, ISOTONIC, ScoreMap("temperature", slope=40), replace(PLATT, zero=0.2)])
def test_a_map_never_falls_and_stays_within_0_and_1(score_map):
    mapped = score_map(np.linspace(0, 1, 200_001, dtype=np.float32))
    assert (np.diff(mapped) >= -1e-15).all()
    assert mapped.min() >= 0
    assert mapped.max() <= 1


class TestFit:
    def test_platt_meets_the_mean_target_of_two_scores(self):
        # 4 of score .2, one true; 4 of score .8, three true. N+ = N- = 4: targets 5/6 and 1/6.
        # Two parameters meet two means: (5/6 + 3 * 1/6) / 4 = 1/3 at .2 and (3 * 5/6 + 1/6) / 4 = 2/3 at .8.
        fitted = fit_map("platt", [0.2] * 4 + [0.8] * 4, [1, 0, 0, 0, 1, 1, 1, 0])
        assert fitted([0.2, 0.8]) == pytest.approx([1 / 3, 2 / 3])
        # logit(.8) = ln 4 is to become ln 2: the slope is 1/2, the offset 0 by symmetry
        assert (fitted.slope, fitted.offset) == pytest.approx((1 / 2, 0))

    def test_perfectly_parted_scores_stay_short_of_certainty(self):
        # N+ = N- = 1: targets 2/3 and 1/3
        assert fit_map("platt", [0.1, 0.6], [False, True])([0.1, 0.6]) == pytest.approx([1 / 3, 2 / 3])
        assert 0.5 < fit_map("temperature", [0.1, 0.6], [False, True])(0.6) < 1

    def test_the_optimum_is_met_where_a_whole_newton_step_overshoots(self):
        scores, truth = np.repeat([0.01, 0.96, 0.977], [76, 641, 7]), np.repeat([False, False, True], [76, 641, 7])
        left = fit_map("platt", scores, truth)(scores) - platts_targets(truth)
        # At the optimum what is left is in balance: its sum, and its sum weighed by the logit.
        assert left.sum() == pytest.approx(0, abs=1e-6)
        assert left @ logit(scores) == pytest.approx(0, abs=1e-5)

    def test_temperature_of_scores_of_one_logit(self):
        # .2 and .8 are ln 4 on either side of .5; targets as above: the odds at .8 become 2 to 1, T = ln 4 / ln 2 = 2
        fitted = fit_map("temperature", [0.2] * 4 + [0.8] * 4, [1, 0, 0, 0, 1, 1, 1, 0])
        assert fitted.slope == pytest.approx(1 / 2)
        assert fitted.offset == 0

    def test_isotonic_pools_what_falls(self):
        # shares 0/1, 1/1, 0/1, 1/2, 1/1 by score: .3 and .4 pool to 1/2, and .6 with 1/2 joins them: 2 of 4
        scores, truth = [0.1, 0.3, 0.4, 0.6, 0.6, 0.9], [0, 1, 0, 1, 0, 1]
        expected = ((0.1, 0.0), ((0.3 + 0.4 + 0.6 + 0.6) / 4, 0.5), (0.9, 1.0))
        assert np.array(fit_map("isotonic", scores, truth).knots) == pytest.approx(np.array(expected))

    def test_zeros_are_fitted_apart(self):
        # 8 images without a box, one of them fractured: (1 + 1) / (8 + 2)
        scores, truth = study(1, 400, offset=1.0)
        fitted = fit_map("platt", np.append(scores, [0.0] * 8), np.append(truth, [True] + [False] * 7))
        assert fitted.zero == pytest.approx(min(0.2, fit_map("platt", scores, truth)(scores.min())))
        assert replace(fitted, zero=None) == fit_map("platt", scores, truth)

    def test_no_box_is_worth_no_more_than_the_lowest_box(self):
        # both images without a box are fractured: (2 + 1) / (2 + 2) = 3/4, more than the 1/3 of score .2
        fitted = fit_map("platt", [0.0] * 2 + [0.2] * 4 + [0.8] * 4, [1, 1, 1, 0, 0, 0, 1, 1, 1, 0])
        assert fitted.zero == pytest.approx(1 / 3)

    @pytest.mark.parametrize("method", METHODS)
    def test_scores_of_exactly_one_are_finite(self, method):
        fitted = fit_map(method, [1, 1, 1, 0.3, 0.1, 0], [1, 1, 0, 1, 0, 0])
        mapped = fitted([0, 0.1, 0.3, 1])
        assert np.isfinite(mapped).all()
        assert (np.diff(mapped) >= 0).all()

    # name, method, scores, truth, message
    IMPOSSIBLE = (
        ("1 no score", "platt", [], [], "there is no score above 0"),
        ("2 only images without a box", "platt", [0, 0], [0, 1], "there is no score above 0"),
        ("3 all true", "platt", [0.1, 0.2], [1, 1], "of 2 scores above 0 every one came true"),
        ("4 none true", "isotonic", [0.1, 0.2], [0, 0], "of 2 scores above 0 none came true"),
        ("5 all equal", "isotonic", [0.3] * 3, [0, 1, 1], "all 3 scores above 0 are 0.3"),
        ("5a all as good as 1", "platt", [0.9999999, 1.0], [0, 1], "all 2 scores above 0 are 1"),
        ("6 the wrong way round", "platt", [0.1, 0.9], [1, 0], "the scores do not rise with the truth"),
        ("7 the same, isotonic", "isotonic", [0.1, 0.9], [1, 0], "the scores do not rise with the truth"),
        ("8 all above .5, most false", "temperature", [0.8, 0.85, 0.9], [0, 0, 1], "no temperature fits"),
        ("9 outside", "platt", [0.1, 1.5], [0, 1], "scores: expected 0..1, got .*1.5"),
        ("10 no number", "platt", [0.1, math.nan], [0, 1], "scores: expected 0..1, got .*nan"),
        ("11 unknown", "beta", [0.1, 0.9], [0, 1], "method: expected one of platt, temperature, isotonic, got 'beta'"),
        ("12 lengths", "platt", [0.1, 0.9], [1], r"scores: expected one for each of \(1,\) truths, got \(2,\)"),
    )

    @pytest.mark.parametrize("case", IMPOSSIBLE, ids=[case[0] for case in IMPOSSIBLE])
    def test_what_cannot_be_fitted_is_said(self, case):
        _, method, scores, truth, message = case
        with pytest.raises(CalibrationError, match=message):
            fit_map(method, scores, truth)

    def test_the_default_is_one_of_the_methods(self):
        assert DEFAULT_METHOD == "platt"


class TestJudges:
    @pytest.mark.parametrize("seed", range(4))
    def test_platt_is_logistic_regression_without_penalty(self, seed):
        scores, truth = study(seed, 300, slope=0.7, offset=-1)
        # A target between 0 and 1 is, for the judge, a score that came true with that weight and false with the rest.
        targets, logits = platts_targets(truth), logit(scores)[:, None]
        judge = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000)
        judge.fit(
            np.concatenate([logits, logits]), np.repeat([1, 0], 300), sample_weight=np.append(targets, 1 - targets)
        )
        fitted = fit_map("platt", scores, truth)
        assert fitted.slope == pytest.approx(judge.coef_[0, 0], abs=1e-6)
        assert fitted.offset == pytest.approx(judge.intercept_[0], abs=1e-6)

    @pytest.mark.parametrize("seed", range(4))
    def test_temperature_is_what_a_grid_search_finds(self, seed):
        scores, truth = study(seed, 300, slope=0.4 + 0.4 * seed)
        targets, grid = platts_targets(truth), np.arange(0.005, 4, 0.005)
        losses = [cross_entropy(sigmoid(slope * logit(scores)), targets) for slope in grid]
        fitted = fit_map("temperature", scores, truth)
        assert fitted.slope == pytest.approx(grid[np.argmin(losses)], abs=0.005)
        assert cross_entropy(fitted(scores), targets) <= min(losses) + 1e-9

    @pytest.mark.parametrize("seed", range(4))
    def test_isotonic_has_the_blocks_of_scikit_learn(self, seed):
        scores, truth = study(seed, 200, slope=1.5)
        scores = scores.round(2).clip(0.01) if seed % 2 else scores  # ties too
        pooled = IsotonicRegression().fit(scores, truth).predict(scores)
        # The judge is a step function over the scores of a block; here its mean score has the value of the step.
        blocks = [(scores[pooled == share].mean(), share) for share in np.unique(pooled)]
        assert np.array(fit_map("isotonic", scores, truth).knots) == pytest.approx(np.array(blocks))


# What each method can mend: any rising distortion, one of slope and offset, or one of slope alone.
MENDED = [("platt", 0.8, -0.5), ("isotonic", 0.8, -0.5), ("temperature", 0.6, 0.0)]


@pytest.mark.parametrize(("method", "slope", "offset"), MENDED)
@pytest.mark.parametrize("shown", [0.2, 0.5, 0.8])
def test_a_shown_score_comes_true_as_often_as_it_says_on_fresh_data(method, slope, offset, shown):
    fitted = fit_map(method, *study(10, 4000, slope=slope, offset=offset))
    scores, truth = study(11, 100_000, slope=slope, offset=offset)
    assert off(fitted(scores), truth, shown) == pytest.approx(0, abs=0.03)  # it was fitted on 4,000 scores
    if shown == 0.8:
        assert off(scores, truth, shown) < -0.08


def off(probability, truth, shown):
    """Return how far the share that came true lies beyond three standard errors from what was shown, near `shown`."""
    near = abs(probability - shown) < 0.03
    gap = truth[near].mean() - probability[near].mean()
    return np.sign(gap) * max(0.0, abs(gap) - 3 * math.sqrt(shown * (1 - shown) / near.sum()))


def test_temperature_cannot_mend_an_offset():
    # The reason for the default: at .5 only sigmoid(-1.2) = .23 come true, and .5 stays .5.
    scores, truth = study(10, 4000, offset=-1.2)
    assert fit_map("temperature", scores, truth)(0.5) == 0.5
    assert fit_map("platt", scores, truth)(0.5) == pytest.approx(0.23, abs=0.03)


class TestApply:
    def test_boxes_and_order_stay(self):
        found = Detections.from_unsorted([[0, 0, 5, 5], [1, 1, 9, 9], [2, 2, 4, 4]], [0.5, 0.8, 0.95], [0, 1, 2])
        mapped = calibration(ISOTONIC, ISOTONIC).apply(found)
        # .95 and .8 lie above the last knot: both .5, and keep their order; .5 is three quarters of the way
        assert mapped.scores.tolist() == pytest.approx([0.5, 0.5, 0.4])
        np.testing.assert_array_equal(mapped.boxes, found.boxes)
        np.testing.assert_array_equal(mapped.classes, found.classes)

    def test_no_box(self):
        assert len(calibration().apply(Detections.empty())) == 0

    def test_a_last_bit_does_not_turn_neighbours_around(self, monkeypatch):
        monkeypatch.setattr(ScoreMap, "__call__", lambda self, scores: np.array([0.4, 0.4000002, 0.3]))
        found = Detections(np.zeros((3, 4)), [0.5000001, 0.5, 0.4], [0, 0, 0])
        assert calibration().apply(found).scores.tolist() == pytest.approx([0.4, 0.4, 0.3])

    def test_images_have_a_map_of_their_own(self):
        both = calibration(PLATT, ScoreMap("platt", slope=2, zero=0.05))
        assert both.image([0.0, 0.8]) == pytest.approx([0.05, 16 / 17])
        assert both.box(0.5) == pytest.approx(sigmoid(-0.7))


class TestDetector:
    KNOWN = calibration(fitted_on={"detector": "toy 1234", "weights SHA-256": "a" * 64})
    UNKNOWN = calibration(fitted_on={"detector": "toy 1234"})

    def test_the_same_weights_whatever_the_name(self):
        self.KNOWN.check_detector("renamed", "a" * 64)

    def test_the_same_name_where_a_hash_is_missing(self):
        self.KNOWN.check_detector("toy 1234", None)
        self.UNKNOWN.check_detector("toy 1234", "b" * 64)

    @pytest.mark.parametrize(
        ("fitted", "name", "sha256", "message"),
        [
            (KNOWN, "toy 1234", "b" * 64, f"fitted_on.weights SHA-256: expected {'b' * 64} (toy 1234), got 'aaa"),
            (KNOWN, "other", None, "fitted_on.detector: expected 'other', got 'toy 1234'"),
            (UNKNOWN, "other", "a" * 64, "fitted_on.detector: expected 'other', got 'toy 1234'"),
            (KNOWN, KNOWN.name_for("toy 1234"), "a" * 64, "detector: expected one with raw scores, got 'toy 1234, cal"),
        ],
    )
    def test_another_detector_is_refused(self, fitted, name, sha256, message):
        with pytest.raises(CalibrationError) as caught:
            fitted.check_detector(name, sha256)
        assert str(caught.value).startswith(message)


FULL = Calibration(
    "isotonic",
    ScoreMap("isotonic", knots=((0.1, 1 / 3), (0.7, 2 / 3))),
    ScoreMap("isotonic", knots=((0.05, 0.1), (0.9, 0.99)), zero=1 / 7),
    operating_points={"youden": 0.1 + 0.2, "fp target": float(np.float32(0.7))},
    not_reached={"specificity": "nur ohne Röntgenbild"},
    fitted_on={"detector": "toy", "data": "val.json", "n images": "60"},
)


class TestFile:
    @pytest.mark.parametrize("one", [calibration(), FULL])
    def test_it_is_read_back_and_written_again_byte_for_byte(self, one, tmp_path):
        one.save(tmp_path / "a.json")
        again = Calibration.load(tmp_path / "a.json")
        assert again == one
        again.save(tmp_path / "b.json")
        assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()

    def test_the_shipped_file_of_an_earlier_version_is_written_again_byte_for_byte(self, tmp_path):
        shipped = Path(__file__).parents[2] / "weights" / "shipped" / "calibration.json"
        Calibration.load(shipped).save(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == shipped.read_bytes()

    def test_a_map_that_could_not_be_fitted_is_kept_with_its_reason(self, tmp_path):
        one = Calibration(
            "platt", ScoreMap("identity"), PLATT, not_fitted={"box": "no box"}, fitted_on={"detector": "toy"}
        )
        one.save(tmp_path / "a.json")
        assert Calibration.load(tmp_path / "a.json") == one

    def test_it_says_what_it_is_first(self, tmp_path):
        FULL.save(tmp_path / "a.json")
        content = json.loads((tmp_path / "a.json").read_text())
        assert list(content.items())[:3] == [
            ("format", "fracture_det calibration"), ("version", 1), ("method", "isotonic"),
        ]  # fmt: skip

    # name, where, value, message
    BROKEN = (
        ("1 another format", ("format",), "x", "format: expected 'fracture_det calibration', got 'x'"),
        ("2 a later version", ("version",), 2, "version: expected 1, which this program reads, got 2"),
        ("3 unknown method", ("method",), "beta", "method: expected one of platt, temperature, isotonic, got 'beta'"),
        ("4 a map of another method", ("box", "method"), "platt", "box.knots: expected two or more, or none, got 2"),
        ("5 no number", ("box", "slope"), "1", "box.slope: expected a number, got '1'"),
        ("6 a falling map", ("box", "slope"), -1, "box.slope: expected a number above 0, got -1.0"),
        ("7 falling knots", ("image", "knots"), [[0.1, 0.5], [0.9, 0.2]], "image.knots: expected scores and"),
        ("8 one knot", ("image", "knots"), [[0.1, 0.5]], "image.knots: expected two or more, or none, got 1"),
        ("9 no pairs", ("image", "knots"), [1, 2], "image.knots[0]: expected a list, got 1"),
        ("10 no list", ("image", "knots"), None, "image.knots: expected a list, got None"),
        ("11 zero", ("image", "zero"), 2, "image.zero: expected 0..1, got 2.0"),
        ("12 a score", ("operating_points", "youden"), 1.5, "operating_points.youden: expected 0..1, got 1.5"),
        ("13 true is no number", ("operating_points", "youden"), True, "operating_points.youden: expected a number"),
        ("14 no text", ("fitted_on", "data"), 3, "fitted_on.data: expected a text, got 3"),
        ("15 nobody's", ("fitted_on", "detector"), "", "fitted_on.detector: expected the name"),
        ("16 for nothing", ("not_fitted", "lesion"), "x", "not_fitted: expected box and image, got ['lesion']"),
        ("17 fitted, yet not", ("not_fitted", "box"), "x", "box.method: expected 'identity', got 'isotonic'"),
        ("18 an offset", ("box", "offset"), 0.1, "box.offset: expected 0 with isotonic, got 0.1"),
        ("19 no map", ("box",), [], "box: expected an object, got []"),
        ("20 of calibrated scores", ("fitted_on", "detector"), "toy, calibrated (platt)", "fitted_on.detector: exp"),
        ("20a three numbers", ("image", "knots"), [[0, 1, 2]], "image.knots[0]: expected a list of length 2, got"),
        ("20b no map of ours", ("box", "colour"), 1, "box.colour: unknown, got 1"),
        ("20c nothing", ("box", "offset"), None, "box.offset: expected a number, got None"),
        ("21 a field too many", ("threshold",), 0.5, "threshold: unknown, got 0.5"),
    )  # fmt: skip

    @pytest.mark.parametrize("case", BROKEN, ids=[case[0] for case in BROKEN])
    def test_a_broken_file_is_named_with_field_and_value(self, case, tmp_path):
        _, where, value, message = case
        path = tmp_path / "a.json"
        FULL.save(path)
        content = json.loads(path.read_text())
        inner = content if len(where) == 1 else content[where[0]]
        inner[where[-1]] = value
        path.write_text(json.dumps(content))
        with pytest.raises(CalibrationError) as caught:
            Calibration.load(path)
        assert str(caught.value).startswith(f"{path}: {message}")

    @pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "the file: expected an object, got []")])
    def test_what_is_no_calibration_at_all(self, text, message, tmp_path):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(CalibrationError) as caught:
            Calibration.load(tmp_path / "a.json")
        assert str(caught.value).startswith(f"{tmp_path / 'a.json'}: {message}")

    def test_a_missing_field(self, tmp_path):
        FULL.save(tmp_path / "a.json")
        content = json.loads((tmp_path / "a.json").read_text())
        del content["image"]
        (tmp_path / "a.json").write_text(json.dumps(content))
        with pytest.raises(CalibrationError, match=r"a\.json: image: missing$"):
            Calibration.load(tmp_path / "a.json")

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(CalibrationError, match=r"nothing\.json: cannot be read: No such file"):
            Calibration.load(tmp_path / "nothing.json")
