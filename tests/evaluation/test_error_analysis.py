import csv
import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.error_analysis import MATCH_COLUMNS, find_errors, write_match_csv
from fracture_det.evaluation.lesion_level import lesion_counts
from fracture_det.evaluation.matching import match_dataset
from fracture_det.evaluation.report import Errors, ErrorType
from fracture_det.evaluation.tide import TYPES
from fracture_det.structures.detections import Detections
from fracture_det.structures.intervals import wilson
from tests.evaluation.cases import box, dataset, found, random_study, record

NOTHING = Detections.empty()


def errors_of(*images, score=0.5, n_bootstrap=0):
    """Return the errors of (record, detections) pairs."""
    study = dataset(*(one for one, _ in images))
    return find_errors(
        study, {one.image_id: boxes for one, boxes in images}, score=score, n_bootstrap=n_bootstrap, seed=1
    )


def listed(items, kind):
    return [(item.rank, item.file_name, item.score) for item in items if item.kind == kind]


class TestTypes:
    # truth 1 and 2; box 1 hits at .9, box 9 lies nowhere at .4, box 2 hits at .3
    STUDY = ((record(0, (1, 2)), found((1, 0.9), (9, 0.4), (2, 0.3))),)

    def test_counts_are_at_the_operating_score_and_ap50_is_over_all_boxes(self):
        errors = errors_of(*self.STUDY, score=0.5)
        # precision 1 to recall 1/2, then 2/3 to recall 1; without the false box 1
        assert errors.base_ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)
        assert errors.types["background"] == ErrorType(0, pytest.approx(50 / 3 / 101))
        assert errors.types["missed"] == ErrorType(1, 0.0)  # at .3 the second fracture is found
        assert errors_of(*self.STUDY, score=0.4).types["background"].count == 1

    def test_six_types_and_two_special_ones_in_the_paper_s_order(self):
        assert tuple(errors_of(*self.STUDY).types) == TYPES

    def test_no_truth(self):
        errors = errors_of((record(0), found((1, 0.9))))
        assert errors.base_ap50 is None
        assert errors.types["background"] == ErrorType(1, None)
        assert [item.kind for item in errors.gallery] == ["false positive"]

    def test_no_box(self):
        errors = errors_of((record(0, (1, 2)), NOTHING))
        assert errors.base_ap50 == 0
        assert errors.types["missed"] == ErrorType(2, 0.0)
        assert (errors.healthy, listed(errors.gallery, "miss")) == (
            [], [(1, "image0.png", None), (2, "image0.png", None)]
        )  # fmt: skip

    def test_no_image(self):
        errors = errors_of()
        assert errors == Errors(None, dict.fromkeys(TYPES, ErrorType(0, None)), [], [])

    def test_a_detector_that_knows_the_truth_makes_none(self):
        errors = errors_of((record(0, (1, 2)), found((1, 1.0), (2, 1.0))), (record(1), NOTHING))
        assert errors.base_ap50 == 1
        assert set(errors.types.values()) == {ErrorType(0, 0.0)}
        assert {item.kind for item in errors.gallery} == {"hit"}

    def test_only_images_with_detections_count(self):
        study = dataset(record(0, (1,)), record(1, (1,)))
        errors = find_errors(study, {0: found((1, 0.9))}, score=0.5, n_bootstrap=0, seed=1)
        assert (errors.base_ap50, errors.types["missed"].count) == (1, 0)

    @pytest.mark.parametrize("seed", range(3))
    def test_equal_input_gives_equal_json_without_nan(self, seed):
        study, predictions = random_study(seed, ties=True)
        options = {"score": 0.5, "n_bootstrap": 20, "seed": 3}
        turned = Dataset(study.records[::-1], study.class_names)  # the order of the file does not matter
        texts = [
            json.dumps(asdict(find_errors(one, predictions, **options)), allow_nan=False) for one in (study, turned)
        ]
        assert texts[0] == texts[1]


