"""Robustness of a toy detector that finds bright areas on black; its figures are known beforehand."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from fracture_det.data.predictions import PredictionsError, read_predictions
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.perturbations import PERTURBATIONS
from fracture_det.evaluation.robustness import choose_images, measure_robustness
from tests.evaluation.cases import dataset, record
from tests.webapp.bright import BrightRectangles, dark_plate

SIZE = (100, 140)  # height, width
MIDDLE, CORNER = (50, 40, 80, 60), (0, 0, 14, 10)
# name, where it is bright, how bright, truth
IMAGES = [
    ("fractured_1.png", MIDDLE, 200, [MIDDLE]),
    ("fractured_2.png", MIDDLE, 220, [MIDDLE]),
    ("corner.png", CORNER, 240, [CORNER]),
    ("healthy_1.png", MIDDLE, 60, []),
    ("healthy_2.png", MIDDLE, 80, []),
    ("healthy_3.png", MIDDLE, 100, []),
]


@pytest.fixture
def study(tmp_path):
    """Six images on disk, each a group of its own, and their truth."""
    records = []
    for number, (name, place, brightness, truth) in enumerate(IMAGES):
        Image.fromarray(dark_plate((*place, brightness), size=SIZE)).save(tmp_path / name)
        boxes = np.array(truth, dtype=float).reshape(-1, 4)
        records.append(ImageRecord(number, name, *SIZE, name, None, boxes, np.zeros(len(boxes), np.int64)))
    return Dataset(tuple(records), ("fracture",)), tmp_path


def measured(study, detector=None, **options):
    options = {"n_bootstrap": 50} | options
    return measure_robustness(detector or BrightRectangles(), *study, **options)


def values(found):
    return {
        (row.perturbation, row.strength): [row.figures[name].value for name in ("AP50", "AUROC")] for row in found.rows
    }


class TestRows:
    def test_every_perturbation_at_every_strength_after_the_untouched_images(self, study):
        found = measured(study, n_bootstrap=0)
        assert [(row.perturbation, row.strength) for row in found.rows] == [
            ("none", 0),
            *((kind, strength) for kind in PERTURBATIONS for strength in (1, 2, 3, 4, 5)),
        ]
        assert (found.rows[0].setting, found.rows[5].setting) == ("untouched", "quality 15")

    def test_figures_that_are_known(self, study):
        # Scores are brightness / 255: fractured .78 to .94, healthy up to .39: all boxes hit, all images in order.
        # Inverted, the one bright area is the whole image, and darker the more the box was bright: 600 px of 14,000 by
        # 200, 220, 60, 80, 100 are 8.6, 9.4, 2.6, 3.4, 4.3; the corner's 140 px by 240 are 2.4. So of the 9 pairs of
        # fractured and healthy only the corner's 3 are in order, and no box hits.
        # No image is over 160 px, so none becomes smaller.
        found = values(measured(study, perturbations=("resize", "inversion"), strengths=(5,)))
        assert found == {("none", 0): [1, 1], ("resize", 5): [1, 1], ("inversion", 5): [0, pytest.approx(1 / 3)]}

    def test_intervals_and_what_they_rest_on(self, study):
        (row,) = measured(study, perturbations=()).rows
        assert (row.figures["AP50"].low, row.figures["AP50"].high) == (1, 1)
        assert (row.figures["AP50"].n, row.figures["AUROC"].n) == (3, 6)
        # three of six groups are healthy: all six drawn from one kind in 2 of 64 resamples
        assert row.figures["AUROC"].undefined <= 6

    def test_truth_that_is_cut_off_is_counted_and_its_image_left_out(self, study):
        # 3 % of 100 x 140 are 3 rows and 4 columns: 10 x 7 of 14 x 10 are left, 70 of 140: just enough to stay.
        # 6 % are 6 and 8: 6 x 4.
        found = measured(study, perturbations=("crop",), strengths=(1, 2))
        assert [row.figures["AP50"].n for row in found.rows] == [3, 3, 2]
        assert [row.figures["AUROC"].n for row in found.rows] == [6, 6, 5]
        assert found.notes == [
            "Robustness, crop at strength 2 (6 % of each side): 1 annotated box lost more than half of its area "
            "and no longer counts; 1 image lost all of its boxes and is excluded from this row."
        ]

    def test_batches_change_nothing(self, study):
        detector = BrightRectangles()
        options = {"perturbations": ("rotation",), "strengths": (2,)}
        assert measured(study, detector, batch_size=4, **options) == measured(study, **options)
        assert detector.batches == [4, 2, 4, 2]

    @pytest.mark.parametrize(
        ("kept", "ap50", "auroc", "reason"),
        [
            ("fractured", 1, None, "no healthy image"),
            ("healthy", None, None, "no fractured image"),
            ("none", None, None, "no fractured image"),
        ],
    )
    def test_one_kind_of_image_or_none(self, study, kept, ap50, auroc, reason):
        records = tuple(one for one in study[0] if one.file_name.startswith(kept))
        (row,) = measured((Dataset(records, ("fracture",)), study[1]), perturbations=()).rows
        assert (row.figures["AP50"].value, row.figures["AUROC"].value) == (ap50, auroc)
        assert row.figures["AUROC"].reason == reason
        assert row.figures["AP50"].reason == (None if ap50 else "no annotated fracture")

    @pytest.mark.parametrize("change", [{"perturbations": ("fog",)}, {"strengths": (0,)}, {"strengths": (6,)}])
    def test_what_is_unknown_is_refused_before_anything_is_predicted(self, study, change):
        detector = BrightRectangles()
        with pytest.raises(ValueError, match="expected perturbations of jpeg, noise"):
            measured(study, detector, **change)
        assert detector.batches == []


class TestFailures:
    def test_images_that_fail_are_named_once_and_in_no_row(self, study):
        (study[1] / "healthy_1.png").write_bytes(b"no image")
        (study[1] / "healthy_2.png").unlink()
        pixels = dark_plate((*MIDDLE, 100), size=SIZE)[..., None].repeat(3, axis=2)
        pixels[0, 0] = 255, 0, 0  # the detector cannot do this one; turned, its corner is another
        Image.fromarray(pixels).save(study[1] / "healthy_3.png")
        found = measured(study, perturbations=("rotation",), strengths=(5,))
        assert [row.figures["AUROC"].n for row in found.rows] == [3, 4]
        assert found.notes == [
            "Robustness: healthy_1.png failed in 2 of 2 rows and is excluded from them: "
            "not a JPEG, PNG, BMP, TIFF, WebP or DICOM image",
            "Robustness: healthy_2.png failed in 2 of 2 rows and is excluded from them: no such file",
            "Robustness: healthy_3.png failed in 1 of 2 rows and is excluded from them: "
            "the detector failed: ArithmeticError: this image cannot be done",
        ]  # fmt: skip

    def test_an_image_of_another_size_than_stated_stops_after_the_first_pass(self, study):
        Image.fromarray(dark_plate(size=(50, 50))).save(study[1] / "healthy_1.png")
        detector = BrightRectangles()
        with pytest.raises(PredictionsError, match=r"healthy_1\.png: predicted on .*50, 50.* but the data set says"):
            measured(study, detector)
        assert len(detector.batches) == 6


class Interrupted(BrightRectangles):
    """Is stopped by the user when it is asked for the eighth image."""

    def predict(self, images):
        if len(self.batches) == 7:
            raise KeyboardInterrupt
        return super().predict(images)


class TestCache:
    OPTIONS = {"perturbations": ("noise", "blur"), "strengths": (5,)}  # noqa: RUF012

    def interrupt(self, study, cache):
        with pytest.raises(KeyboardInterrupt):
            measured(study, Interrupted(), cache=cache, **self.OPTIONS)

    def test_an_interrupted_run_goes_on_where_it_stopped(self, study, tmp_path):
        cache = tmp_path / "cache"
        self.interrupt(study, cache)
        detector = BrightRectangles()
        resumed = measured(study, detector, cache=cache, **self.OPTIONS)
        assert len(detector.batches) == 3 * 6 - 7
        assert resumed == measured(study, **self.OPTIONS)

    def test_a_line_that_was_not_finished_is_predicted_again(self, study, tmp_path):
        cache = tmp_path / "cache"
        self.interrupt(study, cache)
        (path,) = cache.glob("noise_5_*.jsonl")
        path.write_bytes(path.read_bytes()[:-5])
        detector = BrightRectangles()
        assert measured(study, detector, cache=cache, **self.OPTIONS) == measured(study, **self.OPTIONS)
        assert len(detector.batches) == 3 * 6 - 6

    def test_not_even_a_header_was_written(self, study, tmp_path):
        cache = tmp_path / "cache"
        self.interrupt(study, cache)
        (path,) = cache.glob("noise_5_*.jsonl")
        path.write_bytes(b'{"form')
        assert measured(study, cache=cache, **self.OPTIONS) == measured(study, **self.OPTIONS)

    def test_a_finished_run_predicts_nothing_again(self, study, tmp_path):
        first = measured(study, cache=tmp_path / "cache", **self.OPTIONS)
        detector = BrightRectangles()
        assert measured(study, detector, cache=tmp_path / "cache", **self.OPTIONS) == first
        assert detector.batches == []

    def test_what_failed_is_tried_again(self, study, tmp_path):
        content = (study[1] / "healthy_1.png").read_bytes()
        (study[1] / "healthy_1.png").write_bytes(b"x" * len(content))
        assert measured(study, cache=tmp_path / "cache", **self.OPTIONS).notes
        (study[1] / "healthy_1.png").write_bytes(content)
        detector = BrightRectangles()
        found = measured(study, detector, cache=tmp_path / "cache", **self.OPTIONS)
        assert found == measured(study, **self.OPTIONS)
        assert len(detector.batches) == 3

    @pytest.mark.parametrize("change", ["name", "sha256", "about", "operating_score", "image"])
    def test_another_detector_or_image_starts_anew(self, study, tmp_path, change):
        measured(study, cache=tmp_path / "cache", **self.OPTIONS)
        facts = {}
        if change == "image":
            Image.fromarray(dark_plate((10, 10, 20, 30, 99), size=SIZE)).save(study[1] / "healthy_1.png")
        else:
            facts[change] = {"about": {"NMS IoU": "0.3"}, "operating_score": 0.4}.get(change, "other")
        detector = BrightRectangles(**facts)
        measured(study, detector, cache=tmp_path / "cache", **self.OPTIONS)
        assert len(detector.batches) == 3 * 6

    def test_each_row_is_a_predictions_file(self, study, tmp_path):
        measured(study, cache=tmp_path / "cache", **self.OPTIONS)
        assert sorted(path.name[:-23] for path in (tmp_path / "cache").iterdir()) == ["blur_5", "noise_5", "none_0"]
        for path in (tmp_path / "cache").iterdir():
            assert read_predictions(path).about == {"weights SHA-256": "0" * 64}
            assert json.loads(path.read_text().splitlines()[0])["detector"] == "bright rectangles"


def test_progress_counts_what_is_left(study, tmp_path, capsys):
    options = {"perturbations": ("blur",), "strengths": (1,), "cache": tmp_path / "cache"}
    measured(study, **options)
    measured(study, progress=True, **options | {"strengths": (1, 2)})
    assert "6/6" in capsys.readouterr().err


class TestChooseImages:
    # 40 groups of 2 images; in groups 0 to 9 the first of the two is fractured
    STUDY = dataset(*(record(n, [0] if n < 20 and n % 2 == 0 else (), group=f"patient{n // 2}") for n in range(80)))

    @pytest.mark.parametrize("max_images", [None, 80, 1000])
    def test_all_where_all_fit(self, max_images):
        assert choose_images(self.STUDY, max_images, seed=0) is self.STUDY

    def test_whole_groups_in_the_datas_proportion(self):
        # 20 of 80 images are in fractured groups: of 21 places 5 for those, so 2 groups, and 16 for healthy ones
        chosen = choose_images(self.STUDY, 21, seed=0)
        assert (len(chosen), sum(one.fractured for one in chosen)) == (20, 2)
        names = [one.group_id for one in chosen]
        assert all(names.count(name) == 2 for name in names)
        assert [one.image_id for one in chosen] == sorted(one.image_id for one in chosen)

    def test_the_seed_decides(self):
        ids = [[one.image_id for one in choose_images(self.STUDY, 20, seed=seed)] for seed in (1, 1, 2)]
        assert ids[0] == ids[1] != ids[2]

    def test_every_group_has_its_chance(self):
        drawn = {one.group_id for seed in range(40) for one in choose_images(self.STUDY, 20, seed=seed)}
        assert len(drawn) == 40  # one is left out in all 40 draws with a chance of .8 ** 40 = .0001

    def test_a_group_that_is_too_large_is_passed_over(self):
        # groups of 5, 1, 1, 1 healthy images, 4 places
        study = dataset(*(record(n, group="large" if n < 5 else str(n)) for n in range(8)))
        for seed in range(10):
            assert {one.image_id for one in choose_images(study, 4, seed=seed)} == {5, 6, 7}

    @pytest.mark.parametrize("max_images", [0, 1, 3])
    def test_too_few_for_one_group_of_each_kind(self, max_images):
        # of 3 places round(.75) = 1 is for fractured groups, which have 2 images
        with pytest.raises(ValueError, match=r"leaves . for fractured groups, of which the smallest has 2 images"):
            choose_images(self.STUDY, max_images, seed=0)

    def test_a_sample_is_stated_and_measured(self, study):
        # 3 of 6 images are fractured: 2 and 2 of 4
        found = measured(study, perturbations=(), max_images=4)
        assert found.notes == [
            "Robustness was measured on 4 of 6 images (2 of 3 fractured): whole groups drawn with seed 0, fractured "
            "and healthy in the proportion of the data."
        ]
        assert (found.rows[0].figures["AP50"].n, found.rows[0].figures["AUROC"].n) == (2, 4)
        assert not math.isnan(found.rows[0].figures["AP50"].value)
