"""Training's door: every input is checked before the first iteration, and nothing is written where one is wrong."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from fracture_det.cli import train as train_command
from fracture_det.data.image_info import read_upright_size
from fracture_det.modeling.config import load_config
from fracture_det.structures.radiograph import UnreadableImage, read_radiograph
from fracture_det.training.datasets import register_datasets, source_names, training_images, without_crowds
from fracture_det.training.trainer import FractureTrainer
from fracture_det.training.validation_metrics import LetterboxCOCOEvaluator
from tests.builders import draw_radiograph, write_image

pytestmark = pytest.mark.usefixtures("forget_data_sets")

ROOT = Path(__file__).parents[2]
QUICK_CONFIG = ROOT / "configs" / "quick" / "faster_rcnn_R_18_FPN_cpu.yaml"
HEIGHT, WIDTH = 40, 30


@pytest.fixture
def data(tmp_path):
    """A folder with images a.png ... h.png, train.json of a to f (a, b, c fractured) and val.json of g and h."""
    (tmp_path / "images").mkdir()
    for name in "abcdefgh":
        write_image(tmp_path / "images" / f"{name}.png", np.full((HEIGHT, WIDTH, 3), ord(name), np.uint8))
    write(tmp_path, "train", "abcdef", fractured="abc")
    write(tmp_path, "val", "gh", fractured="g")
    return tmp_path


def write(folder, split, names, *, fractured, change=None, categories=({"id": 1, "name": "fracture"},), **fields):
    """Write a COCO file; `fields` are set on every annotation (None: left out), `change` edits the content in place."""
    images = [
        {"id": ord(name), "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH, "license": 1} for name in names
    ]
    annotations = []
    for name in fractured:
        box = {"bbox": [4, 5, 10, 12], "area": 120, "iscrowd": 0}
        item = {"id": ord(name), "image_id": ord(name), "category_id": 1, **box, **fields}
        annotations.append({key: value for key, value in item.items() if value is not None})
    content = {"images": images, "annotations": annotations, "categories": list(categories)}
    if change:
        change(content)
    (folder / f"{split}.json").write_text(json.dumps(content))


class Door:
    """Runs the tool up to the first iteration."""

    def __init__(self, data, monkeypatch, capsys):
        self.data, self.capsys, self.started = data, capsys, []
        monkeypatch.setattr(train_command, "launch", lambda *args: self.started.append(args[-1][0]))

    def train(self, *arguments):
        """Return the exit code and what was said."""
        words = ["--config-file", str(QUICK_CONFIG), "--data", str(self.data), "--images", str(self.data / "images")]
        options = [word for word in arguments if word.startswith("--")]
        keys = [word for word in arguments if not word.startswith("--")]
        if "OUTPUT_DIR" not in keys:
            keys += ["OUTPUT_DIR", str(self.data / "run")]
        code = train_command.main([*words, *options, *keys])
        return code, self.capsys.readouterr().err

    def refuses(self, *arguments):
        code, said = self.train(*arguments)
        assert code == 2
        assert not self.started
        assert not (self.data / "run").exists()
        return said


@pytest.fixture
def door(data, monkeypatch, capsys):
    return Door(data, monkeypatch, capsys)


class TestDataThatTrain:
    def test_a_data_set_that_is_right(self, door):
        assert door.train()[0] == 0
        assert len(door.started) == 1

    def test_a_coco_file_needs_neither_area_nor_iscrowd(self, data, door):
        write(data, "train", "abcdef", fractured="abc", area=None, iscrowd=None)
        write(data, "val", "gh", fractured="g", area=None, iscrowd=None)
        assert door.train()[0] == 0
        (name,) = door.started[0].DATASETS.TEST
        evaluator = LetterboxCOCOEvaluator(name, None)
        (truth,) = evaluator._coco_api.loadAnns(evaluator._coco_api.getAnnIds())
        assert (truth["bbox"], truth["area"], truth["iscrowd"]) == ([4, 5, 10, 12], 120, 0)

    def test_categories_are_matched_by_name_and_those_without_a_box_do_not_count(self, data, door):
        roboflow = [{"id": 0, "name": "bones"}, {"id": 1, "name": "fracture", "supercategory": "bones"}]
        write(data, "train", "abcdef", fractured="abc", categories=roboflow)
        write(data, "val", "gh", fractured="g", category_id=0, categories=[{"id": 0, "name": "fracture"}])
        assert door.train()[0] == 0
        for name in (*door.started[0].DATASETS.TRAIN, *door.started[0].DATASETS.TEST):
            assert {a["category_id"] for item in DatasetCatalog.get(name) for a in item["annotations"]} == {0}
            assert MetadataCatalog.get(name).thing_classes == ["fracture"]

    def test_two_classes_in_another_order_than_in_the_configuration(self, data, door):
        categories = [{"id": 7, "name": "implant"}, {"id": 3, "name": "fracture"}]
        write(data, "train", "abcdef", fractured="abc", category_id=7, categories=categories)
        write(data, "val", "gh", fractured="g", category_id=3, categories=categories)
        keys = ("DATASETS.CLASS_NAMES", "('fracture', 'implant')", "MODEL.ROI_HEADS.NUM_CLASSES", "2")
        assert door.train(*keys)[0] == 0
        (train,), (val,) = door.started[0].DATASETS.TRAIN, door.started[0].DATASETS.TEST
        assert [a["category_id"] for item in DatasetCatalog.get(train) for a in item["annotations"]] == [1, 1, 1]
        assert [a["category_id"] for item in DatasetCatalog.get(val) for a in item["annotations"]] == [0]

    def test_only_fractured_images_train_with_a_warning(self, data, door, caplog):
        write(data, "train", "abc", fractured="abc")
        assert door.train("DATALOADER.FRACTURED_SHARE", "0.0")[0] == 0
        assert "each of 3 images is fractured" in caplog.text

    def test_training_without_validation_needs_no_val_json(self, data, door):
        (data / "val.json").unlink()
        assert door.train("DATASETS.TEST", "()")[0] == 0
        assert door.started[0].DATASETS.TEST == ()


class TestSources:
    @pytest.fixture
    def other(self, data):
        """A second source, with images i.png and j.png to train on, k.png and l.png to validate on."""
        folder = data / "other"
        (folder / "images").mkdir(parents=True)
        for name in "ijkl":
            write_image(folder / "images" / f"{name}.png", np.full((HEIGHT, WIDTH, 3), ord(name), np.uint8))
        write(folder, "train", "ij", fractured="i")
        write(folder, "val", "kl", fractured="k")
        return folder

    @staticmethod
    def train(door, first, second):
        words = ["--config-file", str(QUICK_CONFIG), "--data", f"{door.data}{first}", "--images"]
        words += [str(door.data / "images"), "--data", f"{door.data / 'other'}{second}", "--images"]
        code = train_command.main([*words, str(door.data / "other/images"), "OUTPUT_DIR", str(door.data / "run")])
        return code, door.capsys.readouterr().err

    def test_each_source_is_validated_on_and_drawn_by_its_size(self, door, other):
        assert self.train(door, "", "")[0] == 0
        (cfg,) = door.started
        assert [Path(name.partition("@")[0]) for name in cfg.DATASETS.TEST] == [
            door.data / "val.json",
            other / "val.json",
        ]
        assert cfg.DATALOADER.SOURCE_WEIGHTS == ()
        assert [item["source"] for item in training_images(cfg)] == [0] * 6 + [1] * 2

    def test_a_weight_behind_the_folder_says_how_often_it_is_drawn(self, door, other):
        assert self.train(door, "=2.5", "")[0] == 0
        assert door.started[0].DATALOADER.SOURCE_WEIGHTS == (2.5, 1.0)

    @pytest.mark.parametrize("weight", ["=0", "=-1", "=nan", "=inf"])
    def test_a_weight_is_above_nothing(self, door, other, weight):
        with pytest.raises(SystemExit, match="2"):
            self.train(door, "", weight)
        assert f"other{weight}: expected a weight above 0" in door.capsys.readouterr().err

    def test_a_folder_may_have_an_equals_sign_in_its_name(self, door, other):
        other.rename(door.data / "other=2")
        (door.data / "other").symlink_to("other=2")
        assert self.train(door, "", "=2")[0] == 0
        assert door.started[0].DATALOADER.SOURCE_WEIGHTS == ()
        assert "other=2" in door.started[0].DATASETS.TRAIN[1]

    @pytest.mark.parametrize("lacks", ["file", "images"])
    def test_a_further_source_needs_no_validation_images(self, door, other, lacks):
        if lacks == "file":
            (other / "val.json").unlink()
        else:
            write(other, "val", "", fractured="")
        assert self.train(door, "", "")[0] == 0
        assert len(door.started[0].DATASETS.TEST) == 1

    def test_a_broken_validation_file_of_a_further_source_is_refused(self, door, other):
        (other / "val.json").write_text("{")
        code, said = self.train(door, "", "")
        assert code == 2
        assert str(other / "val.json") in said

    def test_as_many_weights_as_sources(self, door):
        assert "SOURCE_WEIGHTS has 2 weights for 1 sources" in door.refuses("DATALOADER.SOURCE_WEIGHTS", "(1, 2)")

    def test_sources_are_called_by_what_tells_them_apart(self):
        assert source_names(["/a/fracatlas/val.json@x", "/a/science/val.json@y"]) == ["fracatlas", "science"]
        assert source_names(["/a/one/data/val.json@x", "/a/two/data/val.json@y"]) == ["one_data", "two_data"]


class TestDataThatAreRefused:
    def test_another_size_than_that_of_the_image(self, data, door):
        def change(content):
            for image in content["images"]:
                image["width"] = 60

        write(data, "train", "abcdef", fractured="abc", change=change)
        assert "6 of 6 images have another size than it says" in (said := door.refuses())
        assert "a.png (30 x 40, said to be 60 x 40)" in said

    def test_images_that_are_missing_or_cannot_be_read_are_all_listed(self, data, door):
        (data / "images" / "a.png").unlink()
        (data / "images" / "d.png").write_bytes(b"not an image")
        whole = (data / "images" / "e.png").read_bytes()
        (data / "images" / "e.png").write_bytes(whole[: len(whole) // 2])
        write(data, "val", "gh", fractured="")
        said = door.refuses()
        assert f"train.json: 1 of 6 images are not in {data / 'images'}: a.png" in said
        assert "train.json: 2 of 6 images cannot be read: d.png (" in said
        assert "e.png (" in said
        assert "val.json: none of 2 images has a box, so that AP is undefined" in said
        assert "DATASETS.TEST '()' trains without validation" in said

    def test_of_many_problems_the_first_ten_are_named_and_the_rest_counted(self, data, door):
        write(data, "train", "abcdef" + "ijklmnopqrst", fractured="abc")
        said = door.refuses()
        assert "12 of 18 images are not in" in said
        assert "r.png and 2 more" in said
        assert "s.png" not in said

    def test_another_class_is_named_beside_the_one_that_is_expected_and_how_to_map_it(self, data, door):
        write(data, "train", "abcdef", fractured="abc", categories=[{"id": 1, "name": "fractured"}])
        said = door.refuses()
        assert "categories ['fractured'], but DATASETS.CLASS_NAMES is ['fracture']" in said
        assert "--class-map fractured=fracture" in said

    @pytest.mark.parametrize(
        ("split", "names", "fractured", "said"),
        [
            ("train", "", "", "train.json: no image to train on"),
            ("train", "abc", "", "train.json: no fractured image to train on: none of 3 images has a box"),
            ("val", "", "", "val.json: no image to validate on; DATASETS.TEST '()' trains without validation"),
            ("val", "gh", "", "val.json: none of 2 images has a box, so that AP is undefined"),
        ],
    )
    def test_a_split_that_is_empty_or_all_healthy(self, data, door, split, names, fractured, said):
        write(data, split, names, fractured=fractured)
        assert said in door.refuses()

    def test_a_share_of_fractured_images_without_healthy_ones(self, data, door):
        write(data, "train", "abc", fractured="abc")
        assert "DATALOADER.FRACTURED_SHARE is 0.5" in door.refuses("DATALOADER.FRACTURED_SHARE", "0.5")

    def test_images_that_both_train_and_validate(self, data, door):
        write(data, "val", "ga", fractured="g")
        assert "1 of 2 validation images are also trained on" in (said := door.refuses())
        assert str(data / "images" / "a.png") in said

    @pytest.mark.parametrize("group", ["patient 7", "a.png"])
    def test_a_group_that_both_trains_and_validates(self, data, door, group):
        def change(content):
            for image in content["images"]:
                image["group"] = group if image["file_name"] in ("a.png", "g.png") else image["file_name"]

        write(data, "train", "abcdef", fractured="abc", change=change)
        write(data, "val", "gh", fractured="g", change=change)
        assert "1 groups (one patient, or copies) are both trained and validated on" in (said := door.refuses())
        assert group in said

    def test_the_groups_of_the_split_beside_it(self, data, door):
        files = {f"{name}.png": {"split": "train", "group": f"p{name in 'fg'}", "sha256": ""} for name in "abcdefgh"}
        (data / "split.json").write_text(json.dumps({"format": "fracture_det split 1", "files": files}))
        assert "measure memory: pFalse, pTrue;" in door.refuses()

    def test_a_split_beside_it_that_cannot_be_read(self, data, door):
        (data / "split.json").write_text("{}")
        assert "not a split.json" in door.refuses()

    @pytest.mark.parametrize("near", [False, True])
    def test_a_copy_that_both_trains_and_validates(self, data, door, near):
        pixels, _ = draw_radiograph(np.random.default_rng(1), fractured=True, size=(HEIGHT, WIDTH))
        write_image(data / "images" / "a.png", pixels)
        write_image(data / "images" / "g.png", pixels // 2 * 2 if near else pixels)
        said = door.refuses()
        assert "1 validation images are copies of training images" in said
        assert f"{data / 'images' / 'g.png'} (as {data / 'images' / 'a.png'})" in said

    @pytest.mark.parametrize(
        "fields",
        [{"bbox": [4, 5, -10, 12]}, {"bbox": [4, 5, 10, 0]}, {"bbox": [400, 5, 10, 12]}, {"bbox": [4, 5, 10]}],
        ids=["negative", "no-area", "outside", "three-numbers"],
    )
    def test_an_impossible_box(self, data, door, fields):
        write(data, "train", "abcdef", fractured="abc", **fields)
        assert "train.json" in door.refuses()

    def test_image_ids_that_repeat(self, data, door):
        def change(content):
            content["images"][1]["id"] = content["images"][0]["id"]

        write(data, "train", "abcdef", fractured="acd", change=change)
        assert "train.json" in door.refuses()

    @pytest.mark.parametrize("text", ["", "[]", '{"images": []}', "\xff"])
    def test_a_file_that_is_not_coco(self, data, door, text):
        (data / "train.json").write_text(text, encoding="latin-1")
        assert "train.json" in door.refuses()

    def test_folders_that_are_not_there_are_named_with_their_option(self, data, capsys):
        words = ["--config-file", str(QUICK_CONFIG)]
        for arguments, said in (
            (["--data", "/nope", "--images", str(data)], "--data /nope: no such folder"),
            (["--data", str(data), "--images", "/nope"], "--images /nope: no such folder"),
            (["--data", str(data / "train.json"), "--images", str(data)], "train.json: a file, not a folder"),
        ):
            assert train_command.main([*words, *arguments]) == 2
            assert said in capsys.readouterr().err


class TestCrowds:
    def test_images_with_crowd_regions_are_left_out_of_training_and_counted(self, caplog):
        crowd = {"bbox": [1, 1, 5, 5], "category_id": 0, "iscrowd": 1}
        items = [{"annotations": [crowd]}, {"annotations": [crowd | {"iscrowd": 0}]}, {"annotations": []}]
        with caplog.at_level(logging.WARNING):
            assert without_crowds(items) == items[1:]
        assert "1 of 3 images are left out: they have regions marked iscrowd" in caplog.text

    def test_they_are_read_from_the_file(self, data):
        write(data, "train", "abcdef", fractured="abc", iscrowd=1)
        name = f"{data / 'train.json'}@{data / 'images'}"
        register_datasets([name], ["fracture"])
        assert len(without_crowds(DatasetCatalog.get(name))) == 3

    def test_where_nothing_else_is_fractured_they_are_mentioned(self, data, door):
        write(data, "train", "abcdef", fractured="abc", iscrowd=1)
        assert "none of 3 images has a box (3 more with regions marked iscrowd are left out)" in door.refuses()

    def test_the_evaluation_ignores_them(self, data):
        write(data, "val", "gh", fractured="gh", iscrowd=1)
        name = f"{data / 'val.json'}@{data / 'images'}"
        register_datasets([name], ["fracture"])
        truth = LetterboxCOCOEvaluator(name, None)._coco_api
        assert [item["iscrowd"] for item in truth.loadAnns(truth.getAnnIds())] == [1, 1]


class TestOutputFolder:
    def test_another_run_is_refused_unless_it_is_resumed_or_overwritten(self, data, door):
        run = data / "run"
        run.mkdir()
        (run / "notes.txt").write_text("mine")
        assert door.train()[0] == 0
        for name in ("metrics.json", "model_0000003.pth", "model_final.pth", "log.txt", "events.out.tfevents.1.x"):
            (run / name).write_text("{}")
        door.started.clear()
        code, said = door.train()
        assert (code, door.started) == (2, [])
        assert f"OUTPUT_DIR {run}: holds another run (events.out.tfevents.1.x, log.txt, metrics.json, " in said
        assert len(list(run.iterdir())) == 6
        assert door.train("--resume")[0] == 0
        assert len(list(run.iterdir())) == 6
        assert door.train("--overwrite")[0] == 0
        assert [path.name for path in run.iterdir()] == ["notes.txt"]

    def test_nothing_is_removed_while_an_input_is_wrong(self, data, door):
        (data / "run").mkdir()
        (data / "run" / "model_final.pth").write_text("")
        write(data, "val", "", fractured="")
        assert door.train("--overwrite")[0] == 2
        assert (data / "run" / "model_final.pth").exists()

    def test_weights_that_overwrite_would_remove_are_not(self, data, door):
        weights = data / "run" / "model_best.pth"
        weights.parent.mkdir()
        weights.write_text("")
        code, said = door.train("--overwrite", "MODEL.WEIGHTS", str(weights))
        assert code == 2
        assert f"--overwrite would remove {weights}, which MODEL.WEIGHTS names" in said
        assert weights.exists()

    def test_resume_and_overwrite_contradict_each_other(self, door):
        assert "give only one" in door.refuses("--resume", "--overwrite")

    def test_a_file_in_its_place(self, data, door):
        (data / "file").write_text("")
        said = door.refuses("OUTPUT_DIR", str(data / "file" / "run"))
        assert f"{data / 'file'} is a file, not a folder" in said

    def test_an_empty_folder_may_be_resumed(self, data, door):
        assert door.train("--resume")[0] == 0

    @pytest.fixture
    def saved(self, data, door):
        """The folder of a run with its configuration."""
        assert door.train()[0] == 0
        (data / "run" / "config.yaml").write_text(door.started.pop().dump())
        return data / "run"

    def test_the_same_run_is_resumed_from_wherever_its_data_are_named(self, saved, door, data, monkeypatch, caplog):
        monkeypatch.chdir(data.parent)
        keys = [f"('{data.name}/{split}.json@{data.name}/images',)" for split in ("train", "val")]
        words = ["--config-file", str(QUICK_CONFIG), "--resume", "OUTPUT_DIR", str(saved)]
        assert train_command.main([*words, "DATASETS.TRAIN", keys[0], "DATASETS.TEST", keys[1]]) == 0
        assert "goes on with other settings" not in caplog.text

    def test_a_longer_training_is_resumed_with_a_warning_that_names_the_keys(self, saved, door, caplog):
        assert door.train("--resume", "SOLVER.EPOCHS", "20", "MODEL.DEVICE", "cpu")[0] == 0
        assert "goes on with other settings: SOLVER.EPOCHS 8 -> 20" in caplog.text

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("MODEL.FPN.OUT_CHANNELS", "32", "MODEL.FPN.OUT_CHANNELS 64 -> 32"),
            ("DATASETS.TEST", "()", "DATASETS.TEST "),
            ("SOLVER.EMA_DECAY", "0.0", "SOLVER.EMA_DECAY 0.98 -> 0.0"),
        ],
    )
    def test_another_model_or_other_data_are_not_resumed(self, saved, door, key, value, said):
        code, text = door.train("--resume", key, value)
        assert code == 2
        assert door.started == []
        assert "is of a run with another model or other data" in text
        assert said in text
        assert f"MODEL.WEIGHTS {saved / 'model_best.pth'}" in text


class TestSizeFromTheHeader:
    def test_the_size_is_that_of_the_upright_image(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        for name in ("a.jpg", "a.png", "a.tif"):
            Image.new("L", (50, 20)).save(tmp_path / name)
            Image.new("L", (50, 20)).save(tmp_path / f"turned_{name}", exif=exif)
            assert read_upright_size(tmp_path / name) == (20, 50)
            assert read_upright_size(tmp_path / f"turned_{name}") == read_radiograph(tmp_path / f"turned_{name}").size
        assert read_upright_size(tmp_path / "turned_a.jpg") == (50, 20)

    @pytest.mark.parametrize("suffix", ["jpg", "png"])
    def test_a_truncated_image_is_unreadable(self, tmp_path, suffix):
        path = tmp_path / f"a.{suffix}"
        noise = np.random.default_rng(1).integers(0, 256, (200, 300), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        assert read_upright_size(path) == (200, 300)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(UnreadableImage):
            read_upright_size(path)


def test_the_configuration_of_a_run_without_validation_has_no_best_checkpoint(data):
    cfg = load_config(QUICK_CONFIG, ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(data), "DATASETS.TEST", "()"])
    cfg.DATASETS.TRAIN = (f"{data / 'train.json'}@{data / 'images'}",)
    assert "BestCheckpoint" not in {type(hook).__name__ for hook in FractureTrainer(cfg)._hooks}