class TestHealthy:
    # wrist: two images of one patient with two boxes and one, and one of another patient without; elbow: one without
    STUDY = (
        (record(0, group="a", anatomy="wrist"), found((1, 0.9), (2, 0.5), (3, 0.4))),
        (record(1, group="a", anatomy="wrist"), found((1, 0.6))),
        (record(2, group="b", anatomy="wrist"), found((1, 0.49))),
        (record(3, group="c", anatomy="elbow"), NOTHING),
        (record(4, (1,), group="d", anatomy="elbow"), found((9, 0.9))),  # fractured: not here
        (record(5, group="e"), found((1, 0.9))),
    )

    def test_rows(self):
        rows = errors_of(*self.STUDY).healthy
        cells = [
            (row.anatomy, row.n_images, row.n_boxes, row.false_positive_rate.count, row.fp_per_image.count)
            for row in rows
        ]
        assert cells == [("elbow", 1, 0, 0, 0), ("unknown", 1, 1, 1, 1), ("wrist", 3, 3, 2, 3), ("all", 5, 4, 3, 4)]
        assert [row.false_positive_rate.value for row in rows] == pytest.approx([0, 1, 2 / 3, 3 / 5])
        assert [row.fp_per_image.value for row in rows] == pytest.approx([0, 1, 3 / 3, 4 / 5])

    def test_a_share_has_wilson_s_interval_and_a_rate_has_none(self):
        row = errors_of(*self.STUDY).healthy[-1]
        assert (row.false_positive_rate.wilson_low, row.false_positive_rate.wilson_high) == pytest.approx(wilson(3, 5))
        assert (row.fp_per_image.wilson_low, row.fp_per_image.wilson_high) == (None, None)

    def test_intervals_draw_groups(self):
        rows = {row.anatomy: row for row in errors_of(*self.STUDY, n_bootstrap=400).healthy}
        # patient a alone (2 of 2 called, 3 boxes on 2 images), patient b alone (0), or both: the ends are a and b
        assert (rows["wrist"].false_positive_rate.low, rows["wrist"].false_positive_rate.high) == (0, 1)
        assert (rows["wrist"].fp_per_image.low, rows["wrist"].fp_per_image.high) == (0, 1.5)
        assert rows["elbow"].false_positive_rate.low is None  # one group

    def test_none_without_a_healthy_image(self):
        assert errors_of((record(0, (1,)), found((1, 0.9)))).healthy == []


class TestGallery:
    def test_false_positives_and_hits_are_the_surest_shown_and_ties_keep_the_order_of_images(self):
        errors = errors_of(
            (record(2, (1,)), found((1, 0.8), (9, 0.7))),
            (record(1), found((9, 0.7), (8, 0.95), (7, 0.4))),
            (record(0, (1, 2, 3)), found((1, 0.8), (2, 0.9), (3, 0.49))),
        )
        assert listed(errors.gallery, "false positive") == [
            (1, "image1.png", 0.95), (2, "image1.png", 0.7), (3, "image2.png", 0.7)
        ]  # fmt: skip
        assert listed(errors.gallery, "hit") == [
            (1, "image0.png", 0.9), (2, "image0.png", 0.8), (3, "image2.png", 0.8)
        ]  # fmt: skip
        assert [item.box for item in errors.gallery[:2]] == [box(8), box(9)]

    def test_misses_are_those_that_cover_most_of_their_image(self):
        # 10 x 10 px in an image of 100 x 400; 20 x 20 in one of 1000 x 1000; hit only below the score
        large = np.array([[0.0, 0.0, 20.0, 20.0]])
        wide = ImageRecord(0, "wide.png", 1000, 1000, "wide", "hip", large, np.zeros(1, np.int64))
        errors = errors_of((wide, NOTHING), (record(1, (1, 2)), found((2, 0.4))), (record(2, (1,)), found((1, 0.5))))
        misses = [item for item in errors.gallery if item.kind == "miss"]
        assert [(item.rank, item.file_name, item.box) for item in misses] == [
            (1, "image1.png", box(1)), (2, "image1.png", box(2)), (3, "wide.png", [0, 0, 20, 20])
        ]  # fmt: skip
        assert (misses[2].anatomy, misses[2].score) == ("hip", None)

    def test_a_fracture_with_a_badly_placed_box_is_among_the_misses(self):
        x0, y0, x1, y1 = box(1)
        near = Detections.from_unsorted([[x0 + 5, y0, x1 + 5, y1]], [0.9], [0])
        errors = errors_of((record(0, (1,)), near))
        assert errors.types["missed"].count == 0
        assert listed(errors.gallery, "miss") == [(1, "image0.png", None)]

    def test_twelve_of_each_in_order_of_kind_and_rank(self):
        truth, false = tuple(range(15)), [(number, 0.9) for number in range(20, 40)]
        errors = errors_of((record(0, truth), found(*((n, 0.8) for n in truth), *false)), (record(1, truth), NOTHING))
        kinds = [kind for kind in ("false positive", "miss", "hit") for _ in range(12)]
        assert [(item.kind, item.rank) for item in errors.gallery] == list(zip(kinds, [*range(1, 13)] * 3, strict=True))


