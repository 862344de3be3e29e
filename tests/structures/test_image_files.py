"""Which files are images, and that every other one is named with its reason."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from fracture_det.structures.image_files import (
    DICOM_SUFFIXES,
    HIDDEN,
    IMAGE_SUFFIXES,
    InputError,
    find_images,
    list_folder,
    list_image_names,
    printable,
)
from fracture_det.structures.radiograph import read_radiograph

NAMES = ["a/x.jpg.png", "a/x.png", "b/healthy.PNG", "b/thirteen.png", "b/x.png", "c/broken.jpg"]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "Röntgen"
    for name in (*NAMES, "notes.txt", "c/.DS_Store"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


class TestFindImages:
    def test_a_folder_with_its_subfolders(self, folder):
        found = find_images(folder)
        assert [name for name, _ in found.files] == NAMES
        assert [(file.name, file.reason) for file in found.skipped] == [("c/.DS_Store", HIDDEN), ("notes.txt", "empty")]

    def test_a_file_whatever_its_suffix(self, folder):
        assert find_images(folder / "notes.txt").files == (("notes.txt", folder / "notes.txt"),)

    def test_a_pattern_counts_from_its_fixed_part(self, folder):
        assert [name for name, _ in find_images(f"{folder}/*/x.*").files] == ["a/x.jpg.png", "a/x.png", "b/x.png"]
        assert [name for name, _ in find_images(f"{folder}/b/*").files] == ["healthy.PNG", "thirteen.png", "x.png"]
        assert len(find_images(f"{folder}/**/*").files) == 6

    def test_a_relative_pattern(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        assert [name for name, _ in find_images("a/*.png").files] == ["x.jpg.png", "x.png"]
        assert len(find_images("**/x.png").files) == 2

    def test_the_output_of_an_earlier_run_is_no_input(self, folder):
        (folder / "out/overlays").mkdir(parents=True)
        (folder / "out/overlays/x.png").touch()
        assert [name for name, _ in find_images(folder, leave_out=folder / "out").files] == NAMES

    def test_nothing_found_is_an_error(self, folder):
        with pytest.raises(InputError, match="nowhere: no such file or folder"):
            find_images(folder / "nowhere")
        with pytest.raises(InputError, match="no file found; looked for"):
            find_images(f"{folder}/*.dcm")
        with pytest.raises(InputError, match="no such file or folder"):
            find_images(f"{folder}/nowhere/*.png")
        (folder / "c/broken.jpg").unlink()
        with pytest.raises(InputError, match=r"c: no image that can be read; 1 other file is not read; looked for"):
            find_images(folder / "c")

    def test_a_link_that_was_copied_as_text_is_said_to_be_one(self, tmp_path):
        (tmp_path / "a.png").touch()
        (tmp_path / "Fractured").write_text("/store/Fractured\n")
        (tmp_path / "NOTES").write_text("not a path")
        (tmp_path / "b.txt").write_text("../b.png")
        (tmp_path / "two").write_text("../a.png\n../b.png")
        assert {file.name: file.reason for file in find_images(tmp_path).skipped} == {
            "Fractured": "holds only the path /store/Fractured: a link that was copied as text, not followed",
            "NOTES": "not an image",
            "b.txt": "not an image",
            "two": "not an image",
        }

    def test_one_file_is_told_in_the_singular(self, tmp_path):
        (tmp_path / "IM0001").write_bytes(b"GIF89a" + bytes(300))
        with pytest.raises(InputError, match=r"no image that can be read; 1 GIF image \(no suffix\) is not read"):
            find_images(tmp_path)

    def test_a_folder_of_other_images_is_said_to_be_one(self, tmp_path):
        for number in range(5):
            (tmp_path / f"{number}.gif").write_bytes(b"GIF89a" + bytes(300))
        (tmp_path / "IM0001").write_bytes(b"GIF89a" + bytes(300))
        (tmp_path / "notes.txt").write_text("x")
        expected = r"no image that can be read; 5 GIF images \(.gif\), 1 GIF image \(no suffix\), 1 other file are not"
        for source in (tmp_path, f"{tmp_path}/*"):
            with pytest.raises(InputError, match=expected):
                find_images(source)

    def test_every_file_that_is_not_read_is_named_with_what_it_is(self, tmp_path):
        def encoded(kind):
            buffer = io.BytesIO()
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(buffer, kind)
            return buffer.getvalue()

        files = {
            "a.png": encoded("PNG"),
            "DICOMDIR": bytes(128) + b"DICM\2\0\2\0UI\x14\x001.2.840.10008.1.3.10\0",
            "a.dicom_file": bytes(128) + b"DICM",
            "a.gif": encoded("GIF"),
            "a.heic": b"\0\0\0\x18ftypheic",
            "a.jp2": encoded("JPEG2000"),
            "._a.png": b"\0\5\x16\7",
            ".cache/b.png": encoded("PNG"),
            "IM0001": encoded("JPEG"),
            "a.csv": b"BMI,age\n",
            "a.xml": b"<annotation/>",
        }
        for name, data in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
        (tmp_path / os.fsdecode(b"b\xff.png")).write_bytes(encoded("PNG"))
        os.mkfifo(tmp_path / "pipe")
        found = find_images(tmp_path)
        assert [name for name, _ in found.files] == ["a.png"]
        assert {file.name: file.reason for file in found.skipped} == {
            "._a.png": HIDDEN,
            ".cache/b.png": HIDDEN,
            "IM0001": "a JPEG image, but its name does not end as one (.jpg ...); rename it",
            "a.csv": "not an image",
            "DICOMDIR": "a DICOM directory, which is not read",
            "a.dicom_file": "a DICOM file, but its name does not end as one (.dcm ...); rename it",
            "a.gif": "a GIF image, which is not read",
            "a.heic": "a HEIC image, which is not read",
            "a.jp2": "a JPEG 2000 image, which is not read",
            "a.xml": "not an image",
            "b\udcff.png": "its name is not UTF-8; rename it",
            "pipe": "neither a file nor a folder",
        }

    def test_dicom_files_need_no_suffix(self, tmp_path):
        for name in ("IM0001", "1.2.840.113619.2.5", "x.DCM", "sub/00000001", ".hidden", "notes.doc"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(bytes(128) + b"DICM" + bytes(300))
        names = ["1.2.840.113619.2.5", "IM0001", "sub/00000001", "x.DCM"]
        assert [name for name, _ in find_images(tmp_path).files] == names

    def test_names_with_brackets_are_taken_literally_where_they_are_real(self, tmp_path):
        (tmp_path / "in[1]").mkdir()
        for name in ("in[1]/a.png", "in[1]/film[2]x.png"):
            (tmp_path / name).touch()
        for source, expected in (
            ("in[1]", ["a.png", "film[2]x.png"]),
            ("in[1]/*.png", ["a.png", "film[2]x.png"]),
            ("in[1]/film[2]*.png", ["film[2]x.png"]),
            ("in[1]/film[2]x.png", ["film[2]x.png"]),
            ("in[1]/[ab].png", ["a.png"]),
            ("**", ["in[1]/a.png", "in[1]/film[2]x.png"]),
        ):
            assert [name for name, _ in find_images(tmp_path / source).files] == expected, source

    def test_a_pattern_enters_no_deeper_than_it_says(self, folder, monkeypatch):
        scanned = []
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: scanned.append(str(path)) or scandir(path))
        find_images(f"{folder}/a/*.png")
        assert scanned == [str(folder / "a")]

    def test_every_suffix_is_of_a_kind_that_is_read(self, tmp_path):
        by_pillow = [suffix for suffix in IMAGE_SUFFIXES if suffix not in DICOM_SUFFIXES]
        assert {suffix: _written_as(tmp_path / f"x{suffix}") for suffix in by_pillow} == dict.fromkeys(
            by_pillow, (6, 4)
        )


def _written_as(path):
    kind = {".jpe": "JPEG", ".jfif": "JPEG", ".tif": "TIFF"}.get(path.suffix, path.suffix[1:].replace("jpg", "jpeg"))
    Image.fromarray(np.arange(24, dtype=np.uint8).reshape(6, 4)).save(path, kind)
    return read_radiograph(path).size


class TestLinks:
    @pytest.fixture
    def archive(self, tmp_path):
        root, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
        for name in ("m/x.png", "z.png"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        elsewhere.mkdir()
        (elsewhere / "y.png").touch()
        return root

    def test_a_folder_is_entered_by_its_own_name_rather_than_by_a_link(self, archive):
        (archive / "a_link").symlink_to("m")
        assert list_image_names(archive) == ["m/x.png", "z.png"]
        assert list_folder(archive).not_entered == (("a_link", "leads to m, which is entered under that name"),)

    def test_a_folder_elsewhere_is_entered_once(self, archive, tmp_path):
        (archive / "b").symlink_to(tmp_path / "elsewhere")
        (archive / "m/c").symlink_to(tmp_path / "elsewhere")
        found = find_images(archive)
        assert [name for name, _ in found.files] == ["b/y.png", "m/x.png", "z.png"]
        assert [(file.name, file.reason) for file in found.skipped] == [
            ("m/c", "leads to b, which is entered under that name")
        ]
        assert [name for name, _ in find_images(f"{archive}/**/*.png").files] == ["b/y.png", "m/x.png", "z.png"]

    def test_circles_end(self, archive):
        (archive / "m/up").symlink_to("..")
        (archive / "self").symlink_to("self")
        assert list_image_names(archive) == ["m/x.png", "z.png"]
        assert list_folder(archive).not_entered == (
            ("m/up", "leads to the folder itself, which is entered under that name"),
            ("self", "a link to nothing"),
        )

    def test_a_folder_that_cannot_be_entered_is_named(self, archive, monkeypatch):
        scandir = os.scandir

        def refuse(path):
            if str(path).endswith("m"):
                raise PermissionError(13, "Permission denied")
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        assert list_folder(archive).not_entered == (("m", "cannot be entered: Permission denied"),)


def test_a_name_is_printed_in_one_line():
    assert printable("new\nline\x1b[2Jö\udcff.png") == r"new\nline\x1b[2Jö\udcff.png"


class TestListImageNames:
    def test_a_folder_with_its_subfolders(self, folder):
        assert list_image_names(folder) == NAMES

    def test_a_link_that_leads_nowhere_and_a_folder_with_the_name_of_an_image_are_none(self, folder):
        (folder / "gone.png").symlink_to(folder / "nowhere.png")
        (folder / "folder.png").mkdir()
        assert list_image_names(folder) == NAMES
        assert "gone.png" in dict(find_images(folder).files)  # to fail later, as a file

    def test_a_folder_that_is_not_there(self, folder):
        with pytest.raises(FileNotFoundError, match="nowhere: not a folder"):
            list_image_names(folder / "nowhere")
