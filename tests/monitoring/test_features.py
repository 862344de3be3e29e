"""The numbers of a picture and of a result, and their bins."""

import math

import cv2
import numpy as np
import pytest

from fracture_det.monitoring.changes import CHANGES
from fracture_det.monitoring.features import (
    FEATURES,
    INPUTS,
    OUTPUTS,
    bins_of,
    limb_value,
    picture_values,
    result_values,
)
from tests.builders import draw_radiograph


def grey_picture(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane.astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    picture = np.asarray(draw_radiograph(np.random.default_rng(3), fractured=True)[0])
    return picture if picture.ndim == 3 else grey_picture(picture)


def test_every_input_but_the_limb_is_of_the_picture(film):
    assert set(picture_values(film)) == set(INPUTS) - {"limb"}
    assert set(result_values([0.5], 0.1)) == set(OUTPUTS)


def test_greys_of_halves():
    plane = np.full((400, 1000), 40)
    plane[:, 500:] = 200
    values = picture_values(grey_picture(plane))
    # Half at 40 and half at 200: mean 120, deviation 80; 5 % and 95 % lie in the halves. .4 megapixels.
    assert values["grey"] == pytest.approx(120, abs=1)
    assert values["contrast"] == pytest.approx(80, abs=1)
    assert (values["dark"], values["bright"]) == (40, 200)
    assert values["border"] == pytest.approx(120, abs=1)
    assert values["size"] == pytest.approx(math.log2(0.4), abs=1e-4)
    assert values["saturated"] == 0


def test_saturated_counts_black_and_white_of_the_middle():
    plane = np.full((100, 100), 99)
    plane[:10], plane[90:95] = 0, 255
    assert picture_values(grey_picture(plane))["saturated"] == pytest.approx(0.15)


@pytest.mark.parametrize("sigma", [4, 10])
def test_noise_is_the_deviation_that_was_added(sigma):
    rng = np.random.default_rng(0)
    values = picture_values(grey_picture(np.round(128 + sigma * rng.standard_normal((600, 600)))))
    assert 2 ** values["noise"] == pytest.approx(sigma, rel=0.05)


def test_blur_takes_the_fine_detail(film):
    blurred = cv2.GaussianBlur(film, (0, 0), 1.5)
    assert picture_values(blurred)["sharpness"] < picture_values(film)["sharpness"] - 0.5


def test_changes_do_what_they_say(film):
    before = picture_values(film)
    after = {name: picture_values(change("film.png", film)) for name, change in CHANGES.items()}
    assert after["gamma 0.7"]["grey"] > before["grey"] > after["gamma 1.4"]["grey"]
    assert after["inverted"]["grey"] == pytest.approx(255 - before["grey"], abs=0.5)
    assert after["half the size"]["size"] == pytest.approx(before["size"] - 2, abs=0.05)
    assert after["twice the size"]["size"] == pytest.approx(before["size"] + 2, abs=0.05)
    # Variances add up.
    expected = math.log2(math.hypot(2 ** before["noise"], 4))
    assert after["noise 4 levels"]["noise"] == pytest.approx(expected, abs=0.1)
    again = CHANGES["noise 4 levels"]("film.png", film)
    assert np.array_equal(again, CHANGES["noise 4 levels"]("film.png", film))


def test_scores_in_float32_are_at_their_threshold():
    # .7 in float32 is below .7; it is a box from .7 up all the same.
    assert result_values(np.array([0.7, 0.3], dtype=np.float32), 0.7) == {"score": 0.7, "boxes": 1}
    assert result_values([], 0.1) == {"score": 0, "boxes": 0}


def test_the_log_odds_of_a_limb_are_bounded():
    assert limb_value(0.5) == 0
    assert limb_value(0.9) == pytest.approx(math.log(9), abs=1e-4)
    assert (limb_value(0.0), limb_value(1.0)) == (-20, 20)


def test_a_value_on_an_edge_lies_above_it():
    # Edges of the score are .05, .10 ... .95: 20 bins.
    assert bins_of("score", [0.0, 0.05, 0.0999, 0.95, 1.0]).tolist() == [0, 1, 1, 19, 19]
    assert FEATURES["score"].n_bins == 20


@pytest.mark.parametrize("name", FEATURES)
def test_edges_ascend(name):
    assert (np.diff(FEATURES[name].edges) > 0).all()