def match_rows(path, study, predictions, score=0.5):
    write_match_csv(study, predictions, path, score=score)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames) == MATCH_COLUMNS
    return rows


class TestMatchCsv:
    def test_a_row_for_everything_and_for_every_image(self, tmp_path):
        images = (record(3), record(1, (1, 2, 3), group="p", anatomy="wrist"), record(2), record(0, (1,)))
        boxes = {1: found((1, 0.9), (9, 0.8), (2, 0.4)), 2: found((1, 0.3)), 3: NOTHING}
        rows = match_rows(tmp_path / "m.csv", dataset(*images), boxes)
        short = [(row["file_name"], row["kind"], row["score"], row["shown"], row["error"]) for row in rows]
        assert short == [
            ("image0.png", "not predicted", "", "", ""),
            ("image1.png", "hit", "0.9", "1", ""),
            ("image1.png", "false positive", "0.8", "1", "background"),
            ("image1.png", "hit", "0.4", "0", ""),
            ("image1.png", "missed", "", "", "missed"),  # hit only below the score
            ("image1.png", "missed", "", "", "missed"),
            ("image2.png", "false positive", "0.3", "0", "background"),
            ("image3.png", "nothing", "", "", ""),
        ]
        assert [row["fractured"] for row in rows] == list("11111100")
        assert {(row["group"], row["anatomy"]) for row in rows[1:6]} == {("p", "wrist")}
        assert [float(rows[1][name]) for name in ("x0", "y0", "x1", "y1")] == box(1)
        assert (rows[1]["label"], rows[1]["truth_label"], rows[1]["iou"]) == ("fracture", "fracture", "1.000000")
        assert (rows[2]["truth_label"], rows[2]["truth_x0"], rows[2]["iou"]) == ("", "", "")
        truth = [[float(row[f"truth_{name}"]) for name in ("x0", "y0", "x1", "y1")] for row in rows[4:6]]
        assert truth == [box(2), box(3)]
        assert [row["iou"] for row in rows[4:6]] == ["", ""]  # no shown box touches them

    def test_a_fracture_that_a_badly_placed_box_explains(self, tmp_path):
        x0, y0, x1, y1 = box(1)
        near = Detections.from_unsorted([[x0 + 5, y0, x1 + 5, y1]], [0.9], [0])
        rows = match_rows(tmp_path / "m.csv", dataset(record(0, (1,))), {0: near})
        # 5 of 15 px are shared
        assert [(row["kind"], row["error"], row["iou"]) for row in rows] == [
            ("false positive", "localisation", "0.333333"), ("missed", "", "0.333333")
        ]  # fmt: skip
        assert [float(rows[0][f"truth_{name}"]) for name in ("x0", "y0", "x1", "y1")] == box(1)

    def test_beyond_the_surest_hundred(self, tmp_path):
        many = found(*((2 + number, 0.9) for number in range(100)), (1, 0.5))
        rows = match_rows(tmp_path / "m.csv", dataset(record(0, (1,))), {0: many})
        assert [row["kind"] for row in rows[-2:]] == ["not counted", "missed"]

    def test_names_with_commas_quotes_and_letters_of_any_script(self, tmp_path):
        name = 'hånd, "links"\u4e00.png'
        rows = match_rows(tmp_path / "m.csv", dataset(ImageRecord(0, name, 9, 9, "a,b")), {0: NOTHING})
        assert (rows[0]["file_name"], rows[0]["group"]) == (name, "a,b")

    @pytest.mark.parametrize("score", [0.0, 0.3, 0.5, 0.8, 1.0])
    @pytest.mark.parametrize("seed", range(3))
    def test_it_adds_up_to_the_lesion_counts_and_the_error_types(self, tmp_path, seed, score):
        study, predictions = random_study(seed, ties=True)
        rows = match_rows(tmp_path / "m.csv", study, predictions, score)
        counts = lesion_counts(match_dataset(study, predictions), score)
        shown = [row for row in rows if row["shown"] == "1"]
        assert sum(row["kind"] == "hit" for row in shown) == counts.true_positives
        assert sum(row["kind"] == "false positive" for row in shown) == counts.false_positives
        assert sum(row["kind"] == "missed" for row in rows) == counts.truth - counts.true_positives
        types = find_errors(study, predictions, score=score, n_bootstrap=0, seed=0).types
        for name in TYPES[:6]:
            assert sum(row["error"] == name for row in rows if row["shown"] != "0") == types[name].count
        assert {row["file_name"] for row in rows} == {one.file_name for one in study}

    def test_scores_and_boxes_are_read_back_as_they_were(self, tmp_path):
        study, predictions = random_study(1)
        rows = match_rows(tmp_path / "m.csv", study, predictions)
        boxes = {one.file_name: predictions[one.image_id] for one in study}
        for name, expected in boxes.items():
            own = [row for row in rows if row["file_name"] == name and row["score"]]
            assert [np.float32(row["score"]) for row in own] == expected.scores.tolist()
            corners = [[np.float32(row[corner]) for corner in ("x0", "y0", "x1", "y1")] for row in own]
            np.testing.assert_array_equal(np.reshape(corners, (-1, 4)), expected.boxes)

    def test_equal_input_gives_equal_bytes(self, tmp_path):
        study, predictions = random_study(2)
        for name in ("one.csv", "two.csv"):
            write_match_csv(study, predictions, tmp_path / name, score=0.5)
        assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
        assert b"\r" not in (tmp_path / "one.csv").read_bytes()


