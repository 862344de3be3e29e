"""A page with a store of its own, whose readers give feedback, and what its snapshots hold."""

import io
import json
import time

import numpy as np

from fracture_det.data.coco import read_coco
from tests.webapp.bright import dark_plate
from tests.webapp.conftest import LIKELY, encoded
from tools import snapshot

SPLITS = ("train", "val", "test")


RIGHT = {"boxes": [{"number": 1, "verdict": "right", "type": "spiral"}]}


TODAY = f"{time.strftime('%Y-%m-%d', time.gmtime())}-"


def plate(number):
    """Return a plate (H, W) with one likely box among dim squares, by which no other is a near copy of it."""
    rng = np.random.default_rng(number)
    squares = [
        (x, y, x + 16, y + 16, 60)
        for x in range(2, 150, 20)
        for y in range(2, 110, 20)
        if not (x < 70 and 10 < y < 60) and rng.random() < 0.5
    ]
    return dark_plate(LIKELY, *squares)


class Page:
    """The page with a store of its own; `say` uploads a picture and judges its box."""

    def __init__(self, app):
        self.app, self.client = app, app.test_client()
        self.store = app.extensions["fracture"].store

    def upload(self, pixels):
        data = {"file": (io.BytesIO(encoded(pixels)), "a.png")}
        return self.client.post("/api/v1/predictions?force=1", data=data).json["id"]

    def say(self, pixels, said=RIGHT):
        identifier = self.upload(pixels)
        assert self.client.put(f"/api/v1/predictions/{identifier}/feedback", json=said).status_code == 200
        return identifier

    def delete(self, identifier):
        assert self.store.results.delete(identifier, by="local")

    def picture(self, identifier):
        return self.store.results.get(identifier).image_path


def versions(out):
    numbered = [(json.loads((p / "snapshot.json").read_text())["number"], p) for p in out.glob("2*")]
    return [path for _, path in sorted(numbered)]


def make(out, *options):
    """Make a snapshot; return its folder, the newest."""
    assert snapshot.main(["--out", str(out), *options]) == 0
    return versions(out)[-1]


def splits(version):
    """Return {identifier: split} of the radiographs of a version."""
    return {r.file_name[:-4]: split for split in SPLITS for r in read_coco(version / f"{split}.json")}


def verify(folder, capsys):
    capsys.readouterr()
    code = snapshot.main(["--verify", str(folder)])
    return code, capsys.readouterr().out


def content_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
