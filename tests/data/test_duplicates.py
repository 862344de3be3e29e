"""Copies of one picture are found, pictures that only resemble each other are not."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from PIL import Image

from fracture_det.data.duplicates import identical_files, near_duplicates, similarity
from fracture_det.data.image_info import ImageInfo, read_image_infos
from fracture_det.structures.image_files import list_image_names
from tests.builders import build_dataset, draw_radiograph, write_image


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(3)
    return [draw_radiograph(rng, fractured=bool(k % 2), size=(400, 320))[0] for k in range(3)]


def probe_all(folder):
    return read_image_infos(folder, list_image_names(folder))


def test_other_compression_size_brightness_and_a_small_crop_are_found(tmp_path, pictures):
    original = pictures[0]
    write_image(tmp_path / "a.png", original)
    cv2.imwrite(str(tmp_path / "jpeg.jpg"), original, [cv2.IMWRITE_JPEG_QUALITY, 60])
    write_image(tmp_path / "small.png", cv2.resize(original, (200, 250), interpolation=cv2.INTER_AREA))
    write_image(tmp_path / "bright.png", np.clip(original * 1.1 + 10, 0, 255).astype(np.uint8))
    write_image(tmp_path / "shifted.png", np.roll(original, 13, axis=0)[13:])
    write_image(tmp_path / "b.png", pictures[1])
    pairs = {(first, second) for first, second, _ in near_duplicates(probe_all(tmp_path))}
    assert {("a.png", "jpeg.jpg"), ("a.png", "small.png"), ("a.png", "bright.png")} <= pairs
    assert not [pair for pair in pairs if "b.png" in pair]


def test_a_truncated_copy_is_found(tmp_path, pictures):
    cv2.imwrite(str(tmp_path / "a.jpg"), pictures[2])
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-60])
    infos = probe_all(tmp_path)
    assert "truncated" in infos[1].error
    assert [pair[:2] for pair in near_duplicates(infos)] == [("a.jpg", "cut.jpg")]


def test_a_turned_file_is_compared_upright(tmp_path, pictures):
    write_image(tmp_path / "a.png", pictures[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(pictures[0])).save(tmp_path / "turned.png", exif=exif)
    assert [pair[:2] for pair in near_duplicates(probe_all(tmp_path))] == [("a.png", "turned.png")]


def test_different_radiographs_of_one_style_are_not_duplicates(tmp_path):
    build_dataset(tmp_path, n_fractured=80, n_healthy=80, seed=1)
    assert near_duplicates(probe_all(tmp_path / "images")) == []


def test_blank_images_are_no_evidence_of_a_copy(tmp_path):
    for k in range(3):
        write_image(tmp_path / f"{k}.png", np.full((50, 50, 3), 10 * k, np.uint8))
    assert near_duplicates(probe_all(tmp_path)) == []
    flat = np.full((32, 32), 7, np.uint8)
    assert similarity(flat, flat) == -1


def test_identical_bytes_form_sorted_groups(tmp_path, pictures):
    for name in ("c.png", "a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_image(tmp_path / name, pictures[0])
    write_image(tmp_path / "other.png", pictures[1])
    assert identical_files(probe_all(tmp_path)) == [["a.png", "c.png", "sub/b.png"]]


def test_none_and_one_are_cases():
    assert near_duplicates([]) == []
    assert identical_files([]) == []
    assert near_duplicates([ImageInfo("a.png", (5, 5), 1, "0", np.zeros((32, 32), np.uint8))]) == []


def test_the_search_is_far_from_quadratic():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (6000, 32, 32), dtype=np.uint8)
    noise[5999] = noise[0]
    infos = [ImageInfo(f"{k:05d}.png", (32, 32), 1, str(k), thumbnail) for k, thumbnail in enumerate(noise)]
    start = time.perf_counter()
    pairs = near_duplicates(infos)
    assert [pair[:2] for pair in pairs] == [("00000.png", "05999.png")]
    assert time.perf_counter() - start < 20  # 18 million pairs would take many minutes
