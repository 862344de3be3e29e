"""De-identified copies: the same picture, pseudonyms that hold, and no byte of the patient."""

from __future__ import annotations

import io
from itertools import product

import numpy as np
import pytest

from fracture_det.cli.deidentify import main
from fracture_det.data.deidentified import deidentify_dicom
from fracture_det.structures.radiograph import (
    DamagedImage,
    UnreadableImage,
    UnsupportedImage,
    read_dicom_file,
    read_radiograph,
)
from tests.builders import draw_radiograph
from tests.structures.dicoms import PATIENT, dicom, jpeg_2000, jpeg_baseline, pydicom, real_file, written

SECRET = b"the secret of a site"
SEEDS = [word.lower() for value in PATIENT.values() for word in value.replace("^", " ").split() if len(word) > 4]


@pytest.fixture(scope="module")
def film():
    return draw_radiograph(np.random.default_rng(3), fractured=True, size=(153, 121))[0][:, :, 0].copy()


def seeds_in(data):
    lower = data.lower()
    return [seed for seed in (*SEEDS, "seed", "1.2.826.0.1.3680043.8.498.2") if seed.encode() in lower]


def forms(film):
    deep = film.astype(np.uint16) * 16
    window = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-D8700", "SRT", "Seeded hand"
    yield dicom(film, AnatomicRegionSequence=[item])
    yield dicom(4095 - deep, "big", PhotometricInterpretation="MONOCHROME1", **window)
    yield dicom(deep << 4, BitsStored=12, HighBit=15, WindowCenter=2048, WindowWidth=4096)
    yield dicom((deep.astype(np.int32) - 2048).astype(np.int16), "implicit", **window | {"WindowCenter": 0})
    yield jpeg_2000(deep, "1.2.840.10008.1.2.4.90", **window)
    yield dicom(np.dstack([film] * 3), SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT")
    yield dicom(film, BodyPartExamined="SEEDED HAND", ViewPosition="SEED", PatientOrientation=["A", "SEED"])


def test_the_picture_is_the_same_and_nothing_of_the_patient_is_left(film):
    for data in forms(film):
        assert seeds_in(data)
        clean = deidentify_dicom(data, SECRET)
        assert not seeds_in(clean)
        before, after = read_radiograph(data), read_radiograph(clean)
        assert (before.pixels == after.pixels).all()
        assert before.spacing_mm == after.spacing_mm
        ds = pydicom.dcmread(io.BytesIO(clean))
        assert (ds.PatientIdentityRemoved, str(ds.DeidentificationMethod)) == ("YES", "DICOGNITO")
        assert not [element for element in ds.iterall() if element.tag.is_private]
        assert ds.PatientName == ds.PatientID


def test_real_files_keep_their_picture_and_tables():
    for name in ("RG3_J2KR.dcm", "vlut_04.dcm", "mlut_18.dcm"):
        data = real_file(name)
        assert (read_radiograph(deidentify_dicom(data, SECRET)).pixels == read_radiograph(data).pixels).all()


def test_a_comment_in_a_coded_frame_and_writing_in_unused_bits_are_gone(film):
    import cv2

    coded = cv2.imencode(".jpg", film)[1].tobytes()
    commented = coded[:2] + b"\xff\xfe\0\x0dSeeded name" + coded[2:]
    assert not seeds_in(deidentify_dicom(jpeg_baseline(film, commented), SECRET))
    hidden = film.astype(np.uint16) | 0x5300
    clean = pydicom.dcmread(io.BytesIO(deidentify_dicom(dicom(hidden, BitsStored=8), SECRET)))
    assert np.frombuffer(clean.PixelData, np.uint16).max() < 256


def test_pseudonyms_hold_within_a_site(film):
    first, second = (
        pydicom.dcmread(io.BytesIO(deidentify_dicom(dicom(film, SOPInstanceUID=f"1.2.{n}"), SECRET))) for n in (3, 4)
    )
    other = pydicom.dcmread(io.BytesIO(deidentify_dicom(dicom(film, SOPInstanceUID="1.2.3"), SECRET + b"!")))
    assert first.PatientID == second.PatientID != other.PatientID
    assert first.StudyInstanceUID == second.StudyInstanceUID != other.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID


@pytest.mark.parametrize(
    ("keyword", "vr", "attributes"),
    [
        ("NominalScannedPixelSpacing", "DS", {"PixelSpacing": [0.1, 0.1]}),
        ("WindowCenter", "DS", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "colours": True}),
        ("RescaleIntercept", "LO", {}),
    ],
)
def test_a_name_where_a_number_belongs_is_refused_and_not_quoted(film, keyword, vr, attributes):
    pixels = np.dstack([film] * 3) if attributes.pop("colours", False) else film
    data = pydicom.dcmread(io.BytesIO(dicom(pixels, **attributes)))
    value = b"SEEDED^WILHELMINA "
    tag = pydicom.tag.Tag(keyword)
    data[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True)
    with pytest.raises(DamagedImage, match=f"its {keyword} ") as refusal:
        deidentify_dicom(written(data, data.file_meta.TransferSyntaxUID), SECRET)
    assert not seeds_in(str(refusal.value).encode())


