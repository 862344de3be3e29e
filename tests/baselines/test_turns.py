"""Two detectors timed in turns, and the file that keeps it."""

import json

import numpy as np
import pytest

from fracture_det.baselines.speed.turns import TurnsError, measure_turns, read_turns
from fracture_det.inference.registry import open_detector
from tests.builders import draw_radiograph, write_image
from tests.detectors import write_random_detector


def test_both_are_timed_on_the_same_images_and_read_back(tmp_path):
    uris = [f"d2:{write_random_detector(tmp_path / name, seed=seed)}" for name, seed in (("one", 1), ("two", 2))]
    images = [tmp_path / f"{number}.png" for number in range(2)]
    for path in images:
        write_image(path, draw_radiograph(np.random.default_rng(3), fractured=True)[0])
    measured = measure_turns(*uris, images, rounds=1)
    assert (measured.images, measured.rounds) == (2, 1)
    for uri, timed in zip(uris, (measured.served, measured.candidate), strict=True):
        assert timed.sha256 == open_detector(uri).info.sha256
        assert timed.size_bytes == (tmp_path / timed_folder(uri) / "model.safetensors").stat().st_size
        assert timed.ms > 0
    assert measured.served.sha256 != measured.candidate.sha256
    digest = measured.save(tmp_path / "out" / "timing.json")
    assert read_turns(tmp_path / "out" / "timing.json") == (measured, digest)


def timed_folder(uri):
    return uri.rpartition("/")[2]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format": "another"}, "expected format 'fracture_det turns', version 1, got"),
        ({"images": "two"}, "images: expected a whole number, got 'two'"),
        ({"served": {"name": "s", "sha256": "a", "ms": 0, "size_bytes": 1}}, "expected ms and size_bytes above 0"),
    ],
)
def test_a_wrong_file_is_refused_by_field(tmp_path, change, error):
    timed = {"name": "s", "sha256": "a", "ms": 1.0, "size_bytes": 1}
    content = {"format": "fracture_det turns", "version": 1, "machine": "m", "images": 1, "rounds": 1}
    (tmp_path / "timing.json").write_text(json.dumps({**content, "served": timed, "candidate": timed, **change}))
    with pytest.raises(TurnsError) as raised:
        read_turns(tmp_path / "timing.json")
    assert str(raised.value).startswith(f"{tmp_path}/timing.json: ")
    assert error in str(raised.value)
