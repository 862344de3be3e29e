"""Close-ups: boxes lie where they lay on the film, none is cut, and nothing is healthy that was not."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fracture_det.cli import closeups as tool
from fracture_det.data.closeups import LONGEST_PX, SMALLEST_PX, cut_closeups
from fracture_det.data.coco import read_coco, write_coco
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.radiograph import read_radiograph

HEIGHT, WIDTH = 1_500, 1_200
BOXES = np.array([[300.0, 400.0, 420.0, 470.0], [380.0, 600.0, 500.0, 640.0], [900.0, 1_300.0, 960.0, 1_420.0]])


@pytest.fixture
def films(tmp_path):
    """A fractured film, a healthy one, a black one, and one with a crowd region; fractures are white on a grey limb."""
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    records = []
    for number, name in enumerate(("fractured", "healthy", "black", "crowd")):
        pixels = np.full((HEIGHT, WIDTH), 10, np.uint8)
        if name != "black":
            pixels[:, 150:1_050] = np.linspace(60, 120, 900)
        boxes = BOXES if name == "fractured" else np.zeros((0, 4))
        for x0, y0, x1, y1 in boxes.astype(int):
            pixels[y0:y1, x0:x1] = 250
        Image.fromarray(pixels).save(folder / f"{name}.png")
        crowd = BOXES[:1] if name == "crowd" else np.zeros((0, 4))
        records.append(
            ImageRecord(
                number + 1,
                f"a/{name}.png",
                HEIGHT,
                WIDTH,
                f"patient {number}",
                boxes=boxes,
                classes=np.zeros(len(boxes), np.int64),
                crowd_boxes=crowd,
            )
        )
    dataset = Dataset(tuple(records), ("fracture",))
    write_coco(dataset, tmp_path / "train.json")
    return tmp_path, dataset


def cut(films, **options):
    folder, dataset = films
    return cut_closeups(dataset, folder / "images", folder / "out", **options), folder / "out"


def test_boxes_lie_on_their_fractures_and_none_is_cut(films):
    for seed in range(15):
        closeups, out = cut(films, seed=seed, per_fracture=3)
        fractured = [record for record in closeups if record.file_name.startswith("a/fractured")]
        assert fractured
        for record in fractured:
            assert record.group_id == "patient 0"
            pixels = read_radiograph(out / record.file_name).pixels[:, :, 0]
            assert pixels.shape == record.size
            assert min(record.size) >= 60
            assert len(record.boxes) >= 1
            inside = np.zeros(record.size, bool)
            for x0, y0, x1, y1 in record.boxes:
                inside[round(y0) : round(y1), round(x0) : round(x1)] = True
                assert pixels[round(y0) + 2 : round(y1) - 2, round(x0) + 2 : round(x1) - 2].min() > 200
            grown = np.zeros(record.size, bool)
            for x0, y0, x1, y1 in record.boxes:
                grown[max(0, round(y0) - 3) : round(y1) + 3, max(0, round(x0) - 3) : round(x1) + 3] = True
            assert pixels[~grown].max() < 200  # no fracture without a box


def test_a_healthy_window_is_mostly_limb_and_smaller_than_its_film(films):
    closeups, out = cut(films)
    (healthy,) = (record for record in closeups if record.file_name.startswith("a/healthy"))
    pixels = read_radiograph(out / healthy.file_name).pixels
    assert (pixels > 50).mean() > 0.5
    assert SMALLEST_PX <= min(healthy.size) <= max(healthy.size) <= min(LONGEST_PX, 0.75 * WIDTH)
    assert not len(healthy.boxes)


def test_a_film_without_a_limb_or_with_a_crowd_region_gives_none(films):
    names = {record.file_name.partition("_")[0] for record in cut(films)[0]}
    assert names == {"a/fractured.png", "a/healthy.png"}


def test_films_that_differ_in_their_suffix_alone_stay_apart(films):
    folder, dataset = films
    fractured = dataset.records[0]
    with Image.open(folder / "images" / "a" / "healthy.png") as healthy:
        healthy.save(folder / "images" / "a" / "fractured.bmp")
    other = replace(dataset.records[1], file_name="a/fractured.bmp")
    both = cut_closeups(Dataset((fractured, other), ("fracture",)), folder / "images", folder / "two")
    assert len({record.file_name for record in both}) == len(both) == 3
    (grey,) = (record for record in both if not len(record.boxes))
    assert read_radiograph(folder / "two" / grey.file_name).pixels.max() < 200


def test_the_same_seed_draws_the_same_windows_whatever_else_is_there(films):
    folder, dataset = films
    first, _ = cut(films, seed=4)
    alone = cut_closeups(Dataset(dataset.records[1:2], ("fracture",)), folder / "images", folder / "other", seed=4)
    (healthy,) = (record for record in first if record.file_name.startswith("a/healthy"))
    assert alone.records[0].size == healthy.size
    assert (folder / "other" / healthy.file_name).read_bytes() == (folder / "out" / healthy.file_name).read_bytes()
    assert [r.size for r in cut(films, seed=5)[0]] != [r.size for r in first]


def test_the_tool_writes_a_data_set_to_train_on(films, capsys):
    folder, _ = films
    arguments = ["--data", str(folder), "--images", str(folder / "images"), "--out", str(folder / "closeups")]
    assert tool.main(arguments) == 0
    written = read_coco(folder / "closeups" / "train.json")
    assert f"{len(written)} close-ups of 4 films" in capsys.readouterr().out
    for record in written:
        assert read_radiograph(folder / "closeups" / "images" / record.file_name).size == record.size


def test_the_tool_cuts_the_splits_that_are_named_each_from_its_films(films, capsys):
    folder, dataset = films
    for split, kept in (("val", dataset.records[:1]), ("test", dataset.records[1:2])):
        write_coco(Dataset(kept, ("fracture",)), folder / f"{split}.json")
    out = folder / "closeups"
    arguments = ["--data", str(folder), "--images", str(folder / "images"), "--out", str(out), "--per-fracture", "1"]
    assert tool.main([*arguments, "--splits", "val", "test"]) == 0
    assert {path.name for path in out.iterdir()} == {"images", "val.json", "test.json"}
    assert [record.group_id for record in read_coco(out / "val.json")] == ["patient 0"]
    assert [record.group_id for record in read_coco(out / "test.json")] == ["patient 1"]
    assert "val.json: 1 close-up of 1 film, 1 of them fractured" in capsys.readouterr().out


def test_what_is_wrong_is_one_sentence(films, capsys):
    folder, _ = films
    arguments = ["--data", str(folder), "--images", str(folder), "--out", str(folder / "closeups")]
    assert tool.main(arguments) == 2
    assert "no such file" in capsys.readouterr().err
    outside = replace(films[1].records[0], file_name="../outside.png")
    write_coco(Dataset((outside,), ("fracture",)), folder / "train.json")
    assert tool.main(arguments) == 2
    assert "'../outside.png' leads out of the image folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.main([*arguments, "--per-fracture", "-1"])
