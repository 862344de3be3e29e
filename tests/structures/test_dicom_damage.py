"""DICOM files that are broken, or made to break a reader: refused, soon, and in little memory."""

import io
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from fracture_det.structures import dicom_frames
from fracture_det.structures.dicom_elements import MAX_DEPTH, MAX_ELEMENTS
from fracture_det.structures.radiograph import (
    MAX_PIXELS,
    DamagedImage,
    ImageTooLarge,
    UnreadableImage,
    decoding_bytes,
    read_radiograph,
)
from tests.structures.dicom_damage import DAMAGES, whole_files
from tests.structures.dicoms import dicom, jpeg_2000, pydicom, recoded

FILM = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40)
DEEP = {"BitsStored": 12, "WindowCenter": 1000, "WindowWidth": 2000}


def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
    """Return an element in explicit little endian."""
    if kind in (b"OB", b"OW", b"SQ", b"UN"):
        return struct.pack("<HH2sHI", group, number, kind, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, kind, len(value)) + value


def inserted(data: bytes, extra: bytes) -> bytes:
    """Return a file in explicit little endian with elements before its pixels."""
    place = data.rindex(b"\xe0\x7f\x10\0OW")
    return data[:place] + extra + data[place:]


class TestMissingPixels:
    @pytest.mark.parametrize("syntax", ["explicit", "implicit", "big"])
    def test_fewer_than_rows_and_columns_are_never_a_picture(self, syntax):
        for change in ({"Rows": 49}, {"Columns": 41}, {"Rows": 480}):
            with pytest.raises(DamagedImage, match="truncated: 3,840 bytes of Pixel Data"):
                read_radiograph(dicom(FILM, syntax, **change))
        with pytest.raises(DamagedImage, match=r"truncated: its element \(7FE0,0010\)"):
            read_radiograph(dicom(FILM, syntax)[:-2])
        with pytest.raises(DamagedImage, match="40 pixels have 1,920"):
            read_radiograph(dicom(FILM, syntax, Rows=24))

    @pytest.mark.parametrize("coding", ["jpeg lossless", "jpeg extended 12", "jpeg-ls", "rle"])
    def test_a_frame_that_is_cut_off_is_refused_with_and_without_its_end(self, coding, tmp_path):
        film = np.random.default_rng(1).integers(0, 4096, (64, 64)).astype(np.uint16)
        data = recoded(dicom(film, **DEEP), coding, tmp_path)
        ds = pydicom.dcmread(io.BytesIO(data))
        frame = pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)
        for share in (0.3, 0.9):
            cut = frame[: int(len(frame) * share)]
            for end in (b"", frame.rstrip(b"\0")[-2:]):
                with pytest.raises(DamagedImage):
                    read_radiograph(dicom(film, ds.file_meta.TransferSyntaxUID, frame=cut + end, **DEEP))

    def test_jpeg_2000_that_is_cut_off(self):
        film = np.random.default_rng(1).integers(0, 4096, (64, 64)).astype(np.uint16)
        data = jpeg_2000(film, "1.2.840.10008.1.2.4.90", **DEEP)
        frame = pydicom.encaps.get_frame(pydicom.dcmread(io.BytesIO(data)).PixelData, 0, number_of_frames=1)
        for share in (0.3, 0.9):
            for end in (b"", b"\xff\xd9"):
                cut = frame[: int(len(frame) * share)] + end
                with pytest.raises(DamagedImage):
                    read_radiograph(dicom(film, "1.2.840.10008.1.2.4.90", frame=cut, **DEEP))


