import io

import numpy as np
import pytest
from PIL import Image

from fracture_det.images import (
    ImageTooLarge,
    Letterbox,
    Radiograph,
    UnreadableImage,
    UnsupportedImage,
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
            with pytest.raises(UnsupportedImage, match="not a JPEG"):
                read_radiograph(data)
        with pytest.raises(UnsupportedImage):
            read_radiograph(encode(Image.fromarray(gradient), "TIFF"), formats=("JPEG", "PNG"))

    def test_too_many_pixels_are_refused(self, gradient):
        with pytest.raises(ImageTooLarge, match="60 x 40"):
            read_radiograph(encode(Image.fromarray(gradient)), max_pixels=1000)

    def test_a_radiograph_is_rgb_bytes(self):
        with pytest.raises(ValueError, match="expected"):
            Radiograph(np.zeros((4, 4), np.uint8))


class TestLetterbox:
    # (height, width) -> inner size at 800 px
    @pytest.mark.parametrize(
        ("size", "inner"),
        [((800, 800), (800, 800)), ((1600, 800), (800, 400)), ((373, 454), (657, 800)), ((1, 4000), (1, 800))],
    )
    def test_keeps_the_aspect(self, size, inner):
        assert Letterbox().inner_size(size) == inner

    def test_pads_with_zeros_to_the_right_and_below(self):
        square = Letterbox(100).apply_image(np.full((50, 25, 3), 200, np.uint8))
        assert square.shape == (100, 100, 3)
        assert (square[:, :50] == 200).all()
        assert (square[:, 50:] == 0).all()

    def test_undo_brings_boxes_back(self):
        random = np.random.default_rng(0)
        for _ in range(50):
            size = tuple(random.integers(10, 4000, 2).tolist())
            corners = random.uniform(0, 1, (20, 2, 2)) * [size[1], size[0]]
            boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
            letterbox = Letterbox(int(random.integers(100, 1200)))
            inside = letterbox.apply_boxes(boxes, size)
            assert inside.min() >= 0
            assert inside.max() <= letterbox.size + 1e-9
            np.testing.assert_allclose(letterbox.undo_boxes(inside, size), boxes, atol=1e-3)

    def test_boxes_go_where_the_pixels_go(self):
        pixels = np.zeros((300, 200, 3), np.uint8)
        pixels[60:120, 40:80] = 255
        square = Letterbox(600).apply_image(pixels)
        rows, columns = np.nonzero(square[..., 0] > 127)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(Letterbox(600).apply_boxes([[40, 60, 80, 120]], (300, 200))[0], seen, atol=1)

    def test_refuses_no_size(self):
        with pytest.raises(ValueError, match="at least 1"):
            Letterbox(0)