NUMBERS = (
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "WindowCenter", "WindowWidth"),
    *("RescaleSlope", "RescaleIntercept", "Rows", "Columns", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "SOPClassUID", "Modality", "PatientOrientation"),
)


def outcome(data):
    """Return the header of a copy without the patient, or the sentence of its refusal, as bytes."""
    try:
        clean = deidentify_dicom(data, SECRET)
    except UnreadableImage as refusal:
        return str(refusal).encode()
    read_radiograph(clean)
    return clean[: clean.index(b"\xe0\x7f\x10\x00")]


@pytest.mark.parametrize("keyword", NUMBERS)
def test_no_attribute_takes_the_number_of_a_patient_along(film, keyword):
    tag = pydicom.tag.Tag(keyword)
    representations = ("LO", "UN") if keyword == "SOPClassUID" else ("DS", "IS", "LO", "SH", "UN", "US", "FD")
    for vr, has_window, is_second in product(representations, (False, True), (False, True)):
        window = {"WindowCenter": 128, "WindowWidth": 256} if has_window else {}
        data = pydicom.dcmread(io.BytesIO(dicom(film, **window)))
        value = b"7730441 "
        if is_second:  # behind the value that is there
            value = (str(data[tag].value) if tag in data else "1").encode() + b"\\" + value
        value += b" " * (len(value) % 2)
        data[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True)
        said = outcome(written(data, data.file_meta.TransferSyntaxUID))
        assert not [digits for digits in (b"773044", b"7.73044") if digits in said], (vr, has_window, is_second)


def curve(first, count, bits, *, wild=False):
    entries = np.linspace(0, 2**bits - 1, count).astype("<u2")
    if wild:
        entries.view(np.uint8)[:7] = np.frombuffer(b"7730441", np.uint8)
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [count, first % 65_536, bits])
    item.add_new("LUTData", "OW", entries.tobytes() + b"SEEDED^WILHELMINA ")
    return item


