"""Two thousand damaged films: what the bytes give away is refused, and what they hide is counted."""

import io
import struct
import zlib
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from fracture_det.inference.registry import open_detector
from fracture_det.structures.jpeg import coded_block
from fracture_det.structures.radiograph import DamagedImage, UnsupportedImage, read_radiograph
from fracture_det.structures.seams import has_seam
from tests.builders import draw_radiograph
from tests.paths import FRACATLAS, present
from tests.structures.damage import DAMAGES, in_jpeg, in_png

FILMS, TIMES = 10, 10


def jpeg(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


KINDS = {
    "baseline JPEG": (lambda film: jpeg(film), in_jpeg),
    "progressive JPEG": (lambda film: jpeg(film, progressive=True), in_jpeg),
    "PNG of 8 bits": (lambda film: cv2.imencode(".png", film)[1].tobytes(), in_png),
    "PNG of 16 bits": (lambda film: cv2.imencode(".png", film.astype(np.uint16) * 16)[1].tobytes(), in_png),
}
# What libjpeg cannot know: Huffman codes synchronise again after a seam, and stretches that change places leave the
# number of blocks as it was. Most of these show in the picture. Such a share may be read as another picture; of
# everything else none.
MOST_WRONG = {
    ("baseline JPEG", "swapped"): 0.05,
    ("baseline JPEG", "repeated"): 0.05,
    ("progressive JPEG", "swapped"): 0.1,
    ("progressive JPEG", "repeated"): 0.1,
}
# Mean difference of grey values from which a picture is another one. Damage to the last scans of a progressive JPEG,
# which hold the lowest bits, stays below.
ANOTHER_PICTURE = 3


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_or_does_not_show(kind):
    encode, harm = KINDS[kind]
    wrong = Counter()
    for number in range(FILMS):
        whole = encode(_film(number))
        pixels = read_radiograph(whole).pixels.astype(int)
        for name, (damage, with_end) in DAMAGES.items():
            for turn in range(TIMES):
                harmed = harm(whole, damage, np.random.default_rng((number, turn)), with_end=with_end)
                try:
                    read = read_radiograph(harmed).pixels
                except DamagedImage:
                    continue
                wrong[name] += np.abs(read - pixels).mean() > ANOTHER_PICTURE
    too_many = {name: count for name, count in wrong.items() if count > MOST_WRONG.get((kind, name), 0) * FILMS * TIMES}
    assert not too_many, wrong


def _film(number):
    return np.asarray(draw_radiograph(np.random.default_rng(number), fractured=True, size=(320, 260))[0][..., 0])


class TestJpeg:
    def test_a_few_bytes_too_many_are_noticed(self):
        """libjpeg keeps up to eight bytes in its buffer, and says nothing of those that are left over there."""
        whole = jpeg(_film(0))
        for surplus in range(1, 12):
            with pytest.raises(DamagedImage, match="do not end where its picture ends"):
                read_radiograph(whole[:-2] + b"\x55" * surplus + whole[-2:])

    def test_a_missing_end_marker_is_noticed(self):
        with pytest.raises(DamagedImage, match="truncated: part of its picture was never coded"):
            read_radiograph(jpeg(_film(0))[:-2])

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 1}])
    def test_whole_films_have_the_pixels_of_pillow(self, mode, options):
        buffer = io.BytesIO()
        rng = np.random.default_rng(0)
        if mode == "CMYK":
            options = {**options, "subsampling": 0}
        colours = np.dstack([_film(0), _film(1), _film(2)]) if mode != "L" else _film(0)
        Image.fromarray(colours).convert(mode).save(buffer, "JPEG", quality=int(rng.integers(60, 96)), **options)
        with Image.open(io.BytesIO(buffer.getvalue())) as image:
            expected = np.asarray(image.convert("RGB"))
        assert (read_radiograph(buffer.getvalue()).pixels == expected).all()

    def test_an_unusual_subsampling_is_no_damage(self):
        colours = Image.fromarray(np.dstack([_film(0), _film(1), _film(2)])).convert("CMYK")
        buffer = io.BytesIO()
        colours.save(buffer, "JPEG", subsampling=2)  # of black, too
        with pytest.raises(UnsupportedImage, match="a JPEG of unusual colour subsampling, which is not read"):
            read_radiograph(buffer.getvalue())


