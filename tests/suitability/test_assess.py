"""What is refused, and why, on pictures drawn here; and real films that fitting never saw."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from fracture_det.resources import resource
from fracture_det.structures.radiograph import Radiograph, read_radiograph
from fracture_det.suitability.assess import MIN_SIDE_PX, NOTES, REASONS, Suitability, assess
from fracture_det.suitability.sources import TEST, part_of_group
from tests.builders import draw_radiograph
from tests.paths import FRACATLAS, SCIENCE2022, present

BONEBREAK = Path(os.environ.get("BONEBREAK_DIR", FRACATLAS.parent / "bonebreak"))
SIZE = (320, 256)


def grey(plane: np.ndarray) -> Radiograph:
    return Radiograph(np.repeat(np.clip(plane, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2))


def film(seed: int = 0) -> np.ndarray:
    """A synthetic film as (H, W) grey."""
    return draw_radiograph(np.random.default_rng(seed), fractured=True, size=SIZE)[0][:, :, 0]


def drifted() -> np.ndarray:
    """The film after a coded stretch out of place: brightness fell, and only its brightest parts are left."""
    plane = film().astype(float)
    left = (plane - np.quantile(plane, 0.96)).clip(0)
    return left * (255 / left.max())


def page() -> np.ndarray:
    sheet = np.full((800, 600), 250, np.uint8)
    for line in range(30):
        text = "the quick brown fox jumps over the lazy dog"[line % 7 :]
        cv2.putText(sheet, text, (30, 40 + 25 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 20.0, 1, cv2.LINE_AA)
    return sheet


def scene() -> np.ndarray:
    """A street in colours (H, W, 3): sky, houses with windows, trees of leaves, a road with stones."""
    rng = np.random.default_rng(5)
    picture = np.zeros((400, 600, 3), np.uint8)
    picture[:150] = (120, 170, 230)
    for left in range(0, 600, 100):
        wall = tuple(int(value) for value in rng.integers(60, 230, 3))
        cv2.rectangle(picture, (left, int(rng.integers(40, 130))), (left + 90, 290), wall, -1)
        for x in range(left + 10, left + 80, 25):
            for y in range(150, 270, 40):
                cv2.rectangle(picture, (x, y), (x + 14, y + 22), (40, 50, 80), -1)
    for _ in range(1500):
        x, y = int(rng.integers(0, 600)), int(rng.normal(220, 40))
        cv2.circle(
            picture, (x, y), int(rng.integers(2, 6)), (int(rng.integers(20, 90)), int(rng.integers(80, 190)), 40), -1
        )
    picture[290:] = rng.normal((110, 105, 100), 25, (110, 600, 3)).clip(0, 255).astype(np.uint8)
    return picture


@pytest.mark.parametrize("seed", range(12))
def test_a_synthetic_film_is_analysed(seed):
    said = assess(grey(film(seed)))
    assert (said.ok, said.reason) == (True, None)
    assert said.probability > 0.5


@pytest.mark.parametrize(
    ("plane", "reason"),
    [
        (np.zeros(SIZE), "blank"),
        (np.full(SIZE, 255.0), "blank"),
        (np.full(SIZE, 90.0), "blank"),
        (90 + np.random.default_rng(0).normal(0, 1, SIZE), "blank"),
        (film() * 0.08, "underexposed"),
        (drifted(), "underexposed"),
        (230 + film() * 0.1, "overexposed"),
        (page(), "document"),
        (255 - page(), "document"),
        (cv2.cvtColor(scene(), cv2.COLOR_RGB2GRAY), "photograph"),
        (film()[:, : MIN_SIDE_PX - 1], "too_small"),
    ],
    ids=[
        "black",
        "white",
        "even",
        "noise",
        "dark",
        "drifted",
        "bright",
        "page",
        "dark page",
        "grey photograph",
        "small",
    ],
)
def test_a_refusal_has_its_reason(plane, reason):
    said = assess(grey(plane))
    assert (said.ok, said.reason) == (False, reason)
    assert said.sentence == REASONS[reason]


def test_a_photograph_is_told_by_its_colours():
    said = assess(Radiograph(scene()))
    assert (said.ok, said.reasons) == (False, ("colour_photograph",))
    assert said.probability < 0.1


def test_noise_is_no_radiograph():
    noise = np.random.default_rng(1).normal(128, 60, SIZE)
    assert assess(grey(noise)).ok is False


def test_a_tint_does_not_make_a_film_a_photograph():
    tinted = np.clip(film()[:, :, None] * np.array([0.85, 0.95, 1.0]) + np.array([0, 4, 14]), 0, 255)
    assert assess(Radiograph(tinted.astype(np.uint8))).ok


def test_films_side_by_side_are_named_and_analysed():
    both = np.hstack([film(1), np.full((SIZE[0], 10), 255, np.uint8), film(2)])
    for plane in (both, both.T):
        said = assess(grey(plane))
        assert (said.ok, said.reasons) == (True, ("several_films",))
    assert assess(grey(film(1))).reasons == ()


def test_the_small_limit_is_the_smallest_that_is_analysed():
    small = cv2.resize(film(), (MIN_SIDE_PX, 80), interpolation=cv2.INTER_AREA)
    assert assess(grey(small)).reason != "too_small"


def test_a_suitability_that_contradicts_itself_is_refused():
    for ok, reasons in ((True, ("blank",)), (False, ()), (False, NOTES), (False, ("nonsense",))):
        with pytest.raises(ValueError, match="Suitability"):
            Suitability(ok, 0.5, reasons)


def test_it_needs_no_torch():
    code = "import sys, fracture_det.suitability.assess; assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_films_of_fracatlas():
    folder = present(FRACATLAS / "images")
    split = msgspec.json.decode(resource("weights/shipped/split.json").read_bytes())["files"]
    check_films([folder / name for name, file in split.items() if file["split"] == TEST])


def test_single_films_of_fracatlas_are_not_called_several():
    folder = present(FRACATLAS / "images")
    with present(FRACATLAS / "dataset.csv").open(encoding="utf-8", newline="") as file:
        single = {row["image_id"] for row in csv.DictReader(file) if row["multiscan"] == "0"}
    split = msgspec.json.decode(resource("weights/shipped/split.json").read_bytes())["files"]
    paths = [folder / name for name, file in split.items() if file["split"] == TEST and Path(name).name in single]
    assert len(paths) > 100
    assert [path.name for path in paths if "several_films" in assess(read_radiograph(path)).reasons] == []


def test_films_of_science():
    folder = present(SCIENCE2022 / "images")
    check_films([path for path in sorted(folder.iterdir()) if part_of_group(path.name.split(".rf.")[0]) == TEST])


def test_films_of_bone_break():
    with present(BONEBREAK / "types.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if part_of_group(row["source"]) == TEST]
    check_films([BONEBREAK / "images" / row["image_id"] for row in rows])


def check_films(paths: list[Path]) -> None:
    """At most one film in a hundred, or one, is refused."""
    refused = [path.name for path in paths if not assess(read_radiograph(path)).ok]
    assert len(paths) > 50
    assert len(refused) <= max(1, len(paths) // 100), refused
