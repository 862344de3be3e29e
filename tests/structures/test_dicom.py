"""DICOM radiographs: every coding, the right greys, and a sentence for what is not read."""

import io
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from fracture_det.structures.radiograph import (
    DamagedImage,
    UnsupportedImage,
    read_dicom_file,
    read_radiograph,
)
from tests.builders import draw_radiograph
from tests.structures.dicoms import DCMTK, NATIVE, dicom, jpeg_2000, jpeg_baseline, pydicom, real_file, recoded

SECRET = b"a secret of the site"


@pytest.fixture(scope="module")
def film():
    """A drawn radiograph, (H, W) uint8, of odd sides and no symmetry."""
    return draw_radiograph(np.random.default_rng(3), fractured=True, size=(153, 121))[0][:, :, 0].copy()


def deep(film, bits, *, signed=False):
    """Return the film in so many bits, and the window that shows it as it is."""
    values = film.astype(np.int64) * (2**bits - 1) // 255
    kind = (np.int16 if signed else np.uint16) if bits > 8 else (np.int8 if signed else np.uint8)
    low = 2 ** (bits - 1) if signed else 0
    return (values - low).astype(kind), {
        "BitsStored": bits,
        "WindowCenter": 2 ** (bits - 1) - low,
        "WindowWidth": 2**bits,
    }


def grey(data):
    pixels = read_radiograph(data).pixels
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0].astype(int)


