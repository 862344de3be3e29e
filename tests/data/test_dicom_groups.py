"""prepare on a folder of DICOM files: annotations by file name, groups by patient and study, and no patient's id."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fracture_det.data.coco import read_coco
from fracture_det.data.prepare import read_problems
from tests.builders import draw_radiograph, labelimg_xml, write_image
from tests.structures.dicoms import dicom
from tools.prepare_dataset import main

SECRET = "the secret of a site"
FILES = 24


def identity(index: int) -> dict[str, object]:
    """Return the tags of file `index`: two studies of two files for each patient; the last four have no Patient ID."""
    return {
        "PatientID": f"SEED-77304{index // 4:02}" if index < FILES - 4 else "",
        "StudyInstanceUID": f"1.2.826.0.1.77304.{index // 2}",
        "SeriesInstanceUID": f"1.2.826.0.1.77304.{index}.5",
        "BodyPartExamined": ("HAND", "KNEE")[index // 4 % 2],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("dicom"), np.random.default_rng(5)
    (root / "images").mkdir()
    (root / "annotations").mkdir()
    for index in range(FILES):
        pixels, boxes = draw_radiograph(rng, fractured=index % 4 != 3, size=(96, 80))
        name = f"IM{index:04}.dcm" if index % 2 else f"1.2.840.1.{index}.7.dcm"
        deep = pixels[:, :, 0].astype(np.uint16) * 16
        tags = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096, "Rows": 96, "Columns": 80}
        (root / "images" / name).write_bytes(dicom(deep, **identity(index), **tags))
        xml = labelimg_xml(root / "images" / name, pixels.shape, [("fracture", box) for box in boxes])
        (root / "annotations" / name).with_suffix(".xml").write_text(xml, encoding="utf-8")
    return root


def prepared(folder, out, *more):
    words = ["--images", folder / "images", "--annotations", folder / "annotations", "--out", out, "--workers", 1]
    return main([str(word) for word in (*words, *more)])


def groups_in(out):
    files = json.loads((out / "split.json").read_text())["files"]
    return {name: entry["group"] for name, entry in files.items()}


def test_patients_and_studies_are_never_divided_and_never_named(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FRACTURE_SITE_SECRET", SECRET)
    assert prepared(folder, tmp_path, "--format", "dicom") == 0
    found = groups_in(tmp_path)
    names = {int(name.split(".")[4] if name.startswith("1.2") else name[2:6]): name for name in found}
    assert len(found) == FILES
    of_patients = [{found[names[4 * patient + view]] for view in range(4)} for patient in range(FILES // 4 - 1)]
    assert all(len(groups) == 1 for groups in of_patients)
    assert len(set.union(*of_patients)) == FILES // 4 - 1
    without = [found[names[index]] for index in range(FILES - 4, FILES)]
    assert without[0] == without[1] != without[2] == without[3]
    records = [record for split in ("train", "val", "test") for record in read_coco(tmp_path / f"{split}.json")]
    assert {record.anatomy for record in records} == {"hand", "knee"}
    assert sum(record.fractured for record in records) == 18
    problems = [problem for problem in read_problems(tmp_path / "problems.csv") if problem.kind == "no_patient_id"]
    assert [problem.file for problem in problems] == sorted(names[index] for index in range(FILES - 4, FILES))
    for path in tmp_path.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"77304" not in content, path  # of ids and of UIDs
        assert SECRET.encode() not in content


def test_the_hashes_are_the_sites_or_of_one_run(folder, tmp_path, monkeypatch, capsys):
    groups = []
    for number, secret in enumerate((SECRET, SECRET, SECRET + "!", None, None)):
        monkeypatch.delenv("FRACTURE_SITE_SECRET", raising=False)
        if secret is not None:
            monkeypatch.setenv("FRACTURE_SITE_SECRET", secret)
        assert prepared(folder, tmp_path / str(number)) == 0
        assert ("hashes by a secret of this run" in capsys.readouterr().out) == (secret is None)
        groups.append(groups_in(tmp_path / str(number)))
    assert groups[0] == groups[1]
    for other in groups[2:]:
        assert not set(other.values()) & set(groups[0].values())
    assert groups[3] != groups[4]
    monkeypatch.setenv("FRACTURE_SITE_SECRET", "short")
    assert prepared(folder, tmp_path / "short") == 2
    assert "FRACTURE_SITE_SECRET: expected at least 16 characters, got 5" in capsys.readouterr().err


def test_format_dicom_takes_nothing_else(folder, tmp_path, capsys):
    pixels, _ = draw_radiograph(np.random.default_rng(1), fractured=False, size=(96, 80))
    path = folder / "images" / "other.png"
    write_image(path, pixels)
    try:
        assert prepared(folder, tmp_path, "--format", "dicom") == 2
        assert "--format dicom: other.png is no DICOM file" in capsys.readouterr().err
        assert prepared(folder, tmp_path / "mixed", "--missing-xml-is-healthy") == 0
        found = groups_in(tmp_path / "mixed")
        assert found["IM0001.dcm"] == found["IM0003.dcm"]
    finally:
        path.unlink()


def test_files_without_suffix_are_found_by_the_names_of_a_coco_file(tmp_path):
    rng, images, annotations = np.random.default_rng(7), [], []
    (tmp_path / "images").mkdir()
    for index in range(12):
        name = f"IM{index:04}" if index % 2 else f"1.2.840.113619.{index}"
        pixels, _ = draw_radiograph(rng, fractured=True, size=(96, 80))
        (tmp_path / "images" / name).write_bytes(dicom(pixels[:, :, 0].copy(), **identity(index)))
        images.append({"id": index + 1, "file_name": name, "width": 80, "height": 96})
        box = {"bbox": [20, 30, 25, 20], "area": 500, "iscrowd": 0}
        annotations.append({"id": index + 1, "image_id": index + 1, "category_id": 1, **box})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "fracture"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(content), encoding="utf-8")
    words = ["--images", tmp_path / "images", "--annotations", tmp_path / "boxes.json", "--out", tmp_path / "out"]
    assert main([str(word) for word in (*words, "--workers", 1, "--format", "dicom")]) == 0
    assert len(groups_in(tmp_path / "out")) == 12
    kinds = {problem.kind for problem in read_problems(tmp_path / "out/problems.csv")}
    assert not kinds & {"kind_not_read", "annotation_ambiguous"}