@pytest.mark.parametrize(
    "attributes",
    [
        {"RescaleSlope": "0.5", "RescaleIntercept": "-1024", "WindowCenter": -300, "WindowWidth": 900},
        {"RescaleSlope": "-1", "RescaleIntercept": "4095", "WindowCenter": 2047.5, "WindowWidth": 3000},
        {"RescaleSlope": "2", "RescaleIntercept": "7730441"},
        {"RescaleSlope": "-2", "RescaleIntercept": "7730441"},
        {"RescaleSlope": "2", "RescaleIntercept": "3", "VOILUTSequence": [curve(500, 4096, 12)]},
        {"RescaleSlope": "-1", "RescaleIntercept": "0", "VOILUTSequence": [curve(-4095, 4096, 16)]},
        {"ModalityLUTSequence": [curve(100, 2048, 16)], "WindowCenter": 30000, "WindowWidth": 20000},
        {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID", "RescaleSlope": "3"},
        {"WindowCenter": 2000, "WindowWidth": 1000, "PixelPaddingValue": 0, "PixelPaddingRangeLimit": 100},
        {"PixelSpacing": ["0.1389999985", "0.139"]},
    ],
)
def test_numbers_are_written_anew_and_the_picture_is_the_same(film, attributes):
    deep = film.astype(np.uint16) * 16
    data = dicom(deep, BitsStored=12, **attributes)
    clean = deidentify_dicom(data, SECRET)
    before, after = read_radiograph(data), read_radiograph(clean)
    assert np.ptp(before.pixels) > 100
    assert abs(before.pixels.astype(int) - after.pixels).max() <= 1
    assert (before.samples.values == after.samples.values).all()
    assert after.spacing_mm == pytest.approx(before.spacing_mm, rel=1e-5) if before.spacing_mm else True
    assert not seeds_in(clean)
    assert b"7730441" not in clean


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"RescaleIntercept": "7730441", "WindowCenter": 128, "WindowWidth": 256}, "RescaleIntercept"),
        ({"WindowCenter": 7730441, "WindowWidth": 256}, "WindowCenter"),
        ({"WindowCenter": 128, "WindowWidth": 7730441}, "WindowWidth"),
        ({"VOILUTSequence": [curve(0, 256, 16, wild=True)]}, "VOILUTSequence"),
        ({"ModalityLUTSequence": [curve(0, 256, 16, wild=True)]}, "ModalityLUTSequence"),
    ],
)
def test_numbers_that_are_none_of_the_picture_are_refused(film, attributes, name):
    with pytest.raises(UnsupportedImage, match=name) as refusal:
        deidentify_dicom(dicom(film, **attributes), SECRET)
    assert "773" not in str(refusal.value)


def test_no_copy_is_written_over_another(film, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.dcm").write_bytes(dicom(film))
    (tmp_path / "in/b.dcm").write_bytes(dicom(film[::-1].copy()))
    (tmp_path / "in/c.dcm").write_bytes(dicom(film).replace(b"\x08\0\x18\0UI", b"\x08\0\x19\0UI", 1))
    monkeypatch.setenv("FRACTURE_SITE_SECRET", SECRET.decode())
    for _ in range(2):  # a second run writes the same files again
        assert main(["--input", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 1
        said = capsys.readouterr()
        assert "b.dcm: a DICOM file with the SOPInstanceUID of a.dcm" in said.err
        assert "c.dcm: a DICOM file without a SOPInstanceUID" in said.err
        assert "1 radiograph, 2 refused" in said.out
        (path,) = (tmp_path / "out").iterdir()
        assert (read_radiograph(path).pixels == read_radiograph(tmp_path / "in/a.dcm").pixels).all()


def test_the_command_writes_copies_and_names_what_it_refuses(film, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/IM0001").write_bytes(dicom(film))
    (tmp_path / "in/burned.dcm").write_bytes(dicom(film, BurnedInAnnotation="YES"))
    (tmp_path / "in/slice.dcm").write_bytes(dicom(film, Modality="CT"))
    words = ["--input", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    monkeypatch.delenv("FRACTURE_SITE_SECRET", raising=False)
    assert main(words) == 2
    monkeypatch.setenv("FRACTURE_SITE_SECRET", SECRET.decode())
    assert main(words) == 1
    said = capsys.readouterr()
    assert "burned.dcm: a DICOM file with writing burned into its picture" in said.err
    assert "slice.dcm: a DICOM file of computed tomography (CT)" in said.err
    assert "1 radiograph, 2 refused" in said.out
    (path,) = (tmp_path / "out").iterdir()
    assert read_dicom_file(path).sop_instance_uid == path.stem
    assert not seeds_in(path.read_bytes())
    with pytest.raises(UnsupportedImage, match="burned into"):
        deidentify_dicom((tmp_path / "in/burned.dcm").read_bytes(), SECRET)