def test_gains_have_intervals_over_groups_and_one_group_has_none():
    study, predictions = random_study(5)
    errors = find_errors(study, predictions, score=0.3, n_bootstrap=60, seed=0)
    gain = errors.types["background"]
    assert gain.low < gain.delta_ap50 < gain.high
    alone = find_errors(dataset(record(0, [1])), {0: found((2, 0.9))}, score=0.3, n_bootstrap=60, seed=0)
    assert (alone.types["background"].low, alone.types["background"].high) == (None, None)


class TestCrowdRegions:
    # box 1 is truth; boxes 3 and 4 lie in a region, whose edge is box 5's; the second image has a region alone
    REGION = np.array([[55.0, 0, 105, 20]])
    FIRST = replace(record(0, (1,)), crowd_boxes=REGION)
    ALONE = replace(record(1), crowd_boxes=REGION)
    STUDY = ((FIRST, found((3, 0.9), (1, 0.8), (4, 0.7), (9, 0.6))), (ALONE, found((3, 0.9))))

    def test_what_lies_in_a_region_is_no_error(self):
        errors = errors_of(*self.STUDY)
        assert errors.types["background"].count == errors.types["false positive"].count == 1
        # precision 1 to recall 1: the false box comes after the hit
        assert errors.base_ap50 == 1
        assert errors.healthy == []  # an image with a region alone is not healthy
        assert listed(errors.gallery, "false positive") == [(1, "image0.png", 0.6)]

    def test_it_has_its_own_kind_in_the_table(self, tmp_path):
        study, predictions = dataset(self.FIRST, self.ALONE, record(2)), {0: self.STUDY[0][1], 1: NOTHING, 2: NOTHING}
        write_match_csv(study, predictions, tmp_path / "m.csv", score=0.5)
        with (tmp_path / "m.csv").open() as file:
            rows = [(row["file_name"], row["kind"], row["fractured"], row["error"]) for row in csv.DictReader(file)]
        assert rows == [
            ("image0.png", "ignored", "1", ""),
            ("image0.png", "hit", "1", ""),
            ("image0.png", "ignored", "1", ""),
            ("image0.png", "false positive", "1", "background"),
            ("image1.png", "nothing", "1", ""),
            ("image2.png", "nothing", "0", ""),
        ]
