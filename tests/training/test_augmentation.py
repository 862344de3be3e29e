"""From radiographs to Detectron2's model inputs: registration, letterbox, augmentation, sampling."""

import collections
import itertools
import json

import cv2
import detectron2.data.transforms as T
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from fracture_det.modeling.config import default_config
from fracture_det.structures.letterbox import Letterbox
from fracture_det.training.augmentation import (
    AUGMENTATIONS,
    BBoxSafeRandomCrop,
    LetterboxTransform,
    RandomDegradation,
    RandomGamma,
    RandomRotation,
    RotateTransform,
    TransposeTransform,
    build_augmentations,
    grow_to_whole_boxes,
)
from fracture_det.training.datasets import CatalogError, register_datasets
from fracture_det.training.mapper import FractureMapper
from fracture_det.training.samplers import build_sampler
from tests.builders import write_image


@pytest.fixture
def coco(tmp_path):
    """One fractured image of 100 x 60 (w x h) with a white box, one healthy; returns the json's path."""
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[20:40, 30:60] = 255
    write_image(tmp_path / "a.png", pixels)
    write_image(tmp_path / "b.png", np.full((60, 100, 3), 50, np.uint8))
    content = {
        "info": {},
        "images": [
            {"id": i, "file_name": f"{name}.png", "height": 60, "width": 100} for i, name in ((1, "a"), (2, "b"))
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [30, 20, 30, 20], "area": 600, "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "fracture"}],
    }
    path = tmp_path / "set.json"
    path.write_text(json.dumps(content))
    return path


def registered(coco):
    name = f"{coco}@{coco.parent}"
    register_datasets([name], ["fracture"])
    return DatasetCatalog.get(name)


def test_healthy_images_are_registered_too(coco):
    assert [len(item["annotations"]) for item in registered(coco)] == [1, 0]


def test_a_data_set_registered_by_its_own_name_is_taken_as_it_is():
    DatasetCatalog.register("mine", lambda: [])
    try:
        register_datasets(["mine"], ["fracture"])
    finally:
        DatasetCatalog.remove("mine")


def test_what_is_wrong_with_a_data_set_is_named(coco):
    with pytest.raises(CatalogError, match="neither registered nor of the form"):
        register_datasets(["nothing"], ["fracture"])
    with pytest.raises(CatalogError, match=r"gone\.json: no such file"):
        register_datasets([f"gone.json@{coco.parent}"], ["fracture"])
    with pytest.raises(CatalogError, match="no such image folder"):
        register_datasets([f"{coco}@{coco.parent}/gone"], ["fracture"])
    with pytest.raises(CatalogError, match=r"categories \['fracture'\], but DATASETS.CLASS_NAMES is \['bone'\]"):
        register_datasets([f"{coco}@{coco.parent}"], ["bone"])
    (coco.parent / "b.png").unlink()
    with pytest.raises(CatalogError, match=r"1 of 2 images are not in .*: b\.png"):
        register_datasets([f"{coco}@{coco.parent}"], ["fracture"])


def test_the_mapper_letterboxes_image_and_boxes_alike(coco):
    cfg = default_config()
    cfg.INPUT.LETTERBOX = 50
    item = FractureMapper(cfg, is_train=False)(registered(coco)[0])
    # 100 x 60 in 50 px: scale 1/2, so the box 30..60 x 20..40 becomes 15..30 x 10..20.
    assert item["image"].shape == (3, 50, 50)
    assert item["instances"].gt_boxes.tensor.tolist() == [[15.0, 10.0, 30.0, 20.0]]
    assert (item["height"], item["width"], item["original_size"]) == (50, 50, (60, 100))
    image = item["image"].numpy()
    assert (image[:, 10:20, 15:30] == 255).all()
    assert (image.sum(), image[:, 30:].sum()) == (3 * 255 * 150, 0)


def test_the_letterbox_of_evaluation_has_its_step_that_of_training_has_not(coco):
    cfg = default_config()
    cfg.INPUT.LETTERBOX, cfg.INPUT.LETTERBOX_STEP = 50, 32
    item = registered(coco)[0]
    assert FractureMapper(cfg, is_train=False)(item)["image"].shape == (3, 32, 50)
    assert FractureMapper(cfg, is_train=True)(item)["image"].shape == (3, 50, 50)


def test_channels_come_in_the_order_of_input_format(coco):
    write_image(coco.parent / "a.png", np.full((60, 100, 3), (200, 100, 50), np.uint8))
    cfg = default_config()
    for order, first in (("RGB", 200), ("BGR", 50)):
        cfg.INPUT.FORMAT = order
        assert FractureMapper(cfg, is_train=False)(registered(coco)[0])["image"][0, 0, 0] == first


def test_a_size_other_than_recorded_is_an_error(coco):
    item = registered(coco)[0]
    item["height"] = 61
    with pytest.raises(ValueError, match=r"a\.png: the upright image is \(60, 100\).*says \(61, 100\)"):
        FractureMapper(default_config(), is_train=False)(item)


# window x0 y0 x1 y1, boxes, expected window
GROW_CASES = [
    ((10, 10, 40, 40), [[20, 20, 30, 30]], (10, 10, 40, 40)),  # 1: inside already
    ((10, 10, 40, 40), [[50, 50, 60, 60]], (10, 10, 40, 40)),  # 2: outside
    ((10, 10, 40, 40), [[40, 10, 60, 60]], (10, 10, 40, 40)),  # 3: touching edges share no pixel
    ((10, 10, 40, 40), [[35, 20, 45.5, 30]], (10, 10, 46, 40)),  # 4: cut at the right: grows to whole pixels
    ((10, 10, 40, 40), [[35, 20, 50, 30], [48, 35, 60, 70]], (10, 10, 60, 70)),  # 5: the growth reaches a second box
    ((10, 10, 40, 40), [[-5, 20, 20, 30]], (0, 10, 40, 40)),  # 6: never beyond the image
]


@pytest.mark.parametrize(("window", "boxes", "expected"), GROW_CASES)
def test_a_crop_grows_until_it_cuts_no_box(window, boxes, expected):
    assert grow_to_whole_boxes(window, np.array(boxes, float), (100, 100)) == expected


def test_a_thousand_crops_cut_no_box_and_hold_one_when_asked():
    np.random.seed(3)  # noqa: NPY002  Detectron2 draws from the global generator
    rng = np.random.default_rng(3)
    image = np.zeros((200, 300, 3), np.uint8)
    crop = BBoxSafeRandomCrop("absolute", (64, 64), around_box=1.0)
    for _ in range(1000):
        start = rng.uniform(0, [260, 160], (3, 2))
        boxes = np.hstack([start, start + rng.uniform(3, 40, (3, 2))])
        transform = crop.get_transform(image, boxes)
        x0, y0, x1, y1 = transform.x0, transform.y0, transform.x0 + transform.w, transform.y0 + transform.h
        inside = (boxes >= [x0, y0, x0, y0]).all(1) & (boxes <= [x1, y1, x1, y1]).all(1)
        outside = (boxes[:, 0] >= x1) | (boxes[:, 1] >= y1) | (boxes[:, 2] <= x0) | (boxes[:, 3] <= y0)
        assert (inside | outside).all()
        assert inside.any()
        assert min(x1 - x0, y1 - y0) >= 64


def test_letterbox_and_transpose_move_boxes_with_their_pixels():
    image = np.zeros((40, 80, 3), np.uint8)
    image[8:16, 20:60] = 255
    augmented = T.AugInput(image, boxes=np.array([[20.0, 8, 60, 16]]))
    T.AugmentationList([LetterboxTransform(Letterbox(160), (40, 80)), TransposeTransform()])(augmented)
    assert augmented.boxes.tolist() == [[16.0, 40.0, 32.0, 120.0]]
    x0, y0, x1, y1 = augmented.boxes[0].astype(int)
    assert augmented.image[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].min() == 255
    assert augmented.image[: y0 - 2].max() == augmented.image[:, x1 + 2 :].max() == 0


def test_the_sampler_draws_the_share_of_fractured_images_that_is_asked_for():
    cfg = default_config()
    cfg.DATALOADER.FRACTURED_SHARE = 0.75
    dicts = [{"annotations": [1]}] * 20 + [{"annotations": []}] * 180
    drawn = list(itertools.islice(build_sampler(dicts, cfg, seed=1), 20_000))
    # The standard deviation of a share of .75 in 20,000 draws is .003.
    assert np.mean([index < 20 for index in drawn]) == pytest.approx(0.75, abs=0.015)
    counts = collections.Counter(drawn)
    assert len(counts) == 200


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_sources_are_drawn_by_their_weights_among_fractured_and_healthy_images(share):
    cfg = default_config()
    cfg.DATALOADER.FRACTURED_SHARE, cfg.DATALOADER.SOURCE_WEIGHTS = share, (3, 1, 1)
    kinds = [(0, True)] * 40 + [(0, False)] * 400 + [(1, True)] * 80 + [(1, False)] * 8 + [(2, True)] * 16
    dicts = [{"annotations": [1] * fractured, "source": source} for source, fractured in kinds]
    drawn = collections.Counter(kinds[index] for index in itertools.islice(build_sampler(dicts, cfg, seed=1), 40_000))
    share = share or 136 / 544
    expected = {(0, True): 0.6 * share, (1, True): 0.2 * share, (2, True): 0.2 * share}
    expected |= {(0, False): 0.75 * (1 - share), (1, False): 0.25 * (1 - share)}
    assert {kind: count / 40_000 for kind, count in drawn.items()} == pytest.approx(expected, abs=0.015)


def test_a_share_of_fractured_images_needs_both_kinds():
    cfg = default_config()
    cfg.DATALOADER.FRACTURED_SHARE = 0.5
    with pytest.raises(CatalogError, match="2 fractured and 0 healthy"):
        build_sampler([{"annotations": [1]}] * 2, cfg, seed=1)


def test_a_rotated_box_is_the_upright_box_around_the_rotated_ellipse():
    # a disc of radius 15 in its box of 30 x 30: rotated by 10 degrees it is the same disc, so the box keeps its size
    pixels = np.zeros((200, 300, 3), np.uint8)
    rows, columns = np.mgrid[:200, :300]
    pixels[(rows - 80) ** 2 + (columns - 210) ** 2 <= 15**2] = 255
    rotation = RotateTransform(200, 300, 10.0)
    rotated = rotation.apply_image(pixels)
    ys, xs = np.nonzero(rotated[:, :, 0] > 127)
    (box,) = rotation.apply_box(np.array([[195.0, 65.0, 226.0, 96.0]]))
    assert rotated.shape[0] > 200
    assert rotated.shape[1] > 300
    np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1.5)
    # an ellipse of half axes 20 and 5 by 90 degrees stands upright: 5 and 20
    (upright,) = RotateTransform(200, 200, 90.0).apply_box(np.array([[80.0, 95.0, 120.0, 105.0]]))
    np.testing.assert_allclose(upright[2:] - upright[:2], [10, 40], atol=1e-6)


