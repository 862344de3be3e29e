from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.report import GalleryItem
from fracture_det.reporting.gallery import (
    CROP_PX,
    DETECTION_COLOUR,
    TILE_PX,
    TRUTH_COLOUR,
    GalleryError,
    crop_path,
    draw_gallery,
    field_of,
    sheet_path,
)
from fracture_det.structures.radiograph import UnreadableImage

HEIGHT, WIDTH = 400, 500
BOX, TRUTH = [200.0, 150.0, 300.0, 210.0], [210.0, 140.0, 290.0, 220.0]


def item(kind="false positive", rank=1, box=BOX, file_name="a.png", score=0.9, anatomy="wrist"):
    return GalleryItem(kind, rank, file_name, list(box), None if kind == "miss" else score, anatomy)


def study(tmp_path, *names, truth=(), size=(HEIGHT, WIDTH)):
    """Return a data set of grey radiographs and the folder in which they lie."""
    records = []
    for number, name in enumerate(names):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)
        boxes = np.array(truth, dtype=np.float64).reshape(-1, 4)
        records.append(ImageRecord(number, name, *size, name, None, boxes, np.zeros(len(boxes), np.int64)))
    return Dataset(tuple(records), ("fracture",)), tmp_path / "images"


def picture(path):
    with Image.open(path) as image:
        image.load()
        return image


def drawn(path, colour):
    """Return where a JPEG shows a colour: (H, W) bool; a JPEG's colours are near to what was drawn."""
    pixels = np.asarray(picture(path)).astype(int)
    return np.abs(pixels - colour).sum(axis=2) < 60


