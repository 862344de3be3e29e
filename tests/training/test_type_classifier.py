"""The layer of a classifier of types: folds of whole groups, penalty, temperature; the command, on drawn pictures."""

import csv

import cv2
import numpy as np
import pytest

from fracture_det.cli.fit_types import main
from fracture_det.data.tables import MetadataError
from fracture_det.data.typed_pictures import read_typed_pictures
from fracture_det.inference.type_classifier import TypeClassifier
from fracture_det.training.type_classifier import answer_in_folds, fit_layer, fit_temperature

RANDOM = np.random.default_rng(0)


def test_what_separates_is_learnt_and_frequent_types_weigh_no_more():
    truth = np.repeat([0, 1], [90, 10])
    features = RANDOM.normal(0, 1, (100, 2, 5)).astype(np.float32)
    features[..., 0] += 3 * truth[:, None]
    layer = fit_layer(features, truth, 0.1)
    answers = layer.log_probabilities(features[:, 0]).argmax(axis=1)

    assert (answers == truth)[truth == 0].mean() > 0.85
    assert (answers == truth)[truth == 1].mean() > 0.85


def test_pictures_of_one_group_never_help_each_other():
    """Each group has features of its own and a random type: only who sees a group's pictures can tell it."""
    groups = np.repeat(np.arange(60), 3)
    truth = np.repeat(np.arange(60) % 3, 3)
    features = RANDOM.normal(0, 1, (60, 1, 40))[groups].astype(np.float32)
    apart = answer_in_folds(features, truth, [str(group) for group in groups])
    together = answer_in_folds(features, truth, [str(index) for index in range(len(groups))])

    assert (apart.probability.argmax(axis=1) == truth).mean() < 0.55
    assert (together.probability.argmax(axis=1) == truth).mean() > 0.75
    assert all(len(set(apart.fold[groups == group])) == 1 for group in range(60))


def test_the_temperature_undoes_too_much_confidence():
    truth = RANDOM.integers(0, 2, 4000)
    logits = np.zeros((4000, 2))
    said = np.where(RANDOM.random(4000) < 0.7, truth, 1 - truth)
    logits[np.arange(4000), said] = 4 * np.log(0.7 / 0.3)
    shift = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert fit_temperature(shift, truth) == pytest.approx(4.0, rel=0.15)


def draw(folder, rows):
    """Write pictures: of `spiral` a bar from top to bottom, of `avulsion` one across."""
    with (folder / "types.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "type", "source"])
        table.writerows(rows)
    for index, (name, kind, _) in enumerate(rows):
        random = np.random.default_rng(index)
        picture = random.integers(30, 70, (80, 80), dtype=np.uint8)
        place, width = int(random.integers(20, 60)), int(random.integers(6, 14))
        if kind == "avulsion":
            picture[place : place + width] = random.integers(180, 240)
        else:
            picture[:, place : place + width] = random.integers(180, 240)
        cv2.imwrite(str(folder / "images" / name), picture)


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path


def test_pictures_have_types_and_groups_and_problems_are_named(pictures):
    rows = [("a.png", "Spiral fracture", "x"), ("b.png", "avulsion", "x"), ("c.png", "spiral", "y")]
    draw(pictures, [*rows, ("d.png", "bent", "z"), ("e.png", "spiral", "z")])
    (pictures / "images" / "e.png").write_bytes(b"no picture")
    mirrored = cv2.flip(cv2.imread(str(pictures / "images" / "c.png")), 1)
    cv2.imwrite(str(pictures / "images" / "f.png"), mirrored)
    with (pictures / "types.csv").open("a") as file:
        file.write("f.png,spiral,w\ng.png,,w\n")
    cv2.imwrite(str(pictures / "images" / "g.png"), mirrored[::-1])
    found, problems = read_typed_pictures(pictures / "images", pictures / "types.csv", group_column="source")

    groups = {picture.file_name: picture.group for picture in found}
    assert {picture.file_name: picture.type for picture in found} == {
        "a.png": "spiral",
        "b.png": "avulsion",
        "c.png": "spiral",
        "f.png": "spiral",
    }
    assert groups["a.png"] == groups["b.png"] != groups["c.png"] == groups["f.png"]
    assert {(problem.file, problem.kind) for problem in problems} == {
        ("d.png", "unknown_type"),
        ("g.png", "unknown_type"),
        ("e.png", "unreadable_image"),
    }


def test_a_table_without_types_is_refused(pictures):
    draw(pictures, [("a.png", "left", "x")])
    with pytest.raises(MetadataError, match="states the type of no picture"):
        read_typed_pictures(pictures / "images", pictures / "types.csv")


def test_the_command_from_pictures_to_a_classifier(pictures, capsys):
    kinds = ["spiral", "avulsion"] * 12
    draw(pictures, [(f"{index:02}.png", kind, str(index)) for index, kind in enumerate(kinds)])
    out = pictures / "out"
    arguments = ["--images", pictures / "images", "--types", pictures / "types.csv", "--group-column", "source"]
    assert main([str(one) for one in [*arguments, "--out", out, "--sizes", "64", "96"]]) == 0

    report = (out / "report.md").read_text()
    assert "| Accuracy | 1.000 |" in report
    classifier = TypeClassifier(out)
    picture = cv2.imread(str(pictures / "images" / "00.png"), cv2.IMREAD_GRAYSCALE)
    assert classifier.config.type_names[int(classifier.probabilities(picture).argmax())] == "spiral"
    assert (out / "types_confusion.png").is_file()
    assert "written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value"),
    [("--accuracy", "7"), ("--min-score", "nan"), ("--min-score", "-3"), ("--seed", "-1"), ("--images", "nowhere")],
)
def test_an_option_that_cannot_be_used_is_named_at_once(pictures, capsys, option, value):
    arguments = ["--images", pictures, "--types", pictures / "types.csv", "--out", pictures / "out", option, value]
    assert main([str(one) for one in arguments]) == 2
    assert f"fit-types: {option}" in capsys.readouterr().err


def test_where_no_confidence_is_enough_none_is_named(pictures):
    kinds = ["spiral", "avulsion"] * 12
    draw(pictures, [(f"{index:02}.png", kind, str(index)) for index, kind in enumerate(kinds)])
    wrong = [f"{index:02}.png,{kinds[index // 2 % 2]},{index}\n" for index in range(24)]
    (pictures / "types.csv").write_text("file_name,type,source\n" + "".join(wrong))
    arguments = ["--images", pictures / "images", "--types", pictures / "types.csv", "--out", pictures / "out"]
    assert main([*map(str, arguments), "--sizes", "64", "--accuracy", "1"]) == 0

    config = TypeClassifier(pictures / "out").config
    assert (config.confidence, config.accuracy) == (1.0, None)
    assert "none is named" in (pictures / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("sizes", "kinds", "told"),
    [(["100"], ["spiral"], "--sizes"), (["64"], ["spiral"] * 12, "at least two types"), (["64"], [], "no picture")],
)
def test_what_cannot_be_fitted_is_refused(pictures, capsys, sizes, kinds, told):
    draw(pictures, [(f"{index:02}.png", kind, str(index)) for index, kind in enumerate(kinds)])
    arguments = ["--images", pictures / "images", "--types", pictures / "types.csv", "--out", pictures / "out"]
    assert main([*map(str, arguments), "--sizes", *sizes]) == 2
    assert told in capsys.readouterr().err
    assert not (pictures / "out").exists()
