"""`fracture-det watch`: references of a store and of images, and the simulation, as one types them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fracture_det.cli.watch import main
from fracture_det.data.coco import write_coco
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.inference.registry import DETECTORS
from fracture_det.inference.service import PredictionService
from fracture_det.monitoring.reference import load_reference
from tests.builders import draw_radiograph
from tests.monitoring.cases import drawn_counts
from tests.webapp.bright import BrightRectangles, dark_plate
from tests.webapp.conftest import LIKELY, encoded
from webapp import create_app
from webapp.settings import Settings
from webapp.store.models import WatchDayRow

FEW = ["--draws", "200"]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Give a store with 60 expired radiographs on each of two days, and one of today; a function adds others."""
    monkeypatch.setenv("FRACTURE_DATA_DIR", str(tmp_path / "instance"))
    with PredictionService(BrightRectangles()) as service:
        app = create_app(Settings.from_environ(), predictor=service)
        data = {"file": (io.BytesIO(encoded(dark_plate(LIKELY))), "a.png")}
        assert app.test_client().post("/api/v1/predictions", data=data).status_code == 201
        store = app.extensions["fracture"].store
        rng = np.random.default_rng(0)

        def add(day: str, sha256: str = "0" * 64, model: str = "bright rectangles") -> None:
            with store._database.writing() as session:
                counts = drawn_counts(rng, 60, judged=9, corrected=3).to_json()
                session.add(WatchDayRow(day=day, model_sha256=sha256, model=model, counts=counts))

        add("2026-01-05")
        add("2026-01-06")
        yield add
        store.close()


def test_a_reference_of_the_store(site, tmp_path, capsys):
    out = tmp_path / "watch.json"
    assert main(["reference", "--from-store", "--out", str(out), *FEW]) == 0
    made = load_reference(out)
    assert (made.detector_sha256, made.counts.images) == ("0" * 64, 121)
    assert (made.counts.judged, made.counts.corrected) == (18, 6)
    assert "121 radiographs; this site, 2026-01-05 to " in capsys.readouterr().out


def test_the_days_of_a_reference_are_chosen(site, tmp_path, capsys):
    out = tmp_path / "watch.json"
    site("2026-01-07", "1" * 64, "the next one")
    arguments = ["reference", "--from-store", "--out", str(out), *FEW, "--since", "2026-01-05"]
    assert main(arguments) == 2
    assert "several detectors served in these days: bright rectangles, the next one" in capsys.readouterr().err
    assert main([*arguments, "--until", "2026-01-07"]) == 0
    assert load_reference(out).about == "this site, 2026-01-05 to 2026-01-06, bright rectangles"
    assert main([*arguments, "--until", "2026-01-06"]) == 2
    assert "expected at least 100 radiographs, got 60" in capsys.readouterr().err
    assert main([*arguments, "--until", "2026-01-05"]) == 2
    assert "the store has no radiograph of these days" in capsys.readouterr().err


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Give 120 drawn radiographs of two body parts as a data set, and the bright rectangles as a detector."""
    monkeypatch.setitem(DETECTORS, "bright", "tests.webapp.bright:BrightRectangles.open")
    (tmp_path / "images").mkdir()
    records = []
    shown = [
        np.asarray(draw_radiograph(np.random.default_rng(index), fractured=index % 2 == 0)[0]) for index in range(20)
    ]
    for index in range(120):
        picture = shown[index % 20] // 2 + np.uint8(index % 7)
        name = f"{index:03}.png"
        Image.fromarray(picture).save(tmp_path / "images" / name)
        records.append(ImageRecord(index + 1, name, *picture.shape[:2], name, anatomy="hand" if index < 60 else "leg"))
    write_coco(Dataset(tuple(records), ("fracture",)), tmp_path / "val.json")
    return ["--data", str(tmp_path / "val.json"), "--images", str(tmp_path / "images"), "--detector", "bright:0"]


@pytest.mark.slow
def test_a_reference_of_images_and_the_simulation(drawn, tmp_path, capsys):
    out = tmp_path / "watch.json"
    assert main(["reference", *drawn, "--out", str(out), *FEW]) == 0
    made = load_reference(out)
    assert made.counts.images == 120
    assert {part: counts.images for part, counts in made.strata.items()} == {"hand": 60, "leg": 60}
    assert sum(made.counts.findings.values()) == 120
    capsys.readouterr()
    arguments = [*drawn, "--out", str(tmp_path / "sim"), "--every", "6", "--runs", "5", "--references", "2"]
    assert main(["simulate", *arguments, *FEW, "--neighbours", str(tmp_path / "val.json")]) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if line.startswith("| ")]
    assert sum(line.startswith("| 1 image ") for line in rows) == 2
    assert any("neighbours" in line for line in rows)
    assert any(line.startswith("| inverted ") for line in rows)
    assert any(line.startswith("| hand only ") for line in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reference", "--data", "x.json", "--out", "y.json"], "--data: needs --images"),
        (["reference", "--from-store", "--since", "5 May", "--out", "y.json"], "--since"),
        (["reference", "--out", "y.json"], "--from-store"),
    ],
)
def test_wrong_requests(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
