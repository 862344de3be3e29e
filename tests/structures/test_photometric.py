"""Bone is bright where the file means it, whatever the depth, byte order and photometric interpretation."""

import io
import struct
import zlib
from itertools import product

import numpy as np
import pytest
from PIL import Image

from fracture_det.structures.radiograph import DamagedImage, UnreadableImage, UnsupportedImage, read_radiograph
from tests.structures.tiffs import DEFLATE, by_pillow, page, tiff

WHITE, BLACK, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6


def film():
    """Return the true picture, (70, 50) of 0..1: a bright bone on a gradient, symmetric in no way."""
    y, x = np.mgrid[:70, :50]
    return np.clip(0.15 + 0.5 * np.exp(-(((x - 18) / 6) ** 2)) * (y > 8) + 0.25 * y / 70 + 0.05 * np.sin(x / 3), 0, 1)


TRUE = film()
GREY = np.round(TRUE * 255).astype(np.uint8)
DEEP = np.round(TRUE * 4_095).astype(np.uint16)  # 12 bits of 16, as detectors give them


def correlation(data, true=TRUE):
    return np.corrcoef(read_radiograph(data).pixels.mean(axis=2).ravel(), true.ravel())[0, 1]


def samples(kind, bits, *, inverted):
    """Return the film as samples of a numpy kind ("u", "i" or "f") and a depth, and the picture that they can hold."""
    full = 2.0**bits - 1
    if kind == "f":
        return ((1 - TRUE if inverted else TRUE) * 100 - 20).astype(f"f{bits // 8}"), TRUE
    steps = np.round(TRUE * full)
    values = full - steps if inverted else steps
    width = max(8, 1 << (bits - 1).bit_length())
    return (values.astype(np.int64) - (2 ** (bits - 1) if kind == "i" else 0)).astype(f"{kind}{width // 8}"), steps


READ = [("u", bits) for bits in (1, 2, 4, 8, 12, 16, 32)] + [("i", 16), ("i", 32), ("f", 32)]
NOT_READ = [("u", 10), ("u", 14), ("i", 8), ("f", 16), ("f", 64)]