class TestContradictions:
    @pytest.mark.parametrize("coding", ["jpeg lossless", "jpeg-ls", "rle"])
    def test_a_frame_of_another_size_than_its_data_set_never_reaches_a_decoder(self, coding, tmp_path, monkeypatch):
        data = recoded(dicom(FILM, **DEEP), coding, tmp_path)
        monkeypatch.setattr(dicom_frames, "DECODER", tmp_path / "absent.py")
        for number in (0x10, 0x11):  # Rows, Columns
            harmed = bytearray(data)
            place = data.index(struct.pack("<HH2s", 0x28, number, b"US")) + 8
            harmed[place : place + 2] = struct.pack("<H", 9_000)
            with pytest.raises(DamagedImage, match="frame" if coding == "rle" else "the data set says"):
                read_radiograph(bytes(harmed))

    def test_jpeg_2000_of_another_size_depth_or_number_of_channels(self):
        data = jpeg_2000(FILM, "1.2.840.10008.1.2.4.90", **DEEP)
        siz = data.index(b"\xff\x4f\xff\x51") + 8
        for place, value in ((0, 9_000), (4, 9_000), (8, 39), (16, 0)):
            harmed = bytearray(data)
            harmed[siz + place : siz + place + 4] = struct.pack(">I", value)
            with pytest.raises(DamagedImage, match="JPEG 2000 frame"):
                read_radiograph(bytes(harmed))
        harmed = bytearray(data)
        harmed[siz + 34] = 37  # bits, less one
        with pytest.raises(DamagedImage, match="of 38 bits, the data set has room for 16"):
            read_radiograph(bytes(harmed))


