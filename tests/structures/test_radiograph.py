import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from fracture_det.structures.jpeg import MAX_SCANS, MAX_SEGMENTS
from fracture_det.structures.png import MAX_CHUNKS
from fracture_det.structures.radiograph import (
    MAX_PIXELS,
    DamagedImage,
    ImageTooLarge,
    Radiograph,
    UnreadableImage,
    UnsupportedImage,
    decoding_bytes,
    read_radiograph,
)


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def gradient():
    return np.linspace(0, 255, 60 * 40).reshape(40, 60).astype(np.uint8)


class TestReading:
    def test_grey_becomes_rgb(self, gradient):
        radiograph = read_radiograph(encode(Image.fromarray(gradient)))
        assert radiograph.size == (40, 60)
        assert all((radiograph.pixels[..., channel] == gradient).all() for channel in range(3))

    def test_a_file_reads_like_its_bytes(self, gradient, tmp_path):
        data = encode(Image.fromarray(gradient), "JPEG")
        path = tmp_path / "Röntgen 1.2.jpg"
        path.write_bytes(data)
        assert (read_radiograph(path).pixels == read_radiograph(data).pixels).all()

    @pytest.mark.parametrize("depth", [1, 16])
    def test_sixteen_bits_are_stretched_whatever_part_of_them_is_used(self, gradient, depth):
        deep = gradient.astype(np.uint16) * depth
        pixels = read_radiograph(encode(Image.fromarray(deep))).pixels[..., 0]
        assert pixels.min() == 0
        assert pixels.max() == 255
        assert np.abs(pixels.astype(int) - gradient).max() <= 2

    @pytest.mark.parametrize("spread", [1, 3, 40, 4_000])
    def test_sixteen_bits_are_stretched_between_the_percentiles(self, spread):
        deep = np.random.default_rng(spread).normal(5_000, spread, (311, 217)).clip(0, 65_535).astype(np.uint16)
        deep[:3], deep[3:6] = 0, 60_000
        low, high = np.percentile(deep, (0.1, 99.9))
        expected = np.clip((deep.astype(float) - low) * 255 / (high - low) + 0.5, 0, 255).astype(np.uint8)
        pixels = read_radiograph(encode(Image.fromarray(deep))).pixels[..., 0]
        assert np.abs(pixels.astype(int) - expected).max() <= 1

    def test_between_two_values_a_percentile_lies_in_proportion(self):
        # .1 of 100 from 0 to 10,000: place .003, so 30; 99.9: place 2.997, so 60,000 - .003 * 40,000 = 59,880.
        deep = np.array([[0, 10_000], [20_000, 60_000]], np.uint16)
        pixels = read_radiograph(encode(Image.fromarray(deep))).pixels[..., 0]
        # (10,000 - 30) * 255 / 59,850 = 42.5 and (20,000 - 30) * 255 / 59,850 = 85.1, rounded
        assert pixels.tolist() == [[0, 42], [85, 255]]

    def test_sixteen_bits_that_are_nearly_one_value_keep_their_extremes_apart(self):
        deep = np.full((100, 100), 7_000, np.uint16)
        deep[50, 50] = 9_000
        pixels = read_radiograph(encode(Image.fromarray(deep))).pixels[..., 0]
        assert (pixels[50, 50], pixels[0, 0]) == (255, 0)

    @pytest.mark.parametrize("channels", [3, 4])
    def test_sixteen_bits_of_colour_are_stretched_and_not_shown_as_black(self, gradient, channels):
        deep = np.repeat(gradient[:, :, None].astype(np.uint16) * 16, channels, axis=2)  # B, G, R, alpha
        deep[..., 0] //= 2
        if channels == 4:
            deep[..., 3] = 65_535
            deep[0, 0] = (4_000, 4_000, 4_000, 0)
        pixels = read_radiograph(cv2.imencode(".png", deep)[1].tobytes()).pixels.astype(int)
        assert np.abs(pixels[..., 0] - gradient).max() <= 2
        assert np.abs(pixels[..., 2] - gradient // 2).max() <= 2
        assert pixels[0, 0].max() == 0

    def test_sixteen_bits_of_colour_that_are_cut_off_are_broken(self, gradient):
        deep = np.repeat(gradient[:, :, None].astype(np.uint16) * 16, 3, axis=2)
        data = cv2.imencode(".png", deep)[1].tobytes()
        with pytest.raises(UnreadableImage):
            read_radiograph(data[: len(data) // 2])

    def test_sixteen_bits_of_one_value_stay_dark(self):
        assert read_radiograph(encode(Image.fromarray(np.full((4, 4), 7000, np.uint16)))).pixels.max() == 0

    def test_transparent_is_black(self):
        rgba = np.full((4, 4, 4), 255, np.uint8)
        rgba[0, 0, 3] = 0
        pixels = read_radiograph(encode(Image.fromarray(rgba))).pixels
        assert pixels[0, 0].tolist() == [0, 0, 0]
        assert pixels[1, 1].tolist() == [255, 255, 255]

    @pytest.mark.parametrize("mode", ["P", "CMYK", "1", "LA"])
    def test_other_modes_become_rgb(self, gradient, mode):
        kind = "TIFF" if mode == "CMYK" else "PNG"
        pixels = read_radiograph(encode(Image.fromarray(gradient).convert(mode), kind)).pixels
        assert pixels.shape == (40, 60, 3)
        assert pixels.max() > 200

    # orientation -> how numpy turns the stored pixels upright (EXIF 2.32, tag 0x0112)
    @pytest.mark.parametrize(
        ("orientation", "upright"),
        [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, lambda a: np.rot90(a))],
    )
    def test_exif_orientation_is_applied(self, gradient, orientation, upright):
        exif = Image.Exif()
        exif[0x0112] = orientation
        radiograph = read_radiograph(encode(Image.fromarray(gradient), exif=exif))
        assert (radiograph.pixels[..., 0] == upright(gradient)).all()
        assert radiograph.orientation == orientation

    def test_broken_files_say_so(self, gradient, tmp_path):
        data = encode(Image.fromarray(gradient), "JPEG")
        for broken in (b"", data[: len(data) // 2], data[:20]):
            with pytest.raises(UnreadableImage):
                read_radiograph(broken)
        with pytest.raises(UnreadableImage, match=r"absent\.png: no such file"):
            read_radiograph(tmp_path / "absent.png")

    def test_other_kinds_are_unsupported(self, gradient):
        for data in (b"%PDF-1.4 a report", encode(Image.fromarray(gradient), "GIF")):
            with pytest.raises(UnsupportedImage, match="which is not read"):
                read_radiograph(data)
        with pytest.raises(UnsupportedImage):
            read_radiograph(encode(Image.fromarray(gradient), "TIFF"), formats=("JPEG", "PNG"))

    def test_too_many_pixels_are_refused(self, gradient):
        with pytest.raises(ImageTooLarge, match="60 x 40"):
            read_radiograph(encode(Image.fromarray(gradient)), max_pixels=1000)

    def test_a_radiograph_is_rgb_bytes(self):
        with pytest.raises(ValueError, match="expected"):
            Radiograph(np.zeros((4, 4), np.uint8))


def chunk(kind, payload=b""):
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def after_header(png, *chunks):
    return png[:33] + b"".join(chunks) + png[33:]


def text(keyword, value):
    info = PngImagePlugin.PngInfo()
    info.add_itxt(keyword, value) if keyword.startswith("XML") else info.add_text(keyword, value, zip=True)
    return info


class TestHostileFiles:
    def test_the_size_in_the_header_is_refused_before_anything_is_decoded(self, monkeypatch):
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 14_000, 14_000, 8, 0, 0, 0, 0))
        data += chunk(b"IDAT", zlib.compress(bytes(14_001) * 100)) + chunk(b"IEND")
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
        tracemalloc.start()
        with pytest.raises(ImageTooLarge):
            read_radiograph(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 5_000_000

    def test_a_scan_too_many_is_refused(self, gradient):
        data = encode(Image.fromarray(gradient), "JPEG", progressive=True)
        own, last = data.count(b"\xff\xda"), data[data.rfind(b"\xff\xda") : -2]
        assert read_radiograph(data).size == (40, 60)
        for extra, reason in (
            (MAX_SCANS - own, "Inconsistent progression"),
            (MAX_SCANS - own + 1, "more than 64 scans"),
        ):
            with pytest.raises(DamagedImage, match=f"upload: {reason}"):
                read_radiograph(data[:-2] + last * extra + data[-2:])

    def test_a_comment_between_scans_may_hold_any_bytes(self, gradient):
        data = encode(Image.fromarray(gradient), "JPEG", progressive=True)
        last = data.rfind(b"\xff\xda")
        comment = b"\xff\xd9 \xff\xda"
        commented = data[:last] + b"\xff\xfe" + struct.pack(">H", 2 + len(comment)) + comment + data[last:]
        assert (read_radiograph(commented).pixels == read_radiograph(data).pixels).all()

    def test_a_picture_that_libjpeg_would_leave_half_grey_is_refused(self, gradient):
        data = encode(Image.fromarray(gradient), "JPEG")
        middle = (data.rfind(b"\xff\xda") + len(data)) // 2
        for marker in (b"\xff\x05", b"\xff\xd3"):
            with pytest.raises(UnreadableImage, match="broken pixels at byte"):
                read_radiograph(data[:middle] + marker + data[middle + 2 :])

    def test_restarts_that_were_announced_are_read(self, gradient):
        data = encode(Image.fromarray(gradient), "JPEG", restart_marker_rows=1)
        assert b"\xff\xd0" in data
        assert read_radiograph(data).size == (40, 60)

    def test_what_follows_the_end_of_a_jpeg_does_not_count(self, gradient):
        data = encode(Image.fromarray(gradient), "JPEG")
        assert (read_radiograph(data + data * 2 * MAX_SCANS).pixels == read_radiograph(data).pixels).all()

    def test_a_file_of_too_many_parts_is_refused(self, gradient):
        jpeg, png = encode(Image.fromarray(gradient), "JPEG"), encode(Image.fromarray(gradient))
        few, many = 500, max(MAX_SEGMENTS, MAX_CHUNKS)
        for data in (jpeg[:2] + b"\xff\xe5\0\2" * few + jpeg[2:], after_header(png, chunk(b"zzZz") * few)):
            assert read_radiograph(data).size == (40, 60)
        with pytest.raises(UnreadableImage, match="more than 1,000 segments"):
            read_radiograph(jpeg[:2] + b"\xff\xe5\0\2" * many + jpeg[2:])
        with pytest.raises(UnreadableImage, match="more than 100,000 chunks"):
            read_radiograph(after_header(png, chunk(b"zzZz") * many))

    def test_texts_and_profiles_are_not_unfolded(self, gradient):
        folded = zlib.compress(bytes(900_000), 9)
        texts = [chunk(b"zTXt", b"%d\0\0" % number + folded) for number in range(60)]
        data = after_header(encode(Image.fromarray(gradient)), *texts, chunk(b"iCCP", b"x\0\0" + folded))
        tracemalloc.start()
        assert (read_radiograph(data).pixels[..., 0] == gradient).all()
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 2_000_000

    @pytest.mark.parametrize(("kind", "read"), [(b"IHDR", False), (b"IDAT", False), (b"tEXt", True)])
    def test_a_wrong_checksum_of_what_is_read_is_damage(self, gradient, kind, read):
        data = bytearray(after_header(encode(Image.fromarray(gradient)), chunk(b"tEXt", b"a\0b")))
        place = data.find(kind)
        data[place + 4 + struct.unpack_from(">I", data, place - 4)[0]] ^= 1
        if read:
            assert (read_radiograph(bytes(data)).pixels[..., 0] == gradient).all()
        else:
            with pytest.raises(UnreadableImage, match=f"wrong checksum of {kind.decode()} at byte {place - 4}"):
                read_radiograph(bytes(data))

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_orientation_is_as_pillow_turns_it(self, gradient, kind, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(Image.fromarray(gradient), kind, exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        assert (read_radiograph(data).pixels[..., 0] == expected).all()

    @pytest.mark.parametrize(
        ("keyword", "value"),
        [
            ("XML:com.adobe.xmp", '<x:xmpmeta tiff:Orientation="6"/>'),
            ("Raw profile type exif", None),  # as ImageMagick writes it
        ],
    )
    def test_an_orientation_in_a_text_of_a_png_is_found(self, gradient, keyword, value):
        exif = Image.Exif()
        exif[0x0112] = 6
        value = value or f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n"
        radiograph = read_radiograph(encode(Image.fromarray(gradient), pnginfo=text(keyword, value)))
        assert radiograph.orientation == 6
        assert (radiograph.pixels[..., 0] == np.rot90(gradient, -1)).all()

    def test_the_first_picture_of_several_is_read(self, gradient):
        first, second = Image.fromarray(gradient), Image.fromarray(255 - gradient)
        several = encode(first, "MPO", save_all=True, append_images=[second])
        assert (read_radiograph(several).pixels == read_radiograph(encode(first, "JPEG")).pixels).all()

    @pytest.mark.parametrize("error", [struct.error("unpack"), AttributeError("x"), RecursionError(), MemoryError()])
    def test_whatever_pillow_raises_is_a_broken_file(self, gradient, monkeypatch, error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(Image, "open", fail)
        with pytest.raises(UnreadableImage, match="upload: "):
            read_radiograph(encode(Image.fromarray(gradient)))


PEAK = """
import resource, sys
from fracture_det.structures.radiograph import decoding_bytes, read_radiograph
read_radiograph(sys.argv[1])  # a small one: what libraries take once is not counted
data = open(sys.argv[2], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_radiograph(data)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), decoding_bytes(data))
"""


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("PNG", "L"),
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "I;16"),
        ("PNG", "RGBA;16"),
        ("JPEG", "L"),
        ("JPEG", "RGB"),
    ],
)
def test_reading_takes_no_more_memory_than_its_header_lets_expect(tmp_path: Path, kind: str, mode: str):
    def write(side: int) -> Path:
        path = tmp_path / f"{side}.{kind}"
        ramp = np.linspace(0, 4_000, side * side).reshape(side, side)
        if mode == "RGBA;16":
            deep = np.dstack([ramp, ramp, ramp, np.full_like(ramp, 65_535)]).astype(np.uint16)
            path.write_bytes(cv2.imencode(".png", deep)[1].tobytes())
        elif mode == "I;16":
            Image.fromarray(ramp.astype(np.uint16)).save(path, kind)
        else:
            options = {"progressive": True} if kind == "JPEG" else {}
            Image.fromarray((ramp / 16).astype(np.uint8)).convert(mode).save(path, kind, **options)
        return path

    command = [sys.executable, "-c", PEAK, str(write(200)), str(write(3_000))]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, expected = map(int, ended.stdout.split())
    assert expected >= 9_000_000 * 3
    assert taken <= 1.05 * expected + 8_000_000


def test_a_header_that_cannot_be_read_counts_as_the_largest():
    assert decoding_bytes(b"\xff\xd8\xff") == decoding_bytes(b"\x89PNG\r\n\x1a\n") == MAX_PIXELS * 22
    assert decoding_bytes(b"%PDF-1.4") == decoding_bytes(b"\x89PNG\r\n\x1a\n", ("JPEG",)) == 0


def test_a_side_too_long_is_too_large_whatever_the_area():
    header = struct.pack(">IIBBBBB", 2_000_000, 1, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(2_000_001)))
    with pytest.raises(ImageTooLarge, match="2,000,000 x 1 pixels, at most 65,535 on a side"):
        read_radiograph(data + chunk(b"IEND", b""))