class TestSeams:
    """Stretches in each other's place, which libjpeg does not notice."""

    @staticmethod
    def moved(film, rows):
        """Return a picture in which the blocks from (8, 10) on lie where those 17 places further belong."""
        blocks = film[: 8 * rows, : 8 * 30].reshape(rows, 8, 30, 8).swapaxes(1, 2).reshape(-1, 8, 8).copy()
        blocks[8 * 30 + 10 : 20 * 30 + 5] = np.roll(blocks[8 * 30 + 10 : 20 * 30 + 5], 17, axis=0)
        return blocks.reshape(rows, 30, 8, 8).swapaxes(1, 2).reshape(8 * rows, 240)

    @pytest.mark.parametrize("number", range(5))
    def test_misplaced_blocks_are_seen_and_whole_films_are_left_alone(self, number):
        film = _film(number)
        whole, moved = film[:256, :240], self.moved(film, 32)
        assert not has_seam(whole, (8, 8))
        assert has_seam(moved, (8, 8))
        with pytest.raises(DamagedImage, match="parts of its picture are out of place"):
            read_radiograph(jpeg(moved))
        assert read_radiograph(jpeg(whole)).size == (256, 240)
        assert read_radiograph(cv2.imencode(".png", moved)[1].tobytes()).size == (256, 240)

    def test_small_pictures_with_sharp_edges_are_whole(self):
        for number in range(300):
            rng = np.random.default_rng((9, number))
            plate = rng.integers(0, 40, rng.integers(8, 97, 2), dtype=np.uint8)
            height, width = plate.shape
            plate[height // 4 : height // 2, width // 4 : width // 2] = 230
            with Image.open(io.BytesIO(jpeg(plate))) as image:
                assert not has_seam(np.asarray(image), (8, 8)), plate.shape

    def test_what_steps_elsewhere_than_between_blocks_is_a_picture(self):
        moved = self.moved(_film(0), 32)
        assert not has_seam(moved[3:], (8, 8))
        assert not has_seam(moved[:, :24], (8, 8))

    def test_a_rest_of_one_block_over_and_over_was_lost_earlier(self):
        film = _film(0)[:256, :240].copy()
        film[128:], film[120:128, 100:] = 150, 150
        assert not has_seam(film, (8, 8))
        film[192:200, 50:100] = 30
        assert has_seam(film, (8, 8))
        film[128:], film[120:128, 100:] = 0, 0  # brightness that has drifted away
        film[64:120] = np.roll(film[64:120], 60, axis=1)
        film[120:128, :100] = 0
        film[112:120, 100:] = 0
        assert has_seam(film, (8, 8))

    @pytest.mark.parametrize(
        ("mode", "options", "block"),
        [
            ("L", {}, (8, 8)),
            ("RGB", {"subsampling": 0}, (8, 8)),
            ("RGB", {"subsampling": 1}, (8, 16)),
            ("RGB", {"subsampling": 2}, (16, 16)),
            ("L", {"progressive": True}, None),
        ],
    )
    def test_how_much_is_coded_at_once_stands_in_the_header(self, mode, options, block):
        buffer = io.BytesIO()
        Image.fromarray(_film(0)).convert(mode).save(buffer, "JPEG", **options)
        assert coded_block(buffer.getvalue()) == block


class TestPng:
    @staticmethod
    def png(rows, *, height, width=8, after=b""):
        def chunk(kind, payload):
            return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        pixels = chunk(b"IDAT", zlib.compress(rows) + after)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")

    @pytest.mark.parametrize(
        ("rows", "after", "reason"),
        [
            (bytes(9 * 160), b"", "truncated: 1,440 of 1,600 rows were never coded"),
            (bytes(9 * 1_600 - 1), b"", "truncated: 1 of 1,600 rows were never coded"),
            (bytes(9 * 1_601), b"", "it codes more rows than its header announces"),
            (bytes(9 * 1_599) + b"\5" + bytes(8), b"", "a row has a filter that there is not"),
            (bytes(9 * 1_600), b"x", "something follows its compressed pixels"),
        ],
    )
    def test_every_row_must_be_coded_once(self, rows, after, reason):
        assert read_radiograph(self.png(bytes(9 * 1_600), height=1_600)).size == (1_600, 8)
        with pytest.raises(DamagedImage, match=f"upload: {reason}"):
            read_radiograph(self.png(rows, height=1_600, after=after))

    def test_a_wrong_checksum_of_the_compressed_pixels_is_damage(self):
        whole = self.png(bytes(9 * 16), height=16)
        packed = zlib.compress(bytes(9 * 16))
        harmed = in_png(whole, lambda coded, rng: coded[:-1] + bytes([coded[-1] ^ 1]), np.random.default_rng(0))
        assert packed in whole
        with pytest.raises(DamagedImage, match="its compressed pixels are broken"):
            read_radiograph(harmed)

    def test_more_is_never_unfolded_than_the_header_announces(self):
        import tracemalloc

        bomb = self.png(bytes(300_000_000), height=16)
        tracemalloc.start()
        with pytest.raises(DamagedImage, match="more rows"):
            read_radiograph(bomb)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 5_000_000


@pytest.mark.real
@pytest.mark.slow
def test_of_what_is_read_in_spite_of_its_damage_no_finding_is_lost():
    """Films on which the shipped detector is sure; damage of all kinds, in the files of FracAtlas as they are."""
    detector = open_detector("shipped")
    likely = detector.info.operating_score
    counts = Counter()
    for path in sorted(present(FRACATLAS / "images/Fractured").glob("*.jpg"))[:240:4]:
        whole = path.read_bytes()
        if not len(detector.predict([read_radiograph(whole).pixels])[0].above(likely)):
            continue
        for name, (damage, with_end) in DAMAGES.items():
            harmed = in_jpeg(whole, damage, np.random.default_rng(len(whole)), with_end=with_end)
            try:
                pixels = read_radiograph(harmed).pixels
            except DamagedImage:
                counts["refused"] += 1
                continue
            assert name in ("swapped", "repeated")
            counts["read"] += 1
            counts["lost"] += not len(detector.predict([pixels])[0].above(likely / 2))  # none seen
    total = counts["refused"] + counts["read"]
    assert counts["read"] <= 0.02 * total, counts
    assert counts["lost"] == 0, counts