class TestBombs:
    def test_sizes_are_known_from_the_header(self):
        for rows, columns in ((65_535, 65_535), (9_000, 9_000)):
            data = dicom(FILM, Rows=rows, Columns=columns)
            with pytest.raises(ImageTooLarge, match=f"{columns:,} x {rows:,} pixels"):
                read_radiograph(data)
            assert decoding_bytes(data) == 0
        assert decoding_bytes(dicom(FILM)) < decoding_bytes(jpeg_2000(FILM, "1.2.840.10008.1.2.4.90", **DEEP))

    def test_a_deflated_data_set_is_unfolded_no_further_than_a_picture_can_be(self):
        head = dicom(FILM, "deflated")
        start = 144 + int.from_bytes(head[140:144], "little")
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        zeros = element(0x9, 0x10, b"OB", b"")[:-4] + struct.pack("<I", 1 << 30)
        packed = packer.compress(zeros) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(1_024))
        bomb = head[:start] + packed + packer.flush()
        assert len(bomb) < 2_000_000
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ImageTooLarge, match="unfolds to more than"):
            read_radiograph(bomb)
        assert decoding_bytes(bomb) == 0
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB

    def test_many_elements_and_deep_sequences(self):
        many = b"".join(element(0x9, 0x10 + n % 60_000, b"CS", b"") for n in range(MAX_ELEMENTS))
        with pytest.raises(DamagedImage, match="more than 20,000 elements"):
            read_radiograph(inserted(dicom(FILM), many))
        item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        sequence = struct.pack("<HH2sHI", 0x9, 0x10, b"SQ", 0, 0xFFFFFFFF) + item
        with pytest.raises(DamagedImage, match=f"nested in more than {MAX_DEPTH} levels"):
            read_radiograph(inserted(dicom(FILM), sequence * 5_000))

    @pytest.mark.parametrize("name", ["WindowCenter", "PatientID", "BodyPartExamined"])
    def test_values_of_megabytes(self, name):
        tag = pydicom.datadict.tag_for_keyword(name)
        long = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"UN", 0, 4_000_000) + b"1\\" * 2_000_000
        ds = dicom(FILM)
        place = ds.find(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
        if place > 0:
            size = int.from_bytes(ds[place + 6 : place + 8], "little")
            data = ds[:place] + long + ds[place + 8 + size :]
        else:
            data = inserted(ds, long)
        if name == "PatientID":  # which nobody asked for
            assert read_radiograph(data).size == FILM.shape
        else:
            with pytest.raises(DamagedImage, match=f"its {name} has 4,000,000 bytes"):
                read_radiograph(data)

    def test_the_decoder_has_limits_and_its_end_is_told_as_damage(self, tmp_path, monkeypatch):
        data = jpeg_2000(FILM, "1.2.840.10008.1.2.4.90", **DEEP)
        for program in ("import os; os.abort()", "bytes(10**12)", "while True: pass", "print('x' * 10)"):
            code = (
                "import json, resource, sys\nrequest = json.loads(sys.argv[1])\n"
                "resource.setrlimit(resource.RLIMIT_AS, (request['bytes'],) * 2)\n"
                f"resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nassert request['seconds'] > 1\n{program}\n"
            )
            (tmp_path / "decoder.py").write_text(code)
            monkeypatch.setattr(dicom_frames, "DECODER", tmp_path / "decoder.py")
            with pytest.raises(DamagedImage):
                read_radiograph(data)

    @pytest.mark.parametrize("limit", ["DECODER_BYTES", "DECODER_S"])
    def test_the_decoder_keeps_its_limits(self, limit, monkeypatch):
        data = jpeg_2000(FILM, "1.2.840.10008.1.2.4.90", **DEEP)
        assert read_radiograph(data).size == FILM.shape
        monkeypatch.setattr(dicom_frames, limit, {"DECODER_BYTES": 30_000_000, "DECODER_S": 0}[limit])
        with pytest.raises(DamagedImage, match="JPEG 2000 frame"):
            read_radiograph(data)


class TestDamagedFiles:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_no_damage_to_what_is_decoded_here_gets_another_error(self, damage, tmp_path):
        """`benchmarks/damaged_dicom.py` does the same to thousands, of every coding."""
        for number, (_, data) in enumerate(whole_files(tmp_path, coded=False).items()):
            for turn in range(25):
                harmed = DAMAGES[damage](bytearray(data), np.random.default_rng((number, turn)))
                try:
                    assert read_radiograph(harmed).pixels.size <= 3 * MAX_PIXELS
                except UnreadableImage:
                    continue

    @pytest.mark.parametrize("damage", ["the beginning of the frame", "an extreme pixel description", "cut off"])
    def test_nor_to_what_is_decoded_by_others(self, damage, tmp_path):
        for number, (_, data) in enumerate(whole_files(tmp_path, coded=True).items()):
            harmed = DAMAGES[damage](bytearray(data), np.random.default_rng(number))
            try:
                assert read_radiograph(harmed).size[0] > 0
            except UnreadableImage:
                continue


PEAK = """
import resource, sys
from fracture_det.structures.radiograph import decoding_bytes, read_radiograph
read_radiograph(sys.argv[1])  # a small one: what libraries take once is not counted
data = open(sys.argv[2], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_radiograph(data)
taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
taken += resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(1024 * taken, decoding_bytes(data))
"""


@pytest.mark.parametrize("kind", ["8 bits", "16 bits", "deflated", "jpeg 2000", "jpeg lossless", "rle"])
def test_reading_takes_no_more_memory_than_its_header_lets_expect(kind, tmp_path):
    """What a decoder's process takes is counted too, unlike its program and its libraries, some 100 MB."""

    def write(side):
        ramp = np.linspace(0, 4_000, side * side).reshape(side, side).astype(np.uint16)
        data = dicom((ramp // 16).astype(np.uint8)) if kind == "8 bits" else dicom(ramp, **DEEP)
        if kind == "deflated":
            data = dicom(ramp, kind, **DEEP)
        elif kind == "jpeg 2000":
            data = jpeg_2000(ramp, "1.2.840.10008.1.2.4.90", **DEEP)
        elif kind in ("jpeg lossless", "rle"):
            data = recoded(data, kind, tmp_path)
        path = tmp_path / f"{side}.dcm"
        path.write_bytes(data)
        return path

    command = [sys.executable, "-c", PEAK, str(write(200)), str(write(2_000))]
    taken, expected = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert expected >= 4_000_000 * 8
    assert taken <= 1.05 * expected + 8_000_000, (taken, expected)
