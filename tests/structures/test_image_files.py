"""Which files are images."""

import pytest

from fracture_det.structures.image_files import InputError, find_images, list_image_names

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
        assert [path.name for path in found.skipped] == [".DS_Store", "notes.txt"]

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
        with pytest.raises(InputError, match="no image found"):
            find_images(f"{folder}/*.dcm")
        (folder / "c/broken.jpg").unlink()
        with pytest.raises(InputError, match=r"no image found \(1 other files\)"):
            find_images(folder / "c")


class TestListImageNames:
    def test_a_folder_with_its_subfolders(self, folder):
        assert list_image_names(folder) == NAMES

    def test_a_link_that_leads_nowhere_and_a_folder_with_the_name_of_an_image_are_none(self, folder):
        (folder / "gone.png").symlink_to(folder / "nowhere.png")
        (folder / "folder.png").mkdir()
        assert list_image_names(folder) == NAMES
        assert "gone.png" in dict(find_images(folder).files)  # to fail later, as a file

    def test_a_folder_that_is_not_there(self, folder):
        with pytest.raises(FileNotFoundError, match="nowhere: not a folder of images"):
            list_image_names(folder / "nowhere")