def test_rotation_stays_within_its_limit_and_gamma_keeps_black_and_white():
    np.random.seed(0)  # noqa: NPY002
    image = np.zeros((50, 50, 3), np.uint8)
    angles = [RandomRotation(15).get_transform(image).angle for _ in range(200)]
    assert -15 <= min(angles) < -10 < 10 < max(angles) <= 15
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 2, 3))
    for _ in range(20):
        changed = RandomGamma(0.5, 2.0).get_transform(ramp).apply_image(ramp)
        assert (changed[0, 0, 0], changed[255, 0, 0]) == (0, 255)
        assert (np.diff(changed[:, 0, 0].astype(int)) >= 0).all()
        assert 0.25 * 255 - 1 <= changed[128, 0, 0] <= 0.71 * 255 + 1  # .502 ** 2 and .502 ** .5


def test_each_key_switches_its_augmentation_on_and_they_keep_their_order():
    cfg = default_config()
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.CROP.ENABLED = False
    assert [type(augmentation).__name__ for augmentation in build_augmentations(cfg)] == ["RandomLetterbox"]
    cfg.INPUT.RANDOM_FLIP, cfg.INPUT.CROP.ENABLED, cfg.INPUT.VERTICAL_FLIP, cfg.INPUT.TRANSPOSE = (
        "horizontal",
        True,
        0.5,
        0.5,
    )
    cfg.INPUT.ROTATION, cfg.INPUT.DEGRADATION = 5.0, 0.2
    cfg.INPUT.GAMMA, cfg.INPUT.BRIGHTNESS, cfg.INPUT.CONTRAST = (0.5, 2.0), (0.9, 1.1), (0.9, 1.1)
    names = [type(augmentation).__name__ for augmentation in build_augmentations(cfg)]
    assert len(names) == len(AUGMENTATIONS)
    assert names == [
        "RandomRotation", "RandomLetterbox", "BBoxSafeRandomCrop", "RandomFlip", "RandomFlip", "RandomApply",
        "RandomGamma", "RandomBrightness", "RandomContrast", "RandomDegradation",
    ]  # fmt: skip