class TestGreyTiff:
    @pytest.mark.parametrize("layout", [{}, {"compression": DEFLATE}, {"tile": 16}, {"rows": 7}])
    @pytest.mark.parametrize("photometric", [WHITE, BLACK])
    @pytest.mark.parametrize(("kind", "bits"), READ)
    def test_every_depth_is_the_true_picture(self, kind, bits, photometric, layout):
        written, true = samples(kind, bits, inverted=photometric == WHITE)
        assert correlation(tiff(page(written, bits=bits, photometric=photometric, **layout)), true) > 0.99

    @pytest.mark.parametrize("layout", [{}, {"compression": DEFLATE}, {"tile": 16}])
    @pytest.mark.parametrize("photometric", [WHITE, BLACK])
    @pytest.mark.parametrize(("kind", "bits"), READ)
    def test_big_endian_is_the_true_picture_or_refused(self, kind, bits, photometric, layout):
        written, true = samples(kind, bits, inverted=photometric == WHITE)
        data = tiff(page(written, bits=bits, photometric=photometric, order=">", **layout), order=">")
        # Pillow has no big-endian form of two depths, and gives noise for the compressed form of three others.
        if (kind, bits) in (("u", 12), ("u", 32)) or (layout == {"compression": DEFLATE} and bits > 8 and kind != "u"):
            with pytest.raises(UnsupportedImage, match=rf"a TIFF of 1 x {bits} bits .*not read; convert it"):
                read_radiograph(data)
        else:
            assert correlation(data, true) > 0.99

    @pytest.mark.parametrize("photometric", [WHITE, BLACK])
    @pytest.mark.parametrize(("kind", "bits"), NOT_READ)
    def test_other_depths_are_named(self, kind, bits, photometric):
        written, _ = samples(kind, bits, inverted=photometric == WHITE)
        meaning = {WHITE: "white", BLACK: "black"}[photometric]
        with pytest.raises(UnsupportedImage, match=rf"a TIFF of 1 x {bits} bits \(.*{meaning} is zero.*not read"):
            read_radiograph(tiff(page(written, bits=bits, photometric=photometric)))

    @pytest.mark.parametrize(
        ("grey", "compression"),
        [(GREY, "jpeg"), *product((GREY, DEEP), ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"))],
    )
    @pytest.mark.parametrize("white_is_zero", [True, False])
    def test_whatever_the_compression(self, compression, white_is_zero, grey):
        stored = np.iinfo(grey.dtype).max - grey if white_is_zero else grey
        assert correlation(by_pillow(stored, compression, white_is_zero=white_is_zero)) > 0.99

    @pytest.mark.parametrize("compression", ["group3", "group4"])
    def test_black_and_white(self, compression):
        bone = TRUE > 0.45
        buffer = io.BytesIO()
        Image.fromarray(bone).save(buffer, "TIFF", compression=compression)
        assert correlation(buffer.getvalue(), bone) > 0.99

    def test_the_bit_order_may_be_reversed(self):
        reversed_bits = np.packbits(np.unpackbits(255 - GREY).reshape(-1, 8)[:, ::-1]).reshape(GREY.shape)
        assert correlation(tiff(page(reversed_bits, bits=8, photometric=WHITE, t266=2))) > 0.99

    def test_a_bigtiff_is_read_alike(self):
        assert correlation(tiff(page(65_535 - DEEP, bits=16, photometric=WHITE), big=True)) > 0.99

    def test_without_an_interpretation_it_is_refused(self):
        with pytest.raises(UnsupportedImage, match="does not say whether 0 is black or white"):
            read_radiograph(tiff(page(GREY, bits=8, photometric=None)))

    def test_numbers_that_are_none_are_refused(self):
        broken = TRUE.astype(np.float32)
        broken[3, 3] = np.nan
        with pytest.raises(UnreadableImage, match="not finite numbers"):
            read_radiograph(tiff(page(broken, bits=32, photometric=BLACK)))

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("deep", [False, True])
    def test_it_is_turned_once(self, orientation, deep):
        exif = Image.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        Image.fromarray(GREY).save(buffer, "PNG", exif=exif)
        expected = read_radiograph(buffer.getvalue()).pixels[..., 0]
        stored, bits, photometric = (np.dstack([DEEP] * 3), 16, RGB) if deep else (GREY, 8, BLACK)
        turned = read_radiograph(tiff(page(stored, bits=bits, photometric=photometric, t274=orientation)))
        assert turned.orientation == orientation
        assert np.corrcoef(turned.pixels[..., 0].ravel(), expected.ravel())[0, 1] > 0.99


class TestColourTiff:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("layout", [{}, {"compression": DEFLATE}, {"tile": 16}])
    @pytest.mark.parametrize("planar", [1, 2])
    @pytest.mark.parametrize("grey", [GREY, DEEP])
    def test_rgb_in_either_arrangement(self, order, layout, planar, grey):
        bits = 8 * grey.itemsize
        data = tiff(
            page(np.dstack([grey] * 3), bits=bits, photometric=RGB, order=order, planar=planar, **layout), order=order
        )
        if bits == 16 and planar == 2:
            with pytest.raises(UnsupportedImage, match="a TIFF of 3 x 16 bits"):
                read_radiograph(data)
        else:
            assert correlation(data) > 0.99

    # ExtraSamples: 0 unspecified, 1 opacity by which the colours are multiplied already, 2 opacity
    @pytest.mark.parametrize("meaning", [0, 1, 2])
    @pytest.mark.parametrize("opacity", [0.0, 1.0])
    @pytest.mark.parametrize("photometric", [WHITE, BLACK, RGB])
    @pytest.mark.parametrize("grey", [GREY, DEEP])
    def test_a_fourth_sample(self, meaning, opacity, photometric, grey):
        full = np.iinfo(grey.dtype).max
        colours = [full - grey] if photometric == WHITE else [grey] * (3 if photometric == RGB else 1)
        stored = np.dstack([*colours, np.full_like(grey, opacity * full)])
        data = tiff(page(stored, bits=8 * grey.itemsize, photometric=photometric, t338=meaning))
        if (photometric != RGB and grey is DEEP) or (photometric == WHITE and meaning == 1):
            with pytest.raises(UnsupportedImage, match="not read"):
                read_radiograph(data)
        elif opacity == 0 and (meaning == 2 or (meaning == 1 and grey is GREY)):
            with pytest.raises(UnreadableImage, match="every pixel is transparent"):
                read_radiograph(data)
        else:
            assert correlation(data) > 0.99

    def test_palettes(self):
        falling = [257 * value for value in range(255, -1, -1)] * 3
        assert correlation(tiff(page(255 - GREY, bits=8, photometric=PALETTE, t320=falling))) > 0.99
        four = [4_369 * value for value in range(16)] * 3
        assert correlation(tiff(page(GREY >> 4, bits=4, photometric=PALETTE, t320=four)), GREY >> 4) > 0.99

    def test_inks(self):
        none = np.zeros_like(GREY)
        for inks in ([255 - GREY] * 3 + [none], [none] * 3 + [255 - GREY]):
            assert correlation(tiff(page(np.dstack(inks), bits=8, photometric=CMYK))) > 0.99
        deep = np.dstack([np.zeros_like(DEEP)] * 3 + [65_535 - DEEP])
        with pytest.raises(UnsupportedImage, match="a TIFF of 4 x 16 bits"):
            read_radiograph(tiff(page(deep, bits=16, photometric=CMYK)))

    def test_luminance(self):
        middle = np.full_like(GREY, 128)
        stored = np.dstack([GREY, middle, middle])
        assert correlation(tiff(page(stored, bits=8, photometric=YCBCR, t530=[1, 1]))) > 0.99
        assert correlation(by_pillow(np.dstack([GREY] * 3), "jpeg")) > 0.99


class TestDamage:
    @pytest.mark.parametrize("compression", [1, DEFLATE])
    def test_a_strip_that_is_missing_or_short_is_damage(self, compression):
        tags, strips = page(GREY, bits=8, photometric=BLACK, rows=7, compression=compression)
        read_radiograph(tiff((tags, strips)))
        for harmed in (strips[:-1], [*strips[:-1], b""], [*strips[:3], strips[3][:-1], *strips[4:]]):
            with pytest.raises(UnreadableImage):
                read_radiograph(tiff((tags, harmed)))

    def test_a_strip_beyond_the_end_of_the_file_is_damage(self):
        data = bytearray(tiff(page(GREY, bits=8, photometric=BLACK)))
        place = data.rfind(struct.pack("<HHI", 273, 4, 1)) + 8
        struct.pack_into("<I", data, place, len(data) - 100)
        with pytest.raises(DamagedImage, match="truncated: strip or tile 1 of 1 is not whole"):
            read_radiograph(bytes(data))

    def test_a_bmp_that_is_cut_is_damage(self):
        for mode in ("L", "RGB"):
            buffer = io.BytesIO()
            Image.fromarray(GREY).convert(mode).save(buffer, "BMP")
            with pytest.raises(UnreadableImage, match="truncated"):
                read_radiograph(buffer.getvalue()[:-300])


class TestPages:
    def test_several_radiographs_are_refused_rather_than_all_but_one_passed_over(self):
        pages = [page(GREY, bits=8, photometric=BLACK)] * 3
        with pytest.raises(UnsupportedImage, match="a TIFF of 3 pages, of which one is read; save each"):
            read_radiograph(tiff(*pages))

    def test_smaller_copies_and_masks_are_no_radiographs(self):
        whole = page(65_535 - DEEP, bits=16, photometric=WHITE)
        copy = page(GREY[::2, ::2], bits=8, photometric=BLACK, t254=1)
        mask = page(GREY > 100, bits=1, photometric=4, t254=4)
        for pages in ((whole, copy), (copy, whole), (copy, mask, whole)):
            assert correlation(tiff(*pages)) > 0.99
        with pytest.raises(UnsupportedImage, match="a TIFF of reduced copies and masks only"):
            read_radiograph(tiff(copy))

    def test_pages_in_a_circle_end(self):
        data = bytearray(tiff(page(GREY, bits=8, photometric=BLACK)))
        data[-4:] = data[4:8]
        with pytest.raises(UnreadableImage, match="pages in a circle"):
            read_radiograph(bytes(data))


def chunk(kind, payload=b""):
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(stored, bits, colour, *extra):
    """Return a PNG of (H, W) or (H, W, channels) samples; colour: its colour type."""
    height, width = stored.shape[:2]
    if bits == 16:
        rows = stored.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        flat = (stored.reshape(height, -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
        rows = np.packbits(flat.astype(np.uint8).reshape(height, -1), axis=1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", packed), chunk(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


class TestPng:
    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
    def test_grey_of_every_depth(self, bits):
        stored = np.round(TRUE * (2**bits - 1)).astype(np.uint16)
        assert correlation(png(stored, bits, 0), stored) > 0.99

    @pytest.mark.parametrize("colour", [4, 6])
    @pytest.mark.parametrize("bits", [8, 16])
    def test_opacity(self, colour, bits):
        grey = GREY if bits == 8 else DEEP
        opaque = np.full_like(grey, 2**bits - 1)
        half = opaque.copy()
        half[:10] = 0
        colours = [grey] * (1 if colour == 4 else 3)
        assert correlation(png(np.dstack([*colours, opaque]), bits, colour)) > 0.99
        shown = read_radiograph(png(np.dstack([*colours, half]), bits, colour)).pixels
        assert shown[:10].max() == 0
        assert np.corrcoef(shown[10:, :, 0].ravel(), TRUE[10:].ravel())[0, 1] > 0.99
        with pytest.raises(UnreadableImage, match="every pixel is transparent"):
            read_radiograph(png(np.dstack([*colours, np.zeros_like(grey)]), bits, colour))

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("colour", [0, 2])
    def test_the_transparent_value_is_black_at_every_depth(self, bits, colour):
        grey = (GREY if bits == 8 else DEEP).copy()
        grey[:5] = grey.max() + 1  # a white margin
        key = struct.pack(">H", grey.max()) * (1 if colour == 0 else 3)
        stored = grey if colour == 0 else np.dstack([grey] * 3)
        shown = read_radiograph(png(stored, bits, colour, chunk(b"tRNS", key))).pixels
        assert shown[:5].max() == 0
        assert np.corrcoef(shown[5:, :, 0].ravel(), TRUE[5:].ravel())[0, 1] > 0.99

    def test_a_palette_that_falls(self):
        falling = chunk(b"PLTE", bytes(np.repeat(np.arange(256)[::-1], 3).astype(np.uint8)))
        assert correlation(png(255 - GREY, 8, 3, falling)) > 0.99


def jpeg(bands, mode="CMYK", **options):
    buffer = io.BytesIO()
    Image.merge(mode, [Image.fromarray(band) for band in bands]).save(buffer, "JPEG", quality=95, **options)
    return bytearray(buffer.getvalue())


class TestJpeg:
    """Adobe stores inks inverted, as Pillow writes them too: what is given to `jpeg` is the amount of ink."""

    def test_inks(self):
        none = np.zeros_like(GREY)
        for inks in ([255 - GREY] * 3 + [none], [none] * 3 + [255 - GREY]):
            assert correlation(bytes(jpeg(inks))) > 0.99

    def test_inks_as_luminance(self):
        # Stored is 255 - ink; of the three colours as YCbCr, each 255 - R. With R = ink that is luminance = ink.
        middle = np.full_like(GREY, 127)  # stored as 128
        data = jpeg([GREY, middle, middle, np.zeros_like(GREY)])
        data[data.find(b"Adobe") + 11] = 2  # transform: YCCK
        assert correlation(bytes(data)) > 0.99

    def test_inks_of_unknown_meaning_are_refused(self):
        data = jpeg([255 - GREY] * 3 + [np.zeros_like(GREY)])
        place = data.find(b"Adobe") - 4
        del data[place : place + 16]
        with pytest.raises(UnsupportedImage, match="does not say whether 0 is ink or paper"):
            read_radiograph(bytes(data))

    def test_rgb_without_luminance(self):
        assert correlation(bytes(jpeg([GREY] * 3, "RGB", keep_rgb=True))) > 0.99


class TestOtherKinds:
    @pytest.mark.parametrize("mode", ["L", "P", "RGB"])
    def test_bmp(self, mode):
        buffer = io.BytesIO()
        Image.fromarray(GREY).convert(mode).save(buffer, "BMP")
        assert correlation(buffer.getvalue()) > 0.99

    @pytest.mark.parametrize("lossless", [False, True])
    def test_webp(self, lossless):
        buffer = io.BytesIO()
        Image.fromarray(GREY).save(buffer, "WEBP", lossless=lossless)
        assert correlation(buffer.getvalue()) > 0.99

    def test_an_animated_webp_is_refused(self):
        buffer = io.BytesIO()
        Image.fromarray(GREY).save(buffer, "WEBP", save_all=True, append_images=[Image.fromarray(255 - GREY)])
        with pytest.raises(UnsupportedImage, match="a WebP image of 2 frames"):
            read_radiograph(buffer.getvalue())