def extent(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


# name; box; image (height, width); field x0 y0 x1 y1
FIELDS = [
    ("1 twice the longer side, about the centre", (300, 300, 400, 360), (800, 800), (250, 230, 450, 430)),
    ("2 at least a quarter of the longer side of the image", (500, 500, 520, 520), (1000, 2000), (260, 260, 760, 760)),
    ("3 at least 160 px", (100, 100, 110, 110), (300, 300), (25, 25, 185, 185)),
    ("4 moved into the image at its corner", (0, 0, 100, 60), (800, 800), (0, 0, 200, 200)),
    ("5 and at the other", (700, 740, 800, 800), (800, 800), (600, 600, 800, 800)),
    ("6 an image that is smaller is shown whole", (10, 10, 60, 60), (100, 120), (0, 0, 120, 100)),
    ("7 narrower only where the image is", (10, 400, 60, 500), (1000, 100), (0, 325, 100, 575)),
    ("8 a box of no size", (50, 50, 50, 50), (200, 200), (0, 0, 160, 160)),
]


@pytest.mark.parametrize("case", FIELDS, ids=[case[0] for case in FIELDS])
def test_the_field_of_a_crop(case):
    _, box, size, expected = case
    assert field_of(box, size) == expected


class TestCrops:
    def test_the_box_is_amber_where_it_was_found(self, tmp_path):
        dataset, images = study(tmp_path, "a.png")
        path, _ = draw_gallery([item()], dataset, images, tmp_path / "out")
        assert path == tmp_path / "out" / "gallery" / "false-positive-01.jpg"
        assert picture(path).size == (CROP_PX, CROP_PX)
        # field 150..350 x 80..280, shown at 360 / 200: the box from 90, 126 to 270, 234, its line of 3 px outside
        assert extent(drawn(path, DETECTION_COLOUR)) == pytest.approx([87, 123, 273, 237], abs=1)
        inside = np.asarray(picture(path))[136:224, 100:260]
        assert np.abs(inside.astype(int) - 90).max() <= 3  # the finding stays free

    def test_truth_in_view_is_dashed_blue(self, tmp_path):
        dataset, images = study(tmp_path, "a.png", truth=[TRUTH, [0, 0, 20, 20]])
        path, _ = draw_gallery([item("hit")], dataset, images, tmp_path / "out")
        blue = drawn(path, TRUTH_COLOUR)
        # 210..290 x 140..220 in the same field: from 108, 108 to 252, 252; the truth box at the corner is not in view
        assert extent(blue) == pytest.approx([105, 105, 255, 255], abs=1)
        top = blue[107, 110:250]
        assert 0.35 < top.mean() < 0.65
        assert drawn(path, DETECTION_COLOUR).any()

    def test_a_miss_is_a_truth_box_in_one_line_and_others_are_dashed(self, tmp_path):
        dataset, images = study(tmp_path, "a.png", truth=[BOX, [310, 150, 340, 210]])
        path, _ = draw_gallery([item("miss")], dataset, images, tmp_path / "out")
        blue = drawn(path, TRUTH_COLOUR)
        assert blue[125, 100:260].mean() > 0.9
        assert 0.3 < blue[130:230, 342].mean() < 0.7  # x 340 lies at 342
        assert not drawn(path, DETECTION_COLOUR).any()

    def test_a_truth_box_that_goes_beyond_the_crop_has_no_edge_there(self, tmp_path):
        dataset, images = study(tmp_path, "a.png", truth=[[120, 100, 480, 390]])
        path, _ = draw_gallery([item("hit")], dataset, images, tmp_path / "out")
        blue = drawn(path, TRUTH_COLOUR)
        assert not blue[100:, :5].any()
        assert blue[:60].any()  # only its upper edge is in view

    @pytest.mark.parametrize("box", [[0, 0, 500, 400], [-30, -20, 40, 30], [460, 370, 520, 440], [50, 50, 50, 50]])
    def test_boxes_at_and_over_the_edge_and_of_no_size_are_seen(self, tmp_path, box):
        dataset, images = study(tmp_path, "a.png")
        path, _ = draw_gallery([item(box=box)], dataset, images, tmp_path / "out")
        x0, y0, x1, y1 = extent(drawn(path, DETECTION_COLOUR))
        assert min(x1 - x0, y1 - y0) >= 4
        assert drawn(path, DETECTION_COLOUR)[y0, x0 : x1 - 1].mean() > 0.8
        assert drawn(path, DETECTION_COLOUR)[y1 - 1, x0 : x1 - 1].mean() > 0.8

    def test_a_small_image_is_enlarged(self, tmp_path):
        dataset, images = study(tmp_path, "a.png", size=(60, 90))
        path, _ = draw_gallery([item(box=[10, 10, 30, 30])], dataset, images, tmp_path / "out")
        assert picture(path).size == (CROP_PX, CROP_PX * 60 // 90)


class TestSheets:
    def test_names(self):
        assert crop_path(item("false positive", 3)) == "gallery/false-positive-03.jpg"
        assert crop_path(item("miss", 12)) == "gallery/miss-12.jpg"
        assert sheet_path("false positive") == "gallery/sheet-false-positive.jpg"

    def test_a_sheet_for_each_kind_that_there_is(self, tmp_path):
        dataset, images = study(tmp_path, "a.png", "b/ä.png", truth=[TRUTH])
        items = [item(rank=1), item(rank=2, file_name="b/ä.png"), item("miss", box=TRUTH, anatomy=None)]
        paths = draw_gallery(items, dataset, images, tmp_path / "out")
        names = [path.relative_to(tmp_path / "out").as_posix() for path in paths]
        assert names == [*map(crop_path, items), sheet_path("false positive"), sheet_path("miss")]
        assert sorted(path.name for path in (tmp_path / "out" / "gallery").iterdir()) == sorted(
            Path(name).name for name in names
        )
        assert all(picture(path).format == "JPEG" for path in paths)

    def test_twelve_lie_in_rows_of_four(self, tmp_path):
        dataset, images = study(tmp_path, "a.png")
        paths = draw_gallery([item(rank=n) for n in range(1, 13)], dataset, images, tmp_path / "out")
        sheet = picture(paths[-1])
        assert 4 * TILE_PX < sheet.width < 4.5 * TILE_PX
        assert 3 * TILE_PX < sheet.height < 4.5 * TILE_PX
        # a tile at each of the four times three places: amber near its middle
        amber = drawn(paths[-1], DETECTION_COLOUR)
        for corner in ((0, 0), (3, 2)):
            left, top = corner[0] * sheet.width // 4, corner[1] * (sheet.height - 40) // 3
            assert amber[top : top + TILE_PX, left : left + TILE_PX].sum() > 200

    def test_a_long_file_name_keeps_its_end_and_stays_within_its_tile(self, tmp_path):
        name = "folder/" + "x" * 150 + ".png"
        dataset, images = study(tmp_path, name, "b.png")
        path = draw_gallery([item(file_name=name), item(rank=2, file_name="b.png")], dataset, images, tmp_path)[-1]
        sheet = np.asarray(picture(path).convert("L"))
        gap = sheet[: TILE_PX + 60, TILE_PX + 13 : TILE_PX + 23]  # between the first tile and the second
        assert gap.min() > 200

    def test_one_item_and_none(self, tmp_path):
        dataset, images = study(tmp_path, "a.png")
        assert len(draw_gallery([item()], dataset, images, tmp_path / "out")) == 2
        assert draw_gallery([], dataset, images, tmp_path / "out") == []
        assert list((tmp_path / "out" / "gallery").iterdir()) == []  # nothing is left of the earlier run

    def test_other_files_in_the_folder_stay(self, tmp_path):
        dataset, images = study(tmp_path, "a.png")
        own = tmp_path / "out" / "gallery" / "hit-my-own.jpg"
        own.parent.mkdir(parents=True)
        own.write_bytes(b"mine")
        draw_gallery([item()], dataset, images, tmp_path / "out")
        assert own.read_bytes() == b"mine"


def test_equal_input_gives_equal_bytes(tmp_path):
    dataset, images = study(tmp_path, "a.png", "b.png", truth=[TRUTH])
    items = [item(), item("hit", file_name="b.png"), item("miss", box=TRUTH)]
    runs = [draw_gallery(items, dataset, images, tmp_path / name) for name in ("one", "two")]
    for first, second in zip(*runs, strict=True):
        assert first.read_bytes() == second.read_bytes()


class TestWhatCannotBeDrawn:
    def test_a_missing_radiograph_is_named(self, tmp_path):
        dataset, images = study(tmp_path, "a.png")
        (images / "a.png").unlink()
        with pytest.raises(UnreadableImage, match=r"a\.png: no such file"):
            draw_gallery([item()], dataset, images, tmp_path / "out")

    def test_a_broken_radiograph_is_named(self, tmp_path):
        dataset, images = study(tmp_path, "a.png")
        (images / "a.png").write_bytes((images / "a.png").read_bytes()[:60])
        with pytest.raises(UnreadableImage, match=r"a\.png"):
            draw_gallery([item()], dataset, images, tmp_path / "out")

    def test_a_radiograph_of_another_size_is_named(self, tmp_path):
        dataset, images = study(tmp_path, "a.png")
        Image.new("RGB", (20, 30)).save(images / "a.png")
        with pytest.raises(GalleryError, match=r"a\.png: expected \(height, width\) \(400, 500\), got \(30, 20\)"):
            draw_gallery([item()], dataset, images, tmp_path / "out")

    def test_an_image_that_the_data_set_does_not_know(self, tmp_path):
        dataset, images = study(tmp_path, "a.png")
        with pytest.raises(GalleryError, match=r"other\.png: not in the data set"):
            draw_gallery([item(file_name="other.png")], dataset, images, tmp_path / "out")

    def test_what_cannot_be_drawn_leaves_the_earlier_gallery(self, tmp_path):
        dataset, images = study(tmp_path, "a.png")
        earlier = draw_gallery([item()], dataset, images, tmp_path / "out")
        with pytest.raises(GalleryError):
            draw_gallery([item(file_name="other.png")], dataset, images, tmp_path / "out")
        assert all(path.is_file() for path in earlier)