class TestDegradation:
    IMAGE = np.repeat(np.random.default_rng(2).integers(0, 256, (60, 80, 1), np.uint8), 3, axis=2)

    def degraded(self, monkeypatch, chosen):
        """Return IMAGE after the step of number `chosen` alone (the order of the draws)."""
        draws = np.full(5, 1.0)
        draws[chosen] = 0.0
        monkeypatch.setattr(np.random, "random", lambda count: draws)
        np.random.seed(4)  # noqa: NPY002  Detectron2 draws from the global generator
        return RandomDegradation(0.5).get_transform(self.IMAGE).apply_image(self.IMAGE)

    def parameters(self):
        np.random.seed(4)  # noqa: NPY002
        factor, sigma = np.random.uniform(1, 3), np.random.uniform(0.3, 1.5)  # noqa: NPY002
        return factor, sigma, np.random.randint(25, 91), np.random.uniform(1, 4)  # noqa: NPY002

    def test_each_step_is_the_one_that_its_name_says(self, monkeypatch):
        grey = self.IMAGE[:, :, 0].copy()
        factor, sigma, quality, clip_limit = self.parameters()
        small = cv2.resize(grey, (round(80 / factor), round(60 / factor)), interpolation=cv2.INTER_AREA)
        encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        expected = [
            cv2.resize(small, (80, 60)),
            cv2.GaussianBlur(grey, (0, 0), sigma),
            cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE),
            cv2.createCLAHE(clip_limit, (8, 8)).apply(grey),
            255 - grey,
        ]
        for chosen, wanted in enumerate(expected):
            result = self.degraded(monkeypatch, chosen)
            assert result.shape == self.IMAGE.shape
            assert (result == wanted[:, :, None]).all()
            assert (result != self.IMAGE).any()

    def test_without_a_step_nothing_changes(self, monkeypatch):
        assert (self.degraded(monkeypatch, []) == self.IMAGE).all()

    def test_a_step_comes_with_its_probability_and_inversion_with_a_third_of_it(self):
        np.random.seed(5)  # noqa: NPY002
        flat = np.full((4, 4, 3), 100, np.uint8)
        # Of a flat image only inversion is seen besides CLAHE, which makes 100 brighter or darker but never 155.
        inverted = sum(
            (RandomDegradation(0.6).get_transform(flat).apply_image(flat)[0, 0, 0] == 155) for _ in range(2000)
        )
        # .2 x (1 - .6) = .08 of 2000 are 160, with a standard deviation of 12: inversion without CLAHE.
        assert inverted == pytest.approx(160, abs=48)

    def test_boxes_stay_where_they_are(self):
        transform = RandomDegradation(1.0).get_transform(self.IMAGE)
        assert transform.apply_box(np.array([[1.0, 2, 30, 40]])).tolist() == [[1.0, 2, 30, 40]]
