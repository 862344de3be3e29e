"""Perturbations: the truth goes where the pixels go, strengths are in order, and lots are drawn from the name."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from fracture_det.evaluation.perturbations import PERTURBATIONS, STRENGTHS, perturb_pixels, perturb_truth
from tests.builders import draw_radiograph

CASES = [(kind, strength) for kind in PERTURBATIONS for strength in STRENGTHS]
# Four names, of which some turn left and some right, some lighter and some darker.
NAMES = ("a.png", "b.png", "c.png", "d.png")


def altered(pixels, kind, strength, name="a.png"):
    return perturb_pixels(pixels, kind, strength, file_name=name)


def moved(boxes, size, kind, strength, name="a.png"):
    return perturb_truth(boxes, size, kind, strength, file_name=name)


@pytest.fixture(scope="module")
def radiograph():
    return draw_radiograph(np.random.default_rng(3), fractured=True, size=(454, 373))[0]


def test_each_kind_says_its_five_settings():
    assert list(PERTURBATIONS) == ["jpeg", "noise", "gamma", "inversion", "blur", "resize", "rotation", "crop"]
    assert PERTURBATIONS["jpeg"].setting(5) == "quality 15"
    assert PERTURBATIONS["gamma"].setting(1) == "1.15 or 1/1.15"
    assert len({PERTURBATIONS[kind].setting(strength) for kind, strength in CASES}) == 40


@pytest.mark.parametrize(("kind", "strength"), CASES)
def test_the_result_is_an_image_of_the_stated_size_and_always_the_same(radiograph, kind, strength):
    before = radiograph.copy()
    result = altered(radiograph, kind, strength)
    assert result.dtype == np.uint8
    assert result.flags["C_CONTIGUOUS"]
    assert result.shape == (*moved([], (454, 373), kind, strength).size, 3)
    np.testing.assert_array_equal(result, altered(radiograph, kind, strength))
    np.testing.assert_array_equal(radiograph, before)


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_strength_0_changes_nothing(radiograph, kind):
    assert altered(radiograph, kind, 0) is radiograph
    truth = moved([[1, 2, 3, 4]], (454, 373), kind, 0)
    assert (truth.size, truth.boxes.tolist(), truth.kept.tolist()) == ((454, 373), [[1, 2, 3, 4]], [True])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("kind", "strength"), CASES)
def test_boxes_follow_the_pixels(kind, strength, name):
    # A rectangle of 230 on black, found again at half of its brightness; rotated truth is that of an ellipse.
    plate = np.zeros((500, 420, 3), np.uint8)
    if kind == "rotation":
        cv2.ellipse(plate, (239, 219), (60, 40), 0, 0, 360, (230, 230, 230), -1)  # x 179 to 300, y 179 to 260
        box = [179, 179, 300, 260]
    else:
        plate[180:260, 180:300] = 230
        box = [180, 180, 300, 260]
    result = altered(plate, kind, strength, name)
    if result[0, 0, 0] > 128:
        result = 255 - result
    rows, columns = np.nonzero(result[..., 0] > result.max() / 2)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    truth = moved([box], (500, 420), kind, strength, name)
    np.testing.assert_allclose(truth.boxes, [seen], atol=1.5)


# (kind, strength, (height, width), box) -> size and box, or None where it leaves the truth
MOVES = [
    # a longer side of 800 becomes 160: everything by .2
    ("resize", 5, (400, 800), [100, 200, 300, 400], (80, 160), [20, 40, 60, 80]),
    ("resize", 5, (100, 60), [10, 20, 30, 40], (100, 60), [10, 20, 30, 40]),  # small enough
    # 20 % from each side of 200 x 100: 40 columns and 20 rows
    ("crop", 5, (100, 200), [60, 30, 100, 70], (60, 120), [20, 10, 60, 50]),
    # -10 -10 30 30 of 40 x 40: 30 x 30 = 900 of 1600 is left
    ("crop", 5, (100, 200), [30, 10, 70, 50], (60, 120), [0, 0, 30, 30]),
    # -20 10 20 30 of 40 x 20: 20 x 20 = 400 of 800, exactly half
    ("crop", 5, (100, 200), [20, 30, 60, 50], (60, 120), [0, 10, 20, 30]),
    # -20 -10 20 30 of 40 x 40: 20 x 30 = 600 of 1600
    ("crop", 5, (100, 200), [20, 10, 60, 50], (60, 120), None),
    ("crop", 5, (100, 200), [0, 0, 20, 20], (60, 120), None),
    # 45 degrees, either way: 200 x 200 needs 200 * 2 * .7071 = 282.8; the circle of 40 px in the middle stays
    ("rotation", 5, (200, 200), [80, 80, 120, 120], (283, 283), [121.5, 121.5, 161.5, 161.5]),
    # half axes 30 and 10: sqrt((30^2 + 10^2) / 2) = 22.3607 both ways
    ("rotation", 5, (200, 200), [70, 90, 130, 110], (283, 283), [119.1393, 119.1393, 163.8607, 163.8607]),
    # 30 degrees: 200 * .866 + 100 * .5 = 223.2 rows, 100 * .866 + 200 * .5 = 186.6 columns
    # half axes 30 and 10: sqrt((30 * .866)^2 + (10 * .5)^2) = 26.4575, sqrt((30 * .5)^2 + (10 * .866)^2) = 17.3205
    ("rotation", 4, (200, 100), [20, 90, 80, 110], (224, 187), [67.0425, 94.6795, 119.9575, 129.3205]),
]


@pytest.mark.parametrize(("kind", "strength", "size", "box", "new_size", "expected"), MOVES)
def test_moves(kind, strength, size, box, new_size, expected):
    truth = moved([box], size, kind, strength)
    assert truth.size == new_size
    assert truth.kept.tolist() == [expected is not None]
    np.testing.assert_allclose(truth.boxes, np.array([] if expected is None else expected).reshape(-1, 4), atol=1e-4)


@pytest.mark.parametrize(("kind", "strength"), CASES)
def test_no_boxes_stay_no_boxes(kind, strength):
    truth = moved(np.zeros((0, 4)), (300, 200), kind, strength)
    assert (truth.boxes.shape, truth.kept.shape) == ((0, 4), (0,))


@pytest.mark.parametrize("kind", ["jpeg", "noise", "gamma", "blur"])
@pytest.mark.parametrize("name", NAMES)
def test_a_higher_strength_is_further_from_the_original(radiograph, kind, name):
    psnr = [cv2.PSNR(radiograph, altered(radiograph, kind, strength, name)) for strength in STRENGTHS]
    assert psnr == sorted(psnr, reverse=True)
    assert psnr[0] > psnr[-1] + 1


@pytest.mark.parametrize(("kind", "larger"), [("resize", False), ("rotation", True), ("crop", False)])
def test_a_higher_strength_moves_the_frame_further(kind, larger):
    sizes = [moved([], (454, 373), kind, strength).size for strength in STRENGTHS]
    areas = [height * width for height, width in sizes]
    assert areas == sorted(set(areas), reverse=not larger)


def test_a_higher_strength_inverts_more_images_and_the_same_ones_again(radiograph):
    small = radiograph[:20, :20]
    inverted = [
        {name for name in range(200) if not np.array_equal(altered(small, "inversion", strength, f"{name}.png"), small)}
        for strength in STRENGTHS
    ]
    assert all(fewer < more for fewer, more in pairwise(inverted))
    # n p +- 4 sqrt(n p (1 - p)): 40 +- 23, 80 +- 28, 120 +- 28, 160 +- 23
    for found, expected, margin in zip(inverted, (40, 80, 120, 160, 200), (23, 28, 28, 23, 0), strict=True):
        assert abs(len(found) - expected) <= margin
    np.testing.assert_array_equal(altered(small, "inversion", 5), 255 - small)


def test_gamma_goes_both_ways_and_keeps_black_and_white():
    grey = np.full((4, 4, 3), 128, np.uint8)
    grey[0], grey[1] = 0, 255
    values = {int(altered(grey, "gamma", 5, f"{name}.png")[2, 2, 0]) for name in range(20)}
    assert values == {56, 186}  # 255 * (128 / 255) ** 2.2 = 56.0 and ** (1 / 2.2) = 186.4
    np.testing.assert_array_equal(altered(grey, "gamma", 5)[:2], grey[:2])


def test_rotation_goes_both_ways():
    boxes = {tuple(moved([[10, 10, 30, 30]], (100, 100), "rotation", 3, f"{name}.png").boxes[0]) for name in range(20)}
    assert len(boxes) == 2


def test_rotation_leaves_nothing_out_and_new_corners_black():
    white = np.full((80, 120, 3), 255, np.uint8)
    turned = altered(white, "rotation", 4)
    assert turned.sum() / white.sum() == pytest.approx(1, rel=0.02)
    assert not turned[0, 0].any()


@pytest.mark.parametrize(("strength", "sigma"), [(1, 3), (3, 10), (5, 20)])
def test_noise_has_its_sigma_is_grey_and_belongs_to_the_name(strength, sigma):
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = altered(grey, "noise", strength)
    # the sigma of 40,000 draws is known to 1 / sqrt(80,000) = .35 %; rounding adds sqrt(1 / 12) = .29 in square
    assert noisy[..., 0].std() == pytest.approx(np.hypot(sigma, 0.29), rel=0.02)
    assert noisy[..., 0].mean() == pytest.approx(128, abs=5 * sigma / 200)
    np.testing.assert_array_equal(noisy[..., 0], noisy[..., 2])
    assert (noisy != altered(grey, "noise", strength, "b.png")).any()


def test_a_small_image_is_not_made_larger():
    small = np.zeros((100, 60, 3), np.uint8)
    assert altered(small, "resize", 5) is small


def test_blur_is_as_wide_on_a_large_image_as_on_a_small_one():
    # the same edge at four times the size, scaled back: sigma is 3 px at 800, so 1.5 px and 6 px
    small, large = np.zeros((400, 400, 3), np.uint8), np.zeros((1600, 1600, 3), np.uint8)
    small[:, 200:], large[:, 800:] = 200, 200
    scaled = [cv2.resize(altered(one, "blur", 5), (200, 200), interpolation=cv2.INTER_AREA) for one in (small, large)]
    np.testing.assert_allclose(scaled[0].astype(float), scaled[1].astype(float), atol=3)


def test_what_is_unknown_is_refused():
    pixels = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"expected one of jpeg, .*, got 'fog'"):
        altered(pixels, "fog", 1)
    with pytest.raises(ValueError, match=r"expected 0 \(untouched\) to 5, got 6"):
        moved([], (4, 4), "jpeg", 6)
