"""The head's arithmetic, its file, and its fit on a few drawn pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fracture_det.cli.fit_suitability import main
from fracture_det.suitability.fit import PLAIN, Sample, choose_threshold, count_refused
from fracture_det.suitability.head import KINDS, Head, HeadError, shipped_head
from fracture_det.suitability.sources import SourceError, find_pictures, part_of_group, read_sources
from tests.builders import draw_radiograph, write_image
from tests.paths import ROOT

# One feature: h = max(0, x - 1); limb = h, the other kinds 0.
TOY = Head(
    mean=np.array([1.0]), scale=np.array([1.0]), hidden_weights=np.array([[1.0]]), hidden_bias=np.array([0.0]),
    weights=np.array([[1.0], [0.0], [0.0], [0.0]]), bias=np.zeros(4), threshold=0.5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("x", "limb"),
    [
        (0.0, 0.25),  # rectified: e0 / 4 e0
        (1.0, 0.25),
        (3.0, np.exp(2) / (np.exp(2) + 3)),
        (99.0, np.exp(6) / (np.exp(6) + 3)),  # clipped at six deviations
    ],
)
def test_probabilities(x, limb):
    probabilities = TOY.probabilities(np.array([x]))
    assert probabilities[0] == pytest.approx(limb)
    assert probabilities.sum() == pytest.approx(1)


def test_a_head_is_read_back(tmp_path):
    TOY.save(tmp_path / "head.json")
    again = Head.load(tmp_path / "head.json")
    assert again.probabilities(np.array([2.5])) == pytest.approx(TOY.probabilities(np.array([2.5])))
    assert again.threshold == TOY.threshold


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kinds", ["cat"], "expected .* got"),
        ("bias", [1.0], "Head.bias: expected the shape"),
        ("threshold", "high", "threshold"),
        ("format", "other", "expected"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, field, value, message):
    path = tmp_path / "head.json"
    TOY.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(HeadError, match=message):
        Head.load(path)


def test_the_shipped_head_knows_its_sources():
    fitted_on = shipped_head().fitted_on
    assert {"FracAtlas", "Science 2022", "Bone Break"} <= set(fitted_on["train"])
    assert not (set(fitted_on["train"]) & set(fitted_on["test"])) - {
        *("FracAtlas", "Science 2022", "Bone Break", "drawn pages", "drawn shapes")
    }


def film(x: float, source: str = "films", part: str = "val", kind: str = "limb") -> Sample:
    return Sample(source, kind, part, PLAIN, np.array([x]))


def test_the_threshold_is_that_of_the_worst_film_of_any_source():
    # .25 + .  P(3) = .711, P(4) = .870; with three films a source none may be refused: P(3) - .0005, rounded.
    samples = [film(x) for x in (4, 5, 6)] + [film(x, "others") for x in (3, 5, 6)]
    assert choose_threshold(TOY, samples) == pytest.approx(0.711, abs=0.001)
    assert choose_threshold(TOY, [*samples, film(0, part="test"), film(0, kind="other")]) == pytest.approx(
        0.711, abs=0.001
    )


def test_refusals_are_counted_by_source():
    rows = count_refused(TOY, [film(0, part="test"), film(3, part="test"), film(0, "cats", "test", "photograph")])
    assert [(row.source, row.refused, row.total) for row in rows] == [("films", 1, 2), ("cats", 1, 1)]


def test_a_group_has_one_part_everywhere():
    parts = [part_of_group(f"group {number}") for number in range(1000)]
    assert parts[:6] == [part_of_group(f"group {number}") for number in range(6)]
    assert 60 <= parts.count("test") <= 140
    assert 60 <= parts.count("val") <= 140


def test_a_folder_that_is_not_given_is_named():
    with pytest.raises(SourceError, match="fracatlas"):
        find_pictures(read_sources(ROOT / "configs/suitability/sources.yaml"), {})


def test_fitting_on_a_few_drawn_films(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for part in ("train", "val", "test"):
        (tmp_path / part).mkdir()
        for number in range(6):
            write_image(tmp_path / part / f"{number}.png", draw_radiograph(rng, fractured=False, size=(160, 128))[0])
    (tmp_path / "train" / "cut.png").write_bytes((tmp_path / "train" / "0.png").read_bytes()[:40])
    sources = [
        {"name": f"films {part}", "folder": f"{{here}}/{part}", "part": part} for part in ("train", "val", "test")
    ]
    listed = tmp_path / "sources.yaml"
    listed.write_text(json.dumps({"sources": sources, "drawn": {"train": 8, "val": 4, "test": 4}}))
    arguments = ["--sources", str(listed), "--out", str(tmp_path / "head.json")]
    assert main([*arguments, "--folder", f"here={tmp_path}"]) == 0
    said = capsys.readouterr()
    assert "| test | limb | films test | as it is |" in said.out
    assert "cut.png" in said.err
    head = Head.load(tmp_path / "head.json")
    assert head.fitted_on["train"] == {"films train": 6, "drawn pages": 8, "drawn shapes": 8}
    assert head.weights.shape[0] == len(KINDS)
    assert main(arguments) == 2
    assert "there is no folder" in capsys.readouterr().err