class TestCodings:
    @pytest.mark.parametrize("signed", [False, True])
    @pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
    @pytest.mark.parametrize("syntax", NATIVE)
    def test_uncompressed_samples_of_8_to_16_bits_are_the_picture(self, film, syntax, bits, signed):
        stored, attributes = deep(film, bits, signed=signed)
        assert abs(grey(dicom(stored, syntax, **attributes)) - film).max() <= 1

    @pytest.mark.parametrize("bits", [8, 12, 16])
    @pytest.mark.parametrize("coding", DCMTK)
    def test_compressed_samples_are_the_picture(self, film, coding, bits, tmp_path):
        if coding == "jpeg extended 12" and bits != 12:
            pytest.skip("12 bits by its name")
        stored, attributes = deep(film, bits)
        shown = grey(recoded(dicom(stored, **attributes), coding, tmp_path))
        near = {"jpeg extended 12": 12, "jpeg-ls near": 3}.get(coding, 1)
        assert abs(shown - film).max() <= near
        assert np.corrcoef(shown.ravel(), film.ravel())[0, 1] > 0.999

    @pytest.mark.parametrize("signed", [False, True])
    def test_signed_samples_that_are_compressed_keep_their_sign(self, film, signed, tmp_path):
        stored, attributes = deep(film, 12, signed=signed)
        for coded in (
            recoded(dicom(stored, **attributes), "rle", tmp_path),
            jpeg_2000(stored, "1.2.840.10008.1.2.4.90", **attributes),
        ):
            assert abs(grey(coded) - film).max() <= 1

    @pytest.mark.parametrize(("syntax", "near"), [("1.2.840.10008.1.2.4.90", 1), ("1.2.840.10008.1.2.4.91", 20)])
    @pytest.mark.parametrize("bits", [8, 12, 16])
    def test_jpeg_2000(self, film, syntax, near, bits):
        stored, attributes = deep(film, bits)
        assert abs(grey(jpeg_2000(stored, syntax, **attributes)) - film).max() <= near

    def test_a_jpeg_of_8_bits_is_decoded_as_one_that_is_uploaded(self, film):
        coded = cv2.imencode(".jpg", film)[1].tobytes()
        assert (grey(jpeg_baseline(film, coded)) == read_radiograph(coded).pixels[:, :, 0]).all()

    @pytest.mark.parametrize("syntax", ["explicit", "implicit", "big"])
    @pytest.mark.parametrize("planar", [0, 1])
    def test_colours_of_a_secondary_capture(self, film, syntax, planar):
        colours = np.dstack([film, film // 2, 255 - film])
        stored = np.ascontiguousarray(colours.transpose(2, 0, 1)).reshape(colours.shape) if planar else colours
        data = dicom(stored, syntax, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT", PlanarConfiguration=planar)
        assert (read_radiograph(data).pixels == colours).all()

    def test_luminance_and_chrominance(self):
        # PS3.3, C.7.6.3.1.2: red is Y 76, Cb 85, Cr 255.
        stored = np.full((8, 8, 3), (76, 85, 255), np.uint8)
        data = dicom(stored, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", PhotometricInterpretation="YBR_FULL")
        assert abs(read_radiograph(data).pixels.astype(int) - (255, 0, 0)).max() <= 2

    def test_bytes_in_words_of_big_endian_are_in_their_order(self, film):
        data = bytearray(dicom(film, "big"))
        place = data.rindex(b"\x7f\xe0\0\x10OB")
        data[place + 4 : place + 6] = b"OW"
        pixels = np.frombuffer(bytes(data[place + 12 :]), np.uint8).reshape(-1, 2)[:, ::-1]
        data[place + 12 :] = pixels.tobytes()
        assert (grey(bytes(data)) == film).all()

    def test_values_in_the_upper_bits_and_writing_in_the_unused_ones(self, film):
        stored = film.astype(np.uint16) * 16 << 4 | np.arange(film.size, dtype=np.uint16).reshape(film.shape) % 16
        data = dicom(stored, BitsStored=12, HighBit=15, WindowCenter=2048, WindowWidth=4096)
        assert abs(grey(data) - film).max() <= 1
        overlaid = film.astype(np.uint16) * 16 | 0x4000
        assert abs(grey(dicom(overlaid, BitsStored=12, WindowCenter=2048, WindowWidth=4096)) - film).max() <= 1

    def test_files_without_preamble_or_meta_information(self, film):
        for syntax in ("explicit", "implicit"):
            whole = dicom(film, syntax)
            group_end = 144 + int.from_bytes(whole[140:144], "little")
            assert (grey(whole[132:]) == film).all()
            assert (grey(whole[group_end:]) == film).all()

    def test_what_stands_before_the_data_set_does_not_matter(self, film):
        data = dicom(film)
        assert (grey(b"II*\0" + data[4:]) == film).all()  # a file that is a TIFF as well


class TestGreys:
    def test_monochrome1_is_inverted(self, film):
        inverted, attributes = deep(255 - film, 12)
        data = dicom(inverted, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE", **attributes)
        assert abs(grey(data) - film).max() <= 1

    def test_without_a_window_greys_are_those_of_a_png_of_16_bits(self, film):
        stored = (film.astype(np.uint16) * 13 + 700).astype(np.uint16)
        png = read_radiograph(cv2.imencode(".png", stored)[1].tobytes()).pixels[:, :, 0].astype(int)
        assert (grey(dicom(stored, BitsStored=12)) == png).all()
        mirrored = dicom((4095 - stored), BitsStored=12, PhotometricInterpretation="MONOCHROME1")
        assert abs(grey(mirrored) - png).max() <= 1

    def test_8_bits_without_a_window_are_greys(self, film):
        assert (grey(dicom(film)) == film).all()
        assert (grey(dicom(255 - film, PhotometricInterpretation="MONOCHROME1")) == film).all()

    def test_padding_is_black_and_does_not_count(self, film):
        stored = film.astype(np.uint16) * 4 + 1000
        plain = grey(dicom(stored, BitsStored=12))
        padded = stored.copy()
        padded[:40] = 4095
        shown = grey(dicom(padded, BitsStored=12, PixelPaddingValue=4095))
        assert (shown[:40] == 0).all()
        assert abs(shown[40:] - plain[40:]).max() <= 2
        ranged = grey(dicom(padded, BitsStored=12, PixelPaddingValue=4090, PixelPaddingRangeLimit=4095))
        assert (ranged == shown).all()
        with pytest.raises(DamagedImage, match="every pixel of it is padding"):
            read_radiograph(dicom(np.full((9, 9), 7, np.uint16), PixelPaddingValue=7))

    def test_two_statements_that_contradict_each_other_are_refused(self, film):
        with pytest.raises(
            UnsupportedImage, match="contradicts itself: MONOCHROME2, but a presentation LUT shape that is INVERSE"
        ):
            read_radiograph(dicom(film, PresentationLUTShape="INVERSE"))

    @pytest.mark.parametrize(("center", "width"), [(100, 0), (100, -5), (None, 5), (100, None)])
    def test_a_window_that_shows_nothing_is_refused(self, film, center, width):
        attributes = {"WindowCenter": center, "WindowWidth": width}
        with pytest.raises(DamagedImage, match="its window has"):
            read_radiograph(dicom(film, **{name: value for name, value in attributes.items() if value is not None}))

    @pytest.mark.parametrize(("slope", "intercept"), [("1e308", "0"), ("1", "1e300"), ("1", "-1e300")])
    def test_a_rescale_that_leaves_a_blank_picture_is_refused(self, film, slope, intercept):
        for window in ({}, {"WindowCenter": "1e300", "WindowWidth": "1e300"}):
            with pytest.raises(DamagedImage, match="RescaleSlope or RescaleIntercept is beyond"):
                read_radiograph(dicom(film.astype(np.uint16), RescaleSlope=slope, RescaleIntercept=intercept, **window))

    def test_no_text_of_a_file_stands_in_a_warning(self, film, tmp_path):
        path = tmp_path / "a.dcm"
        path.write_bytes(dicom(film, SpecificCharacterSet="ISO_IR 100").replace(b"ISO_IR 100", b"SEEDED^NAM"))
        said = subprocess.run(
            [sys.executable, "-c", f"from fracture_det.structures.radiograph import *; read_radiograph({str(path)!r})"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "SEED" not in said.stderr + said.stdout

    @pytest.mark.parametrize("name", ["RG1", "RG3"])
    @pytest.mark.parametrize("kind", ["UNCR", "J2KR", "J2KI"])
    def test_real_computed_radiographs_as_dcmtk_shows_them(self, name, kind, tmp_path):
        data = real_file(f"{name}_{kind}.dcm")
        shown = grey(data)
        reference = _by_dcmtk(real_file(f"{name}_UNCR.dcm"), tmp_path, "+Wi", "1")
        assert np.corrcoef(shown.ravel(), reference.ravel())[0, 1] > 0.999
        assert abs(shown - reference).max() <= (1 if kind != "J2KI" else 40)

    @pytest.mark.parametrize(("name", "options"), [("mlut_18", ()), ("vlut_04", ("+Wl", "1"))])
    def test_real_lookup_tables_as_dcmtk_shows_them(self, name, options, tmp_path):
        reference = _by_dcmtk(real_file(f"{name}.dcm"), tmp_path, *options)
        assert abs(grey(real_file(f"{name}.dcm")) - reference).max() <= 1

    @pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
    @pytest.mark.parametrize("slope", [2, -3])
    @pytest.mark.parametrize("signed", [False, True])
    def test_all_bits_are_kept_with_the_window_of_the_file(self, film, photometric, slope, signed):
        low = 2048 if signed else 0
        stored = film.astype(np.int32) * 16 + np.arange(film.size).reshape(film.shape) % 16
        data = dicom(
            (stored - low).astype(np.int16 if signed else np.uint16),
            BitsStored=12,
            RescaleSlope=slope,
            RescaleIntercept=-50,
            WindowCenter=slope * (2000 - low) - 50,
            WindowWidth=1500,
            PhotometricInterpretation=photometric,
        )
        read = read_radiograph(data)
        bright = (photometric == "MONOCHROME2") == (slope > 0)
        assert (read.samples.values == (stored if bright else 4095 - stored)).all()
        assert read.samples.bits == 12
        black, white = read.samples.window
        shown = np.clip((read.samples.values - black) / (white - black), 0, 1) * 255
        assert abs(shown - read.pixels[:, :, 0]).max() <= 1

    def test_8_bits_have_no_samples_and_a_table_of_greys_has_its_ends(self, film):
        assert read_radiograph(dicom(film)).samples is None
        samples = read_radiograph(real_file("mlut_18.dcm")).samples
        assert (samples.values.dtype, samples.bits) == (np.uint16, 16)
        curved = read_radiograph(
            dicom(
                film.astype(np.uint16) * 16, BitsStored=12, WindowCenter=2000, WindowWidth=900, VOILUTFunction="SIGMOID"
            )
        )
        black, white = curved.samples.window
        assert 0 <= black < white <= 4095


def _by_dcmtk(data, folder, *options):
    """Return the picture that DCMTK shows of a file: its first window, unless `options` say otherwise."""
    if shutil.which("dcm2pnm") is None:
        pytest.skip("no dcm2pnm here; Debian has it in dcmtk")
    (folder / "x.dcm").write_bytes(data)
    subprocess.run(["dcm2pnm", *options, folder / "x.dcm", folder / "x.pgm"], check=True, capture_output=True)
    return np.asarray(Image.open(io.BytesIO((folder / "x.pgm").read_bytes()))).astype(int)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("693_UNCR.dcm", r"a DICOM file of computed tomography \(CT\), not a radiograph"),
            ("MR2_UNCR.dcm", r"a DICOM file of magnetic resonance \(MR\), not a radiograph"),
            ("US1_UNCR.dcm", r"a DICOM file of ultrasound \(US\), not a radiograph"),
            ("MR-SIEMENS-DICOM-WithOverlays.dcm", r"magnetic resonance \(MR\)"),
            ("OT-PAL-8-face.dcm", "of PALETTE COLOR with 1 samples per pixel"),
            ("SC_rgb_2frame.dcm", "a DICOM file of 2 frames, of which one is read"),
            ("SC_rgb_16bit.dcm", "a DICOM file of 3 x 16 bits per pixel"),
        ],
    )
    def test_real_files_of_other_kinds(self, name, sentence):
        with pytest.raises(UnsupportedImage, match=sentence):
            read_radiograph(real_file(name))

    @pytest.mark.parametrize(
        ("attributes", "sentence"),
        [
            ({"Modality": "MG"}, r"of mammography \(MG\)"),
            ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "OT"}, "of CT Image Storage"),
            ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, "for processing, not for presentation"),
            ({"PresentationIntentType": "FOR PROCESSING"}, "for processing, not for presentation"),
            ({"SOPClassUID": None, "Modality": "OT"}, "no stated class"),
            ({"SOPClassUID": "1.2.3.7730441"}, "of a class that the standard does not name, not a radiograph"),
            ({"NumberOfFrames": 3}, "3 frames"),
            ({"PhotometricInterpretation": None}, "does not say whether 0 is black or white"),
            ({"BitsStored": 6}, "6 bits, of which 8 to 16 are read"),
            ({"Modality": "ZZ"}, "of another modality"),
        ],
    )
    def test_by_its_tags(self, film, attributes, sentence):
        with pytest.raises(UnsupportedImage, match=sentence):
            read_radiograph(dicom(film, **attributes))

    def test_a_compression_that_is_not_read_is_named(self, film):
        video = dicom(film, "1.2.840.10008.1.2.4.100", frame=bytes(100))
        for syntax in ("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.110"):  # MPEG-2, JPEG XL
            with pytest.raises(UnsupportedImage, match=f"transfer syntax {syntax}, whose compression is not read"):
                read_radiograph(video.replace(b"1.2.840.10008.1.2.4.100", syntax.encode()))
        with pytest.raises(UnsupportedImage, match="which is not of the standard"):
            read_radiograph(dicom(film).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0"))

    def test_without_pydicom_the_sentence_says_what_to_install(self, film, tmp_path):
        path = tmp_path / "x.dcm"
        path.write_bytes(dicom(film))
        code = (
            "import sys; sys.modules['pydicom'] = None\n"
            "from fracture_det.structures.radiograph import UnsupportedImage, read_radiograph\n"
            "try: read_radiograph(sys.argv[1])\n"
            "except UnsupportedImage as error: print(error.reason)"
        )
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        assert "pip install 'fracture_det[dicom]'" in done.stdout

    def test_pydicom_is_imported_only_with_the_first_dicom_file(self):
        code = "import sys, fracture_det.structures.radiograph; print('pydicom' in sys.modules, 'gdcm' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "False False\n"


class TestWhatTheHeaderSays:
    @pytest.mark.parametrize(
        ("attributes", "spacing", "kind"),
        [
            ({}, None, None),
            ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "detector"),
            ({"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "unstated"),
            ({"PixelSpacing": [0.2, 0.1], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.2, 0.1), "calibrated"),
            ({"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "detector"),
            ({"PixelSpacing": [0.18, 0.09], "ImagerPixelSpacing": [0.2, 0.1]}, (0.18, 0.09), "calibrated"),
            ({"NominalScannedPixelSpacing": [0.3, 0.3]}, (0.3, 0.3), "scanned"),
            ({"PixelSpacing": [0, 0]}, None, None),  # of scanners that do not know it
            ({"PixelSpacing": ["1e300", "1e300"]}, None, None),
            ({"PixelSpacing": [0.2, 0.0001], "ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "detector"),
        ],
    )
    def test_spacing_and_where_it_was_measured(self, film, attributes, spacing, kind):
        read = read_radiograph(dicom(film, **attributes))
        assert (read.spacing_mm, read.dicom.spacing_kind) == (spacing, kind)

    def test_it_says_nothing_of_the_patient(self, film):
        file = read_dicom_file(dicom(film, BurnedInAnnotation="YES", ImageLaterality="L"), secret=SECRET)
        assert (file.modality, file.body_part, file.laterality, file.burned_in) == ("DX", "HAND", "L", True)
        assert file.study_uid == "1.2.826.0.1.3680043.8.498.2"
        said = f"{file!r} {vars(file) if hasattr(file, '__dict__') else ''}"
        for seed in ("Seed", "SEED", "7730441", "19310415", "5590217"):
            assert seed not in said
        assert "1.2.826" not in repr(file)

    def test_the_key_of_a_patient_needs_the_secret(self, film):
        key = read_dicom_file(dicom(film), secret=SECRET).patient_key
        assert key == read_dicom_file(dicom(film // 2), secret=SECRET).patient_key
        assert key != read_dicom_file(dicom(film), secret=SECRET + b"!").patient_key
        assert key != read_dicom_file(dicom(film, PatientID="SEED-7730442"), secret=SECRET).patient_key
        assert key != read_dicom_file(dicom(film, IssuerOfPatientID="elsewhere"), secret=SECRET).patient_key
        assert read_dicom_file(dicom(film)).patient_key is None
        assert read_dicom_file(dicom(film, PatientID=""), secret=SECRET).patient_key is None
        with pytest.raises(ValueError, match="secret: expected at least 16 bytes, got 4"):
            read_dicom_file(dicom(film), secret=b"abcd")

    @pytest.mark.parametrize(
        ("attributes", "other"),
        [
            ({"BodyPartExamined": "CHEST"}, "CHEST"),
            ({"BodyPartExamined": "C-Spine"}, "CSPINE"),
            ({"BodyPartExamined": "LEFT WRIST"}, None),
            ({"BodyPartExamined": "PELVIS"}, None),
            ({"BodyPartExamined": "UP_EXM"}, None),
            ({"BodyPartExamined": None}, None),
            ({"BodyPartExamined": "", "ViewPosition": "MLO"}, "BREAST"),
            ({"BodyPartExamined": "", "ViewPosition": "AP"}, None),
            ({"BodyPartExamined": "", "code": ("51185008", "SCT", "Thorax")}, "THORAX"),
            ({"BodyPartExamined": "", "code": ("T-11100", "SRT", "")}, "SKULL"),
            ({"BodyPartExamined": "CHEST", "code": ("T-D8700", "SRT", "")}, None),  # one of them is wrong
        ],
    )
    def test_other_parts_of_the_body(self, film, attributes, other):
        code = attributes.pop("code", None)
        if code is not None:
            item = pydicom.Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
            attributes["AnatomicRegionSequence"] = [item]
        assert read_radiograph(dicom(film, **attributes)).dicom.other_body_part == other
